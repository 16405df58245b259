"""The embedding of a run: learned once, gone on with where it was stopped, left out where images are few."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tests.audit.conftest import in_brief
from tests.audit.verdicts.quantification.test_quantification import NAMES, ReadsATag, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.verdicts.detectors import artifact_embedding
from klarsicht.audit.verdicts.quantification import embedding_cache, embedding_units, resemblances
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.audit.verdicts.quantification.units import embedding_file
from klarsicht.ground.run_folder.store import RunStore

STAGES = artifact_embedding.STAGES
CLASSIFIER = load_model(ReadsATag().eval(), classes=NAMES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three classes that is not quantified."""
    folder = tmp_path_factory.mktemp("embedding")
    write_corpus(folder / "data", classes=range(5, 8))
    settings = AuditSettings(model="object", data=str(folder / "data"), method="HeadRelevance", batch=64)
    with in_brief(60):
        pipeline.run(settings, folder / "run", classifier=CLASSIFIER)
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of the run; trainings are of one step a stage, and enough images are few."""
    monkeypatch.setattr(artifact_embedding, "STEPS", STAGES)
    monkeypatch.setattr(artifact_embedding, "CONTENT_GROUPS", 1)
    monkeypatch.setattr(embedding_units, "MIN_LEARNED", 100)
    monkeypatch.setattr(embedding_cache, "cache_folder", lambda: tmp_path / "cache")
    return shutil.copytree(finished, tmp_path / "run")


def learn(run):
    with open_run(run, level=0.05, workers=1, data=None, classifier=CLASSIFIER) as (_, work):
        embedding_units.learn_embedding(work)
        return work.embedding


@pytest.mark.slow
def test_training_that_was_stopped_ends_with_the_same_bytes(run, tmp_path, monkeypatch):
    whole = shutil.copytree(run, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(embedding_units, "keep_cached", lambda key, state: None)
        learn(whole)
    stage_of = artifact_embedding.EmbeddingTraining.run_stage

    def stopped(self, stage, advance):
        if stage == 2:
            raise KeyboardInterrupt
        stage_of(self, stage, advance)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(artifact_embedding.EmbeddingTraining, "run_stage", stopped)
        learn(run)
    assert [RunStore.open(run).is_done("embedding", stage) for stage in range(STAGES)] == [k < 2 for k in range(STAGES)]
    assert not (tmp_path / "cache").exists()
    repeated = []
    monkeypatch.setattr(
        artifact_embedding.EmbeddingTraining, "run_stage", lambda *a: (repeated.append(a[1]), stage_of(*a))
    )
    learn(run)
    assert repeated == list(range(2, STAGES))
    learn(run)
    assert repeated == list(range(2, STAGES))  # nothing is learned twice
    name = embedding_file(STAGES - 1)
    assert (run / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_a_second_run_on_the_same_images_learns_nothing(run, tmp_path, monkeypatch):
    again, other = (shutil.copytree(run, tmp_path / name) for name in ("again", "other"))
    embedding = learn(run)
    (kept,) = (tmp_path / "cache").iterdir()
    stages, stage_of = [], artifact_embedding.EmbeddingTraining.run_stage
    monkeypatch.setattr(
        artifact_embedding.EmbeddingTraining, "run_stage", lambda *a: (stages.append(a[1]), stage_of(*a))
    )
    taken = learn(again)
    assert not stages and all(map(torch.equal, embedding.state_dict().values(), taken.state_dict().values()))
    assert (again / embedding_file(STAGES - 1)).read_bytes() == (run / embedding_file(STAGES - 1)).read_bytes()
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")  # damaged
    learn(other)
    assert stages == list(range(STAGES))


def test_few_images_teach_nothing(run, monkeypatch):
    monkeypatch.setattr(embedding_units, "MIN_LEARNED", 1000)
    assert learn(run) is None and not (run / "embedding").exists()


def test_classes_that_were_looked_at_without_it_stay_comparable(run, monkeypatch):
    """An audit that goes on does not learn where some classes have been looked at without an embedding."""
    RunStore.open(run).mark_done("signs", 0)
    assert learn(run) is None


def test_images_are_drawn_once_and_shrunk(run, monkeypatch):
    monkeypatch.setattr(embedding_units, "LEARNED_IMAGES", 50)
    with open_run(run, level=0.05, workers=1, data=None, classifier=CLASSIFIER) as (_, work):
        rows = embedding_units.sample_rows(work)
        assert len(rows) == len(set(rows.tolist())) == 50 and (rows[1:] > rows[:-1]).all()
        images = embedding_units.read_images(work, rows)
        assert images.shape == (50, 32, 32, 3) and (images == work.input_images(rows)).all()


@pytest.mark.slow
def test_quantification_looks_through_the_embedding(run):
    torch.set_num_threads(1)
    with in_brief(60):
        quantify(run, classifier=CLASSIFIER)
    signs = RunStore.open(run).table("signs", "signs").to_pylist()
    assert {row["sign"] for row in signs if row["sign"].startswith(("embedding", "altered"))} == {
        "embedding 0.002",
        "embedding 0.01",
        "embedding-means 0.002",
        "altered 0.02",
        "altered 0.005",
    }
    assert RunStore.open(run).is_finished("embedding")


@pytest.mark.slow
def test_families_are_named_of_the_carriers_of_noted_classes(run, monkeypatch):
    """The images and the mask of every class that a person should look at are those of its verdict, and of no other."""
    with in_brief(60):
        found = quantify(run, classifier=CLASSIFIER)
    noted = replace(
        found, verdicts=tuple(replace(v, shared=i == 1, resembles=()) for i, v in enumerate(found.verdicts))
    )
    seen = []

    def named(embedding, levels, carries, seed):
        seen.append((levels, carries))
        return ("hair",)

    monkeypatch.setattr(resemblances, "name_resembled_families", named)
    with open_run(run, level=0.05, workers=1, data=None, classifier=CLASSIFIER) as (_, work):
        told = resemblances.name_resemblances(work, noted)
        ((levels, carries),) = seen
        assert (levels[carries] == work.input_images(sorted(noted[1].rows))).all()
    assert len(levels) == noted[1].n
    assert [v.resembles for v in told] == [(), ("hair",), ()]
    assert told[1].describe_detection().endswith("; like hair")
    assert Verdict.from_json(json.loads(json.dumps(told[1].to_json()))) == told[1]
