"""Diagnoses agree with the audit that follows them."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import write_corpus

from klarsicht.audit.explanation import doctor
from klarsicht.audit.explanation.doctor import _describe_chance, describe_absorption, describe_input, diagnose
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.explainer import METHODS, explain
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.cli.app import run
from klarsicht.ground.errors import InputError, ModelError

MODEL = "tests.audit.conftest:network"


@pytest.fixture
def corpus(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    return tmp_path / "data"


def diagnosed(corpus, model=MODEL, **more):
    return diagnose(AuditSettings(model=model, data=str(corpus), **more))


def test_a_model_that_conserves_gets_every_method(corpus, monkeypatch):
    """Oracle: the explainer on the same images; layers and counts as they are written down in conftest."""
    for budget in ("BUDGET", "LABEL_BUDGET"):
        monkeypatch.setattr(f"klarsicht.audit.explanation.doctor.{budget}", np.inf)
    found = diagnosed(corpus)
    facts = dict(found.facts)
    assert [trial.name for trial in found.methods] == ["HeadRelevance", *METHODS]
    assert all(trial.works for trial in found.methods)
    assert all(trial.images_per_second > 0 for trial in found.methods[1:])
    assert facts["outputs"] == "3 classes, without names"
    assert (facts["head"], facts["input"]) == ("head", "3 x 12 x 12, RGB")
    assert facts["corpus"] == "75 images, 3 labels"
    assert facts["files"].endswith("of the files alone identify no class.")  # all are of one size
    assert facts["cleaning would try"].split(", ")[-1] == "head"
    paths = [path for label in "abc" for path in sorted((corpus / label).glob("*.png"))[:24]]
    classifier = load_model(MODEL)
    batch = torch.stack([classifier.image(Image.open(path)) for path in paths])
    predicted = classifier.logits(batch).argmax(1)
    right = sum("abc".index(path.parent.name) == int(k) for path, k in zip(paths, predicted, strict=True))
    assert facts["predicted as their label"].startswith(f"{right / 72:.0%} of 72")
    tried = [classifier.image(Image.open(min(corpus.rglob("*.png"))))]
    absorbed = explain(classifier, torch.stack(tried), predicted[:1]).absorbed
    assert f"absorb {np.median(absorbed):.0%}" in found.methods[1].told
    assert "maps can be read" in found.methods[1].told and "conserv" not in found.methods[1].told
    few = next(one for one in found.missing if "fewer than 5 classes" in one)
    assert "`audit shortcuts`" in few and "`--reference`" in few
    assert [one for one in found.missing if "no column source" in one]


@pytest.mark.slow
def test_a_method_works_where_the_explainer_does(corpus):
    """Oracle: the explainer itself, on a network with attention."""
    found = diagnosed(corpus, "tests.audit.test_hostile:Attend")
    classifier = load_model("tests.audit.test_hostile:Attend")
    for trial in found.methods[1:]:
        try:
            explain(classifier, torch.rand(2, 3, 12, 12), torch.tensor([0, 1]), method=trial.name)
            assert trial.works
        except ModelError as error:
            assert trial.works is False
            assert trial.told == str(error) or trial.told.startswith("as ")
    assert found.methods[0].works
    assert dict(found.facts)["middle layer"].startswith("none")


def test_the_size_of_a_timm_model_is_asked_about():
    assert describe_input("file.py:f", (3, 224, 224), "RGB") == "3 x 224 x 224, RGB"
    assert "timm's default size" in describe_input("timm:resnet50@w.pt", (3, 224, 224), "RGB")


def test_what_is_missing_is_named_with_a_remedy(tmp_path, corpus):
    for i in range(3):
        Image.new("RGB", (12, 12)).save(corpus / "a" / f"b{i}.png")
    (corpus / "d").mkdir()
    (corpus / "d" / "broken.png").write_text("no image")
    told = " ".join(diagnosed(corpus).missing)
    assert "labels the model does not know" in told
    assert "--class-map" in told
    assert "1 of 4 classes have fewer than 20 images and are skipped: d" in told
    assert "1 of 8 images cannot be used" in told


def test_a_corpus_without_a_usable_image_is_refused(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.png").write_text("no image")
    with pytest.raises(InputError, match="none of 1 images"):
        diagnosed(tmp_path / "data")


def test_methods_that_would_begin_too_late_are_not_tried(corpus, monkeypatch):
    monkeypatch.setattr("klarsicht.audit.explanation.doctor.BUDGET", 0.0)
    found = diagnosed(corpus)
    assert {trial.works for trial in found.methods[1:]} == {None}


def test_class_folders_and_files_without_an_image_are_named(corpus):
    """Oracle: the folders and files as they are made here."""
    assert not any("left out" in one for one in diagnosed(corpus).missing)
    for name in "wxyz":
        (corpus / name).mkdir()
    (corpus / "a" / "notes.txt").write_text("no image")
    (corpus / "loose.png").write_bytes((corpus / "a" / "000.png").read_bytes())
    (named,) = [one for one in diagnosed(corpus).missing if "left out" in one]
    empty = ", ".join(f"class {name} (no image in its folder)" for name in "wxyz")
    assert named == f"left out of the audit: {empty}, a/notes.txt (no image by its ending .txt) and 1 more"


def test_redrawn_weights_are_compared_when_it_is_asked_for(corpus):
    settings = AuditSettings(model=MODEL, data=str(corpus))
    assert "redrawn weights" not in dict(diagnose(settings).facts)
    facts = dict(diagnose(settings, sanity=True).facts)
    value = float(re.search(r"correlation of (-?[\d.]+)", facts["redrawn weights"])[1])
    assert -1 <= value < 0.9
    settings = settings.model_copy(update={"method": "HeadRelevance"})
    assert dict(diagnose(settings, sanity=True).facts)["redrawn weights"].startswith("not compared")


def test_the_command_prints_it(corpus, capsys):
    assert run(["audit", "doctor", "--model", MODEL, "--data", str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("EpsilonPlusFlat ")] == ["yes"]
    assert "missing: no column source" in printed
    assert run(["audit", "doctor", "--model", MODEL, "--data", str(corpus), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["facts"]["head"] == "head"
    assert read["methods"][0] == {
        "name": "HeadRelevance", "works": True, "told": "no maps", "images_per_second": None,
    }  # fmt: skip
    assert run(["audit", "doctor", "--model", "no.such:thing", "--data", str(corpus)]) == 4


def test_what_a_run_refuses_is_refused_after_the_diagnosis(tmp_path, capsys):
    """Oracle: `audit run`, with the same error and exit code."""
    write_corpus(tmp_path / "data", per_class=5)
    (tmp_path / "one").mkdir()
    (tmp_path / "data" / "a").rename(tmp_path / "one" / "all")
    given = ["--model", MODEL, "--data", str(tmp_path / "one")]
    assert run(["audit", "run", *given, "--out", str(tmp_path / "run")]) == 3
    refused = capsys.readouterr().err.splitlines()[-1]
    assert run(["audit", "doctor", *given]) == 3
    told = capsys.readouterr()
    assert "5 images, 1 label\n" in told.out and told.err.splitlines()[-1] == refused
    assert refused.removeprefix("klarsicht: ") not in told.out
    assert run(["audit", "doctor", *given, "--json"]) == 3
    read = json.loads(capsys.readouterr().out)
    assert f"klarsicht: {read['refused']}" == refused and read["refused"] in read["missing"]


def test_several_labels_are_counted_and_each_is_a_prediction_of_its_own(tmp_path):
    """Oracle: the network's logits, and the manifest as it is written here."""
    write_corpus(tmp_path / "data", per_class=2)
    paths = sorted((tmp_path / "data").rglob("*.png"))
    lines = [f"{path},{path.parent.name}{';a' if path.parent.name == 'c' else ''}" for path in paths]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    facts = dict(diagnosed(tmp_path / "list.csv", label_separator=";").facts)
    assert facts["corpus"] == "6 images, 3 labels, 8 pairs of an image and a label"
    assert facts["outputs"].endswith("independent") and facts["cleaning would try"].startswith("nothing")
    classifier = load_model(MODEL)
    logits = classifier.logits(torch.stack([classifier.image(Image.open(path)) for path in paths]))
    right = [
        bool(logits[i, "abc".index(label)] > 0)
        for i, line in enumerate(lines)
        for label in line.split(",")[1].split(";")
    ]
    assert facts["predicted as their label"].startswith(f"{sum(right) / 8:.0%} of 8")


