"""Names of groups in a run made by hand. Oracle: means over images of scores that a model of the test gives by the
colour of a picture, and the bytes of the verdicts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.audit.conftest import write_corpus
from tests.audit.tiny_clip import save_clip
from tests.explorer.made_run import CARRIERS, EACH, write_run
from tests.explorer.requests import ask

from klarsicht.audit.explanation import name_groups as guessing
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.report.page import write_report
from klarsicht.audit.results.group_names import NAMES_FILE, SUSPECT_CLUSTER, list_groups, read_names
from klarsicht.cli.app import run as klarsicht
from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.store import RunStore

WORDS = ("grey", "a white square", "a cat")


class ByBrightness:
    """Scores by the brightest pixel: a white square fits carriers, and grey the others."""

    name = "bright"

    def score_words(self, pictures, words):
        assert tuple(words) == WORDS
        white = np.array([np.asarray(one).min(2).max() == 255 for one in pictures])
        return np.where(white[:, None], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1])


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(guessing, "load_text_image_model", lambda spec: ByBrightness())
    store = write_run(tmp_path)
    lines = [f"data/{key},{key.partition('/')[0]}" for key in store.texts("corpus", "key")]
    (tmp_path / "in-order.csv").write_text("\n".join(("path,label", *lines)))
    corpus = open_corpus(tmp_path / "in-order.csv")
    monkeypatch.setattr(guessing, "open_images", lambda store, data: corpus)
    (tmp_path / "words").write_text("\n".join((*WORDS, "", "grey")))
    return store


def test_words_are_those_that_fit_the_group_better_than_other_images(run, tmp_path):
    verdicts = (run.path / "quantification.json").read_bytes()
    guessing.name_groups(run, "hf:bright", tmp_path / "words")
    names = {(one.group.target, one.group.number): one for one in read_names(run)}
    assert names.keys() == {(0, 1), (0, SUSPECT_CLUSTER), (1, SUSPECT_CLUSTER), (2, SUSPECT_CLUSTER)}
    (guess,) = names[0, 1].guesses
    assert (guess.word, guess.score, guess.others) == ("a white square", 0.7, 0.1)
    assert names[1, SUSPECT_CLUSTER].guesses == ()  # all images of the class are alike
    assert names[0, 1].describe() == ("A guess of bright for artifact 1, no finding: a white square 0.70 (0.10).")
    assert json.loads((run.path / NAMES_FILE).read_bytes())["vocabulary"] == list(WORDS)
    assert (run.path / "quantification.json").read_bytes() == verdicts


def test_report_and_explorer_show_names_beside_the_verdict_until_its_images_change(run, tmp_path):
    guessing.name_groups(run, "hf:bright", tmp_path / "words")
    sentence = "A guess of bright for artifact 1, no finding: a white square"
    page = write_report(run).read_text().split("Names that a model guesses")[1].split("<h2>")[0]
    assert "<b>tagged</b>, artifact 1: a white square 0.70 (0.10)</li>" in page
    assert "<b>observed</b>, the suspect cluster: no word fits" in page
    told = ask(make_app(ExploredRun.of(run)), "/api/classes/0").json
    assert told["names"][0].startswith(sentence) and "white" not in told["verdict"]
    record = run.read_json("quantification.json")
    record["classes"][0] |= {"rows": [0, 1, 2], "size": 3}
    run.write_json("quantification.json", record)
    assert [one.group.number for one in read_names(run) if one.group.target == 0] == [SUSPECT_CLUSTER]


def test_groups_are_artifacts_to_look_at_and_suspect_clusters(run):
    groups = list_groups(run)
    assert [(one.target, one.number, one.rows) for one in groups] == [
        (0, 1, tuple(range(CARRIERS))),
        *((k, SUSPECT_CLUSTER, tuple(range(k * EACH, k * EACH + CARRIERS))) for k in range(3)),
    ]


def test_a_vocabulary_has_two_words_and_a_model(tmp_path, capsys):
    (tmp_path / "one").write_text("\n a cat \n\na cat\n")
    with pytest.raises(UsageError, match=r"too small; got 1 in .*; rule|two words at least"):
        guessing.read_vocabulary(tmp_path / "one")
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="got 0 in"):
        guessing.read_vocabulary(tmp_path / "empty")
    run = RunStore.create(tmp_path / "run", settings={}, identity={}).path
    assert klarsicht(["audit", "report", str(run), "--vocabulary", str(tmp_path / "one")]) == 2
    assert "Give --names hf:FOLDER, too." in capsys.readouterr().err
    assert len(set(guessing.VOCABULARY)) == len(guessing.VOCABULARY) > 60


@pytest.mark.slow
def test_a_run_is_named_by_a_folder_of_transformers(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.chdir(Path(__file__).parents[3])
    write_corpus(tmp_path / "data")
    (tmp_path / "clip").mkdir()
    out, clip = tmp_path / "run", save_clip(tmp_path / "clip")
    words = ["--model", "tests.audit.conftest:network", "--data", str(tmp_path / "data"), "--out", str(out)]
    assert klarsicht(["audit", "run", *words, "--metric", "euclidean"]) == 0
    assert klarsicht(["audit", "report", str(out), "--names", f"hf:{clip}"]) == 0
    names = read_names(RunStore.open(out))
    assert names and {one.model for one in names} == {"clip"}
    shutil.rmtree(tmp_path / "data" / "b")
    assert klarsicht(["audit", "report", str(out), "--names", f"hf:{clip}"]) == 5  # the corpus is another
    capsys.readouterr()
