"""`audit clean`, `clean-data` and `evaluate` in process: what is printed, what is written, exit codes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.audit import honest
from tests.audit.conftest import write_corpus

from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection
from klarsicht.audit.cleaning.corrections.packages import save_correction
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.bridge.class_noise import estimate_class_noise
from klarsicht.cli.app import run

ROOT = Path(__file__).parents[2]


def assert_in_verdict_alone(words, told):
    """A refusal is said once, with its next step: by the verdict, and not again as an error."""
    assert words in told.out[told.out.index("\nverdict: ") : told.out.index("\nnext: ")]
    assert words not in told.err and "does not help" not in told.err


def audited(folder, model):
    out = str(folder / "run")
    assert run(["audit", "run", "--model", model, "--data", str(folder / "data"), "--out", out]) == 0
    return out


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A run that is copied for every test; its corpus is only read."""
    folder = tmp_path_factory.mktemp("once")
    write_corpus(folder / "data", share=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return audited(folder, "tests.audit.conftest:network")


@pytest.fixture
def finished(once, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return str(shutil.copytree(once, tmp_path / "run"))


@pytest.mark.slow
def test_clean_and_evaluate_print_tables_and_json(finished, tmp_path, capsys):
    out = str(tmp_path / "correction")
    clean = ["audit", "clean", finished, "--class", "b", "--method", "project", "--layer", "last", "--out", out]
    capsys.readouterr()
    assert run([*clean, "--images", "60"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if line.startswith("*")] == ["*"]
    assert f"correction: {out}" in printed
    first, second = (line.strip() for line in printed[printed.index("load it in Python:") :].splitlines()[1:3])
    loaded = {}
    exec(f"{first}\n{second}", loaded)  # as a reader would paste them
    assert not loaded["net"].eval().training and loaded["net"](torch.rand(2, 3, 12, 12)).shape == (2, 3)
    said = printed[printed.index("\non ") :]
    assert run(["audit", "evaluate", finished, "--correction", out]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split("  ")[-1].strip() == "random direction"
    assert "verdict: corrected, use not tested: " in printed and "\nnext: Look at the images" in printed
    assert printed[printed.index("\non ") :].startswith(said)  # the same images, in the same sentences
    assert run(["audit", "evaluate", finished, "--correction", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [look["correction"] for look in found["looks"]] == ["nothing", "project", "random direction"]
    assert found == json.loads((Path(out) / "evaluation.json").read_text())
    assert run(["audit", "gate", finished, "--fail-on", "harm"]) == 0  # it reads the certificate as a file of the run
    assert "The gate is open: no alarm for harm." in capsys.readouterr().out


@pytest.mark.slow
def test_several_corrections_make_one_certificate(finished, tmp_path, capsys):
    folders = []
    for method in ("oblique", "nothing"):
        capsys.readouterr()
        folders += ["--correction", str(tmp_path / method)]
        ask = ["audit", "clean", finished, "--class", "b", "--method", method, "--images", "60", "--layer", "last"]
        assert run([*ask, "--out", folders[-1]]) == (8 if method == "nothing" else 0)
    assert_in_verdict_alone("it leaves 100 % of the score difference", capsys.readouterr())
    assert run(["audit", "evaluate", finished, *folders, "--out", str(tmp_path / "both")]) == 0
    printed = capsys.readouterr().out
    assert "b: cleaned by oblique" in printed
    found = json.loads((tmp_path / "both" / "certificate.json").read_text())
    assert [one["name"] for one in found["corrections"]] == ["oblique", "nothing"]
    assert (tmp_path / "both" / "certificate.html").stat().st_size > 2000
    assert run(["audit", "evaluate", finished, *folders[2:]]) == 8  # nothing is no help
    assert_in_verdict_alone("it leaves 100 % of the score difference", capsys.readouterr())
    assert (Path(finished) / "certificate" / "certificate.html").exists()


def test_several_classes_print_a_line_each_and_exit_8_where_an_effect_remains(finished, tmp_path, capsys):
    ask = ["audit", "clean", finished, "--class", "b", "--class", "a", "--method", "project", "--layer", "last"]
    capsys.readouterr()
    for strength, code in (("1", 0), ("0.2", 8)):
        out = tmp_path / strength
        assert run([*ask, "--images", "60", "--strength", strength, "--out", str(out)]) == code
        told = capsys.readouterr()
        assert [line.split()[0] for line in told.out.splitlines() if " project at last" in line] == ["b", "a"]
        assert f"certificate: {out / 'certificate.html'}" in told.out and "together: accuracy " in told.out
        assert [line[:12] for line in told.err.splitlines() if "project at" in line] == ["klarsicht: b", "klarsicht: a"]
        assert json.loads((out / "correction.json").read_text())["shown"]["clean"] == (code == 0)
    assert any(f"verdict: correction does not help: {name}: " in told.out for name in "ab")
    assert_in_verdict_alone("% of the score difference", told)
    assert run(["audit", "evaluate", finished, "--correction", str(out)]) == 2
    assert "one class is evaluated at a time" in capsys.readouterr().err


def test_a_trained_correction_that_leaves_the_effect_exits_8_and_is_saved(finished, tmp_path, capsys):
    out = tmp_path / "penalised"
    ask = ["audit", "clean", finished, "--class", "b", "--method", "penalise", "--layer", "last", "--out", str(out)]
    assert run([*ask, "--images", "60", "--steps", "1", "--lessons", "60"]) == 8
    told = capsys.readouterr()
    assert_in_verdict_alone("% of the score difference", told)
    assert "verdict: correction does not help" in told.out
    assert json.loads((out / "correction.json").read_text())["shown"]["clean"] is False


@pytest.mark.slow
def test_corrections_evaluated_before_are_further_seeds(finished, tmp_path, capsys):
    """Two seeds of one method are one line; its figure is their mean, counted here from their own evaluations."""
    folders = [str(tmp_path / f"seed-{seed}") for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        ask = ["audit", "clean", finished, "--class", "b", "--method", "oblique", "--layer", "last"]
        ask += ["--directions", "1", "--strength", "1"]
        assert run([*ask, "--images", "60", "--seed", str(seed), "--out", folder]) == 0
    together = ["audit", "evaluate", finished, "--correction", folders[0], "--also", folders[1]]
    assert run([*together, "--out", str(tmp_path / "early")]) == 3
    assert "no evaluation in this folder" in capsys.readouterr().err
    assert run(["audit", "evaluate", finished, "--correction", folders[1]]) == 0
    assert run([*together, "--out", str(tmp_path / "both")]) == 0
    found = json.loads((tmp_path / "both" / "certificate.json").read_text())
    each = [json.loads((Path(folder) / "evaluation.json").read_text()) for folder in folders]
    assert [(one["name"], one["seeds"]) for one in found["corrections"]] == [("oblique", 2)]
    for name in ("harm", "accuracy", "rise"):
        mean = sum(one["looks"][1][name]["value"] for one in each) / 2
        assert found["corrections"][0]["figures"][name]["value"] == pytest.approx(mean)
    assert "2 seeds" in (tmp_path / "both" / "certificate.html").read_text()
    assert run([*together, "--overall", "0.5", "--out", str(tmp_path / "mixed")]) == 2  # judged by another bound


@pytest.mark.slow
def test_harm_beyond_its_bound_exits_7_after_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (tmp_path / "list.txt").write_text("\n".join(honest.write_corpus(tmp_path / "data")))
    folder = audited(tmp_path, "tests.audit.honest:network")
    out = str(tmp_path / "c")
    given = [
        "--members",
        str(tmp_path / "list.txt"),
        "--method",
        "oblique",
        "--strength",
        "1",
        "--layer",
        "last",
        "--json",
        "--out",
        out,
    ]
    capsys.readouterr()
    assert run(["audit", "clean", folder, "--class", "b", *given]) == 7
    told = capsys.readouterr()
    assert json.loads(told.out)["settings"]["strength"] == 1
    assert json.loads(told.out)["shown"]["harm answer"]["answer"] == "harmful"
    assert " on clean images, more than the " in told.err
    assert run(["audit", "evaluate", folder, "--correction", out]) == 7
    told = capsys.readouterr()
    assert "verdict: harmful" in told.out
    assert_in_verdict_alone(" on clean images, more than the ", told)
    assert run(["audit", "evaluate", folder, "--correction", out, "--overall", "1", "--affected", "1"]) == 0


def test_clean_data_says_what_would_change_then_writes_it(finished, tmp_path, capsys):
    out = tmp_path / "new"
    ask = ["audit", "clean-data", finished, "--class", "b", "--action", "inpaint", "--out", str(out)]
    capsys.readouterr()
    assert run([*ask, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert not out.exists()
    changed = [line for line in printed.splitlines() if line.startswith("inpaint")]
    assert len(changed) == 18
    assert all(line.endswith("image of the finding") for line in changed)  # a dry run writes no record to look it up
    assert "b: 18 images inpainted, 162 unchanged" in printed
    assert "nothing written" in printed
    assert run([*ask, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"inpaint": 18, "keep": 162}
    again = ["audit", "run", "--model", "tests.audit.conftest:network", "--data", str(out / "manifest.csv")]
    assert run([*again, "--out", str(tmp_path / "again")]) == 0


@pytest.mark.slow
def test_every_image_is_denoised_alike(finished, tmp_path, capsys):
    """Also those of other classes, which have no noise: they change, and all are written."""
    ask = ["audit", "clean-data", finished, "--action", "denoise", "--noise", "0.05,0.001"]
    out = tmp_path / "new"
    capsys.readouterr()
    assert run([*ask, "--out", str(out), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"denoise": 180}
    assert not out.exists()
    assert run([*ask, "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["counts"] == {"denoise": 180} and facts["noise"] == [0.05, 0.001]
    assert len(list((out / "images").iterdir())) == 180
    by_itself = ["audit", "clean-data", finished, "--action", "denoise", "--out", str(tmp_path / "b"), "--dry-run"]
    assert run([*by_itself, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    corpus = AuditedRun.of(finished).audit.corpus
    noisiest = estimate_class_noise(corpus)[0]
    assert facts["noise"] == [noisiest.noise.read, noisiest.noise.shot]
    assert f"as estimated in {noisiest.name}, the noisiest class" in facts["method"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["clean", "RUN", "--class", "d"], 2, "'d'"),
        (["clean", "RUN", "--class", "b", "--method", "projekt"], 2, "project"),
        (["clean", "RUN", "--class", "b", "--strength", "-1"], 2, "strength"),
        (
            ["clean", "RUN", "--class", "b", "--members", "docs/figures/digits.png"],
            3,
            "Give a text file as --members",
        ),
        (["clean", "RUN"], 2, "not quantified"),
        (["clean", "RUN", "--class", "b", "--class", "c", "--mask", "m.png"], 2, "one class"),
        (["evaluate", "RUN", "--correction", "nowhere"], 3, "no such folder"),
        (["clean-data", "RUN", "--out", "o"], 2, "not quantified"),
        (["clean-data", "RUN", "--out", "o", "--class", "b", "--class", "d"], 2, "'d'"),
        (["clean-data", "RUN", "--out", "o", "--class", "b", "--class", "c", "--mask", "m.png"], 2, "one class"),
        (["clean-data", "RUN", "--out", "o", "--class", "b", "--correction", "c"], 2, "which artifact"),
        (["clean-data", "RUN", "--out", "o", "--class", "b", "--action", "inpant"], 2, "inpaint"),
        (["clean-data", "RUN", "--out", "o", "--correction", "nowhere"], 3, "no such folder"),
        (["clean-data", "RUN", "--out", "o", "--action", "denoise", "--noise", "loud"], 2, "READ,SHOT"),
        (["clean-data", "RUN", "--out", "o", "--action", "denoise", "--class", "b", "--noise", "0.1,0"], 2, "every"),
        (["clean-data", "RUN", "--out", "o", "--class", "b", "--noise", "0.1,0"], 2, "--action denoise"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(finished, capsys, arguments, code, told):
    capsys.readouterr()
    assert run(["audit", *(finished if word == "RUN" else word for word in arguments)]) == code
    printed = capsys.readouterr().err.strip()
    assert told in printed
    assert len(printed.splitlines()) == 1


def test_a_part_is_named_or_taken_from_what_was_noted(finished, tmp_path, capsys):
    ask = ["audit", "clean", finished, "--class", "b", "--method", "oblique", "--layer", "last", "--images", "60"]
    assert run([*ask, "--part", "top left", "--out", str(tmp_path / "c"), "--json"]) in (0, 8)
    found = json.loads(capsys.readouterr().out)
    assert found["artifact"]["planted"]["parts"] == ["top left"] and found["artifact"]["members"] == 0
    assert run([*ask, "--part", "noted"]) != 0
    assert "audit shortcuts" in capsys.readouterr().err
    assert run(["audit", "clean", finished, "--part", "border"]) == 2
    assert "--class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["clean", "--class", "b", "--part", "surroundings"], 2, "cleaned of all classes at once"),
        (["clean", "--part", "surroundings", "--part", "border"], 2, "Give --part surroundings alone"),
        (["clean", "--class", "b", "--groups", "sky"], 2, "--groups without --part surroundings"),
        (["clean", "--part", "surroundings"], 5, "surroundings"),  # `audit shortcuts` was not run
        (["clean", "--part", "surroundings", "--groups", "nowhere.csv"], 3, "no such table of groups"),
        (["clean", "--part", "surroundings", "--mask", "m.png"], 2, "--mask"),
        (
            ["clean", "--balanced", "nowhere"],
            3,
            "got nowhere. Check the path of --balanced",
        ),
        (["clean", "--class", "b", "--balanced", "."], 2, "--balanced with a class or a part; got b"),
        (["clean", "--part", "border", "--balanced", "."], 2, "got border; they teach all classes at once"),
        (["clean", "--part", "surroundings", "--images", "50", "--method", "dfr"], 2, "got --method, --images"),
        (["evaluate", "--correction", "nowhere", "--groups", "nowhere.csv"], 3, "no such table of groups"),
        (["evaluate", "--correction", "c", "--test", "nowhere"], 3, "got nowhere. Check the path of --test"),
        (["shortcuts", "--reference", "nowhere"], 3, "got nowhere. Check the path of --reference"),
    ],
)
def test_wrong_surroundings_and_groups_are_one_line(finished, capsys, more, code, said):
    assert run(["audit", more[0], finished, *more[1:]]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@pytest.mark.parametrize(("option", "value"), [("--affected", "0.1"), ("--also", "elsewhere")])
def test_what_a_correction_of_surroundings_has_not_is_refused_by_name(finished, tmp_path, capsys, option, value):
    facts = {"model": "", "code": {}, "identity": {}, "settings": CleanSettings().model_dump(mode="json")}
    save_correction(tmp_path / "c", JointCorrection(), facts | {"surroundings": {}})
    assert run(["audit", "evaluate", finished, "--correction", str(tmp_path / "c"), option, value]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"got {option};" in line and "Leave it out" in line