@pytest.mark.parametrize(
    ("absorbed", "told"),
    [(0.2, "80% of the relevance reaches the pixels"), (-0.1, "add 10%"), (1.23, "more than the relevance (123%")],
)
def test_the_share_of_relevance_that_reaches_the_pixels_is_never_negative(absorbed, told):
    assert told in describe_absorption(absorbed, is_conserving=False)


def test_predictions_that_are_no_better_than_chance_are_said():
    """Oracle: Wilson's interval by its formula, of 60 images of twelve labels."""
    targets, z, said = np.arange(60) % 12, 1.959964, []
    for right in range(61):
        predicted = np.where(np.arange(60) < right, targets, (targets + 1) % 12)
        share, by = right / 60, z**2 / 60
        low = (share + by / 2 - z * np.sqrt(share * (1 - share) / 60 + by / 240)) / (1 + by)
        found = _describe_chance(targets.tolist(), predicted.tolist())
        assert bool(found) == (low <= 1 / 12)
        said += found
    assert len(said) == 10 and said[0].startswith("0% of 60 images are predicted as their label, and 8% would be by")
    assert _describe_chance([0, 1] * 14, [1, 0] * 14) == []  # too few to say
    assert _describe_chance([3] * 60, [1] * 60) == []  # of one label there is no chance


