"""Audits of corpora that are no class folder. Oracle: the audit of the same pictures as files in class folders."""

import numpy as np
import pytest
from PIL import Image
from tests.audit.conftest import network, write_corpus

from klarsicht.audit.cleaning.data.clean_data import clean_corpus
from klarsicht.audit.cleaning.data.image_actions import make_action
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.cli.app import run as klarsicht
from klarsicht.ground.errors import RunMismatch, UsageError
from klarsicht.ground.run_folder.store import RunStore

NET = """
from tests.audit.conftest import network

def build():
    return network()

def brighter(path):
    import numpy as np
    from PIL import Image
    return np.asarray(Image.open(path))
"""


def settings(**changes):
    return AuditSettings(**{"model": "object", "data": "in Python", "unit": 64, "neighbours": 6} | changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    write_corpus(folder / "data")
    (folder / "net.py").write_text(NET)
    return folder


@pytest.fixture(scope="module")
def audited(place):
    """The run of the class folder, quantified, and its verdicts."""
    store = pipeline.run(settings(data=str(place / "data")), place / "files", classifier=load_model(network()))
    return store, quantify(store, classifier=load_model(network()))


def items(place):
    return [(Image.open(file).copy(), file.parent.name) for file in sorted((place / "data").rglob("*.png"))]


@pytest.mark.slow
def test_a_sequence_in_python_is_audited_and_quantified_as_files_are(place, audited, tmp_path):
    run = pipeline.run(settings(), tmp_path / "run", classifier=load_model(network()), corpus=items(place))
    for name in ("maps", "logits", "features", "channels"):
        np.testing.assert_array_equal(run.array(name)[:], audited[0].array(name)[:])
    found = quantify(run, classifier=load_model(network()), data=items(place))
    wanted = audited[1].of("b")
    assert (found.of("b").verdict, found.of("b").rows) == (wanted.verdict, wanted.rows)
    assert wanted.used
    changed = items(place)
    changed[5] = (Image.new("RGB", (12, 12)), changed[5][1])
    with pytest.raises(RunMismatch, match="the corpus changed"):
        quantify(run, classifier=load_model(network()), data=changed)


@pytest.mark.slow
def test_arrays_by_their_names_on_the_command_line(place, audited, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    pictures = [np.asarray(picture) for picture, _ in items(place)]
    np.savez(tmp_path / "a.npz", scans=pictures, findings=[label for _, label in items(place)])
    told = "--path-column scans --label-column findings --unit 64 --neighbours 6 --model net.py:build"
    out = tmp_path / "run"
    assert klarsicht(["audit", "run", "--data", str(tmp_path / "a.npz"), "--out", str(out), *told.split()]) == 0
    np.testing.assert_array_equal(RunStore.open(out).array("logits")[:], audited[0].array("logits")[:])
    assert klarsicht(["audit", "quantify", str(out)]) == 0  # the run knows the names
    assert klarsicht(["audit", "run", "--data", str(tmp_path / "a.npz"), "--out", str(out), *told.split()[4:]]) == 3


@pytest.mark.slow
def test_a_function_decodes_what_is_stored_also_in_workers(place, audited, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    told = "--data data --decode net.py:brighter --unit 64 --neighbours 6 --model net.py:build --workers 2"
    assert klarsicht(["audit", "run", "--out", str(tmp_path / "run"), *told.split()]) == 0
    run = RunStore.open(tmp_path / "run")
    np.testing.assert_array_equal(run.array("logits")[:], audited[0].array("logits")[:])
    assert run.manifest["settings"]["decode"] == "net.py:brighter"


def test_what_is_no_file_is_not_cleaned_yet(place, tmp_path):
    corpus = open_corpus(items(place))
    with pytest.raises(UsageError, match="this corpus cannot be cleaned yet"):
        clean_corpus(corpus, np.ones(len(corpus), bool), make_action("drop"), tmp_path / "out")
