"""Runs and corrections of somebody else: code that they name is run only if it is the user's own, or with --trust."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.audit.conftest import network, write_corpus
from tests.audit.shortcut import FACTS

from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.cli.app import run
from klarsicht.ground.errors import UntrustedCode
from klarsicht.ground.pictures.stored_images import load_decoder
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.trust import record_code, trusted_code

MODEL = "from tests.audit.conftest import network as build\n"
DECODE = "from PIL import Image\n\n\ndef read(path):\n    return Image.open(path).convert('RGB')\n"
MARK = "open('ran', 'w').close()\n"


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A folder with a run, made from it, and the user's code beside it."""
    folder = tmp_path_factory.mktemp("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_corpus(Path("data"), per_class=20)
        Path("model.py").write_text(MODEL)
        Path("decode.py").write_text(DECODE)
        words = ["--model", "model.py:build", "--decode", "decode.py:read", "--data", "data", "--out", "run"]
        assert run(["audit", "run", *words]) == 0
    return folder


@pytest.fixture
def here(audited, tmp_path, monkeypatch):
    shutil.copytree(audited, tmp_path / "mine")
    load_decoder.cache_clear()
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine"


def bring_along(name, where="run"):
    """Make a run name code of its own, with its hash, as somebody does who hands it on."""
    store = RunStore.open("run")
    Path(where, f"{name}.py").write_text((MODEL if name == "model" else DECODE) + MARK)
    function = "build" if name == "model" else "read"
    settings = store.manifest["settings"] | {name: f"{where}/{name}.py:{function}"}
    store.update_manifest(settings=settings, code=store.manifest["code"] | record_code(settings[name]))


def change(name):
    Path(f"{name}.py").write_text((MODEL if name == "model" else DECODE) + MARK)


COMMANDS = {
    "quantify": ["quantify", "run"],
    "shortcuts": ["shortcuts", "run"],
    "power": ["power", "run"],
    "check": ["check", "data/a/000.png", "--run", "run"],
    "clean": ["clean", "run", "--class", "b"],
    "clean all": ["clean", "run"],
    "evaluate": ["evaluate", "run", "--correction", "correction"],
    "clean-data": ["clean-data", "run", "--class", "b", "--out", "new"],
    "duplicates": ["duplicates", "run"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("name", ["model", "decode"])
@pytest.mark.parametrize("attack", [bring_along, change])
def test_commands_name_the_code_of_a_run_and_do_not_run_it(here, capsys, words, name, attack):
    attack(name)
    code = run(["audit", *words])
    told = capsys.readouterr().err
    assert not Path("ran").exists()
    if words[0] == "duplicates" and name == "model":  # which loads no model
        assert code == 0
        return
    assert code == 4
    assert told.count("\n") == 1 and f"{name}.py" in told and "--trust" in told


@pytest.mark.parametrize("attack", [bring_along, change])
def test_an_export_runs_no_such_code_and_says_why_it_shows_no_image(here, capsys, attack):
    assert run(["audit", "export", "run", "--to", "page", "--out", "as-it-was.html"]) == 0
    assert capsys.readouterr().err == ""
    attack("decode")
    assert run(["audit", "export", "run", "--to", "page", "--out", "page.html"]) == 0
    told = capsys.readouterr().err
    assert not Path("ran").exists()
    assert told.count("\n") == 1 and "60 images cannot be shown" in told and "decode.py" in told and "--trust" in told
    load_decoder.cache_clear()
    assert run(["audit", "export", "run", "--to", "page", "--out", "trusted.html", "--trust"]) == 0
    assert Path("ran").exists() and capsys.readouterr().err == ""
    shown = [
        Path(name).read_text().count("data:image/jpeg") for name in ("as-it-was.html", "page.html", "trusted.html")
    ]
    assert shown[0] == shown[2] == 120 and shown[1] == 0  # of each image itself and its relevance over it


def test_code_that_is_as_it_was_is_the_users_own(here, capsys):
    assert run(["audit", "duplicates", "run"]) == 0
    assert Audit.of_run(RunStore.open("run")).classifier.n_classes == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("attack", [bring_along, change])
@pytest.mark.parametrize("name", ["model", "decode"])
def test_with_trust_it_is_run(here, attack, name):
    attack(name)
    with pytest.raises(UntrustedCode):
        Audit.of_run(RunStore.open("run"))
    with trusted_code():
        assert Audit.of_run(RunStore.open("run")).classifier.n_classes == 3
    assert Path("ran").exists()
    with pytest.raises(UntrustedCode):
        Audit.of_run(RunStore.open("run"))


def test_the_option_trust_lasts_as_long_as_its_command(here):
    change("decode")
    assert run(["audit", "duplicates", "run", "--trust"]) == 0
    assert Path("ran").exists()
    assert run(["audit", "duplicates", "run"]) == 4


@pytest.mark.slow
def test_two_workers_inherit_trust_and_its_absence(here, capsys):
    """Workers open the model anew: here a correction that names changed code."""
    packages.save_correction(Path("correction"), JointCorrection(), FACTS | {"model": "model.py:build"})
    words = ["--model", "correction", "--data", "data", "--out", "again", "--unit", "8", "--workers", "2"]
    assert run(["audit", "run", *words]) == 4
    assert "model.py" in capsys.readouterr().err
    assert run(["audit", "run", *words, "--trust"]) == 0


def test_the_audit_given_again_records_what_it_names(here):
    """The user names the code on the command line; so a run that records none gets its hashes, too."""
    change("model")
    assert run(["audit", "quantify", "run"]) == 4
    words = ["--model", "model.py:build", "--decode", "decode.py:read", "--data", "data", "--out", "run"]
    assert run(["audit", "run", *words]) == 0
    assert Audit.of_run(RunStore.open("run")).classifier.n_classes == 3


def test_a_run_that_records_no_hashes_asks_for_trust(here, capsys):
    RunStore.open("run").update_manifest(code={})
    assert run(["audit", "duplicates", "run"]) == 4
    assert "a folder names code without its hash; got decode.py" in capsys.readouterr().err


@pytest.mark.parametrize("decode", ["os:remove", "shutil:rmtree", "builtins:exec", "posix:remove", "pickle:load"])
def test_functions_of_python_itself_are_named(here, capsys, decode):
    """A picture's path, or its bytes, would be their argument."""
    store = RunStore.open("run")
    store.update_manifest(settings=store.manifest["settings"] | {"decode": decode}, code={decode: "0" * 64})
    assert run(["audit", "duplicates", "run"]) == 4
    assert f"not a file of yours; got {decode}" in capsys.readouterr().err
    assert len(list(Path("data").rglob("*.png"))) == 60


def test_a_module_in_the_folder_from_which_a_run_is_opened_counts_as_inside(here, monkeypatch, capsys):
    """`module:callable` is looked for in the current folder first."""
    bring_along("decode")
    store = RunStore.open("run")
    store.update_manifest(settings=store.manifest["settings"] | {"decode": "decode:read"}, data=str(here / "data"))
    monkeypatch.chdir("run")
    assert run(["audit", "duplicates", "."]) == 4
    assert "brings its own code along" in capsys.readouterr().err and not Path("ran").exists()


@pytest.mark.parametrize("command", [["doctor"], ["run", "--out", "again"], ["plant"]], ids=lambda words: words[0])
@pytest.mark.parametrize("inside", [True, False])
def test_a_correction_that_names_code_is_asked_like_a_run(here, capsys, command, inside):
    code = RunStore.open("run").manifest["code"]
    spec = "correction/model.py:build" if inside else "model.py:build"
    packages.save_correction(Path("correction"), JointCorrection(), FACTS | {"model": spec, "code": code})
    words = ["data", "--out", "new", "--kind", "tag"] if command == ["plant"] else ["--data", "data"]
    if inside:
        Path("correction/model.py").write_text(MODEL + MARK)
    else:
        assert run(["audit", *command, *words, "--model", "correction"]) == 0  # as it was recorded
        shutil.rmtree("new", ignore_errors=True)
        change("model")
    capsys.readouterr()
    assert run(["audit", *command, *words, "--model", "correction"]) == 4
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "model.py" in told and not Path("ran").exists()


def test_records_of_corrections_hand_on_the_hashes_of_the_run(here):
    classifier = load_model(network())
    store = RunStore.open("run")
    of_run = SimpleNamespace(
        store=store, audit=SimpleNamespace(settings=SimpleNamespace(model="x"), classifier=classifier)
    )
    one = SimpleNamespace(name="b", target=1, to_json=dict)
    settings = CleanSettings()
    records = (
        clean_model.make_record(of_run, one, settings, one, ()),
        clean_model.make_joint_record(of_run, (), SimpleNamespace(parts=()), settings, one),
    )
    assert [record["code"] for record in records] == [store.manifest["code"]] * 2
    assert set(store.manifest["code"]) == {"model.py:build", "decode.py:read"}


def test_the_users_own_model_is_not_asked_about(here):
    change("model")
    assert run(["audit", "doctor", "--model", "model.py:build", "--data", "data"]) == 0
    assert Path("ran").exists()


def test_a_model_given_in_python_needs_no_code_of_the_run(here):
    change("model")
    audit = Audit.of_run(RunStore.open("run"), classifier=load_model(network()))
    assert audit.classifier.n_classes == 3 and not Path("ran").exists()