def test_a_model_with_a_wrong_transform_is_doubted(corpus, tmp_path, monkeypatch):
    """A network that always says the same is right for a third of three balanced labels."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("klarsicht.audit.explanation.doctor.LABEL_BUDGET", np.inf)
    (tmp_path / "constant_net.py").write_text(
        "from torch import nn\nimport torch\n\ndef build():\n"
        "    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)\n"
        "    net = nn.Sequential(*layers)\n"
        "    with torch.no_grad():\n        net[-1].bias.copy_(torch.tensor([0.0, 900.0, 0.0]))\n"
        "    return net\n"
    )
    (tmp_path / "map.csv").write_text("label,index\na,0\nb,1\nc,2\n")
    settings = AuditSettings(model="constant_net:build", data=str(corpus), class_map=str(tmp_path / "map.csv"))
    found = diagnose(settings)
    assert found.refused is None
    assert any(
        "33% of 72 images are predicted as their label, and 33% would be by chance" in one for one in found.missing
    )


@pytest.mark.parametrize(("first", "told"), [(2.0, "about 9 s by auto"), (0.5, "about 30.0 min by auto")])
def test_the_time_of_relevance_is_not_that_of_a_first_image(monkeypatch, first, told):
    """900 images by 100 a second, once everything is loaded; by 0.5 a second eight more would take too long."""
    monkeypatch.setattr(doctor, "_try_method", lambda *ignored: doctor.MethodTrial("auto", True, "", 100.0))
    audit = SimpleNamespace(settings=SimpleNamespace(method="auto"), corpus=range(900))
    trials = (doctor.MethodTrial("auto", True, "", first),)
    facts = tuple(doctor._duration(audit, trials, torch.zeros(8, 1), torch.zeros(8)))
    assert facts == (("relevance of the corpus", told),)
    diagnosis = doctor.Diagnosis((("model", "mine"), *facts), trials, ())
    assert diagnosis.without_relevance_time().facts == (("model", "mine"),)
