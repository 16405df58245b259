"""Forecasts extrapolate as their laws say, and their rehearsals compute what the commands compute."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tests.audit.conftest import in_brief, network, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.verdicts import forecast as forecasts
from klarsicht.audit.verdicts.forecast import (
    CUT,
    MOST_CLASSES,
    Extrapolation,
    TimedSharing,
    draw_rows,
    fit_law,
    forecast,
    law_columns,
    rehearse,
)
from klarsicht.audit.verdicts.quantification import quantification
from klarsicht.cli.app import run
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.store import RunStore

MODEL = "tests.audit.conftest:network"


@pytest.fixture
def corpus(tmp_path):
    write_corpus(tmp_path / "data", per_class=30)
    return tmp_path / "data"


def settings(corpus, **more):
    return AuditSettings(model=MODEL, data=str(corpus), map_side=8, unit=32, batch=8, **more)


def law(n, a, b):
    return a + b * n * np.log(n)


def costs_of(sizes, first=0.0):
    """Costs of groups by a known law: processor seconds, elapsed seconds, bytes, peak; the first has some more."""
    rows = [np.array([law(n, 0.1, 2e-4), law(n, 0.3, 1e-3), law(n, 4096, 8.0), 1e9]) for n in sizes]
    rows[0][:3] += first
    return rows


def timed(images, sizes, image_bytes=0.0, **costs):
    return TimedSharing(images=images, sizes=sizes, image_bytes=image_bytes, costs=costs)


# The laws


def test_a_law_is_recovered():
    """Oracle: the closed form that the costs were made with; c others cost each unit 2e-3 c more."""
    sizes, compared = [25, 50, 100, 30], [100, 100, 100, 900]
    columns = np.concatenate([law_columns([n], c) for n, c in zip(sizes, compared, strict=True)])
    costs = np.array(costs_of(sizes))[:, :3] + 2e-3 * np.array(compared)[:, None]
    np.testing.assert_allclose(fit_law(columns, costs), [[0.1, 0.3, 4096], [2e-4, 1e-3, 8], [2e-3] * 3], rtol=1e-5)


def test_groups_of_one_size_cost_their_mean_and_small_ones_do_not_count():
    """Some classes have no map that can be compared, and cost next to nothing."""
    seconds = np.array([0.01, 1.99, 1.0, 0])
    found = fit_law(law_columns([100, 100, 100, 3], 0), np.repeat(seconds[:, None], 3, 1))
    np.testing.assert_allclose(law_columns([100], 0) @ found, [[1.0] * 3], rtol=1e-6)


def test_units_cost_their_law_what_they_share_grows_and_what_is_paid_once_is_paid_once():
    """Oracle: sums of the closed form. The first rehearsal of 60 images pays 7 at its beginning, and 2 for what 120
    images share, the half of the other's 4."""
    few = timed(60, [20, 40], signs=costs_of([20, 40], first=7 + 2))
    many = timed(120, [30, 40, 50], image_bytes=1e6, signs=costs_of([30, 40, 50], first=4))
    whole = np.array([30, 700, 1300])
    found = Extrapolation(few, many, 2030, whole, workers=2).by_units("detections of artifacts", "signs", growth=10)
    assert found.cpu_seconds == pytest.approx(sum(law(n, 0.1, 2e-4) for n in whole) + 40 + 7, rel=1e-6)
    assert found.wall_seconds == pytest.approx((sum(law(n, 0.3, 1e-3) for n in whole) + 40 + 7) / 2, rel=1e-6)
    assert found.disk_bytes == pytest.approx(sum(law(n, 4096, 8.0) for n in whole) + 40 + 7, rel=1e-6)
    assert found.peak_bytes == pytest.approx(1e9 + 2**29 - 120e6)  # as many pixels as the cache holds
    assert found.sample == "3 groups of 30 to 50 images"


def test_images_cost_alike_and_the_rest_does_not_grow():
    """Oracle: 0.5 s an image, and 3 s once; of what is not named, the dearer rehearsal."""
    one = np.array([1.0, 1.0, 1.0, np.nan])
    few = timed(10, [10], relevance=[one * (3 + 5)], report=[one * 4], **{"": [one]})
    many = timed(40, [40], relevance=[one * 16, one * 4], report=[one * 2], **{"": [one, one]})
    ran = Extrapolation(few, many, 1000, np.array([1000]), workers=1)
    assert ran.by_images("relevance", "relevance").cpu_seconds == pytest.approx(500 + 3)
    assert ran.by_images("relevance", "relevance").peak_bytes is None
    assert ran.others("all else", {"relevance"}).cpu_seconds == 5


def test_steps_are_measured_where_they_begin_and_end(tmp_path):
    """Oracle: the bytes that are written here."""
    sharing = TimedSharing(folder=tmp_path)

    def write(name, size):
        (tmp_path / name).write_bytes(bytes(size))

    write("between", 8192)
    sharing.measure("")
    write("unit", 1_000_000)
    sharing.end_unit("signs")
    sharing.once("report", lambda: write("page", 65536))
    assert [[row[2] for row in sharing.costs[step]] for step in ("signs", "report")] == [
        [pytest.approx(1_000_000, abs=4096)], [pytest.approx(65536, abs=4096)],
    ]  # fmt: skip
    assert sum(row[2] for row in sharing.costs[""]) == pytest.approx(8192, abs=4096)
    assert sharing.add_up(["signs", "report"])[2] == pytest.approx(1_065_536, abs=8192)


# The sample


def test_a_sample_has_whole_classes_and_cuts_those_that_are_too_large(tmp_path):
    write_corpus(tmp_path / "data", per_class=60)
    audit = Audit.of(settings(tmp_path / "data"), load_model(network()))
    labels = np.array(audit.corpus.labels)

    def counts(rows):
        assert rows.tolist() == sorted(set(rows.tolist()))
        return sorted(np.unique(labels[rows], return_counts=True)[1].tolist(), reverse=True)

    assert counts(draw_rows(audit, 10_000)) == [60, 60, 60]
    assert counts(draw_rows(audit, 120)) == [int(share * 40) for share in CUT]
    assert counts(draw_rows(audit, 30)) == [22, 20]  # two classes at least, of as many images as are clustered
    screened = Audit.of(settings(tmp_path / "data", target="b"), load_model(network()))
    assert len(draw_rows(screened, 50)) == 50 and MOST_CLASSES > 3


def test_a_sample_has_a_part_of_the_classes_and_two_at_least():
    """`audit quantify` costs a class about the same, whatever its images are."""
    labels = np.repeat([f"c{k:02}" for k in range(40)], 30).tolist()
    audit = SimpleNamespace(settings=SimpleNamespace(seed=0, target="label"), corpus=SimpleNamespace(labels=labels))
    drawn = {parts: {labels[row] for row in draw_rows(audit, 1200, parts)} for parts in (4, 8, 30)}
    assert {parts: len(names) for parts, names in drawn.items()} == {4: 10, 8: 5, 30: 2}


@pytest.mark.parametrize(("per_class", "rehearsals"), [(40, 1), (200, 2)])
def test_a_corpus_of_few_images_is_rehearsed_once(tmp_path, monkeypatch, per_class, rehearsals):
    """Three classes, of which two are rehearsed: 120 images at first, and 150 as a quarter of 600."""
    write_corpus(tmp_path / "data", per_class=per_class)
    sizes = []

    def rehearse_by_clock(audit, rows, folder):
        sizes.append(len(rows))
        one = [np.array([1.0, 1.0, 1.0, 1.0])]
        ran = timed(len(rows), [], hash=one, attribution=one, **{"spray-concept": [], "spray-features": []})
        return ran, timed(len(rows), [])

    monkeypatch.setattr(forecasts, "rehearse", rehearse_by_clock)
    monkeypatch.setattr(Extrapolation, "by_units", lambda *ignored, **_: forecasts.StepCost("", "", "", 1, 1))
    monkeypatch.setattr(Extrapolation, "others", lambda *ignored: forecasts.StepCost("", "", "", 1, 1))
    forecast(settings(tmp_path / "data"), seconds=3600)
    assert len(sizes) == rehearsals and all(size <= max(120, 3 * per_class / 4) * 1.25 for size in sizes)


def test_labels_keep_their_outputs_in_a_sample_of_some_classes(corpus, tmp_path, monkeypatch):
    """Labels are matched to outputs by their order in the whole corpus: class c alone is output 2."""
    audit = Audit.of(settings(corpus), load_model(network()))
    seen = []
    monkeypatch.setattr(pipeline, "run_steps", lambda audit, store, own: seen.append(audit))
    monkeypatch.setattr(pipeline, "open_run", lambda audit, folder: None)
    with pytest.raises(AttributeError):  # there is no run
        rehearse(audit, np.flatnonzero(np.array(audit.corpus.labels) == "c"), tmp_path / "sample")
    assert set(seen[0].targets.tolist()) == {2}


@pytest.mark.slow
def test_a_rehearsal_of_all_images_is_the_audit_and_its_quantification(corpus, tmp_path):
    """Oracle: `audit run` and `audit quantify`."""
    audit = Audit.of(settings(corpus), load_model(network()))
    with in_brief(40):
        ran, quantified = rehearse(audit, np.arange(90), tmp_path / "rehearsed")
        store = pipeline.run(settings(corpus), tmp_path / "run")
        quantification.quantify(store)
    rehearsed = RunStore.open(tmp_path / "rehearsed")
    for name in ("maps", "head", "logits"):
        np.testing.assert_array_equal(rehearsed.array(name)[:], store.array(name)[:])
    for name in ("ranking.json", "quantification.json"):
        assert (tmp_path / "rehearsed" / name).read_text() == (tmp_path / "run" / name).read_text()
    assert ran.sizes == quantified.sizes == [30, 30, 30]
    assert len(quantified.costs["signs"]) == 3 and len(ran.costs["attribution"]) == 3


@pytest.mark.slow
def test_some_of_the_classes_are_quantified_with_their_own_outputs(corpus, tmp_path):
    """Oracle: b and c are outputs 1 and 2, by their order in the whole corpus."""
    audit = Audit.of(settings(corpus), load_model(network()))
    with in_brief(40):
        rehearse(audit, np.flatnonzero(np.array(audit.corpus.labels) != "a"), tmp_path / "rehearsed")
    targets = RunStore.open(tmp_path / "rehearsed").table("classes").column("target").to_pylist()
    assert sorted(targets) == [1, 2]


# The whole


@pytest.mark.nightly
def test_disk_is_that_of_the_audit(corpus, tmp_path, monkeypatch):
    """Oracle: `audit run` itself; without pictures, which take seconds."""
    monkeypatch.setattr(pipeline, "illustrate", lambda *given: None)
    found = forecast(settings(corpus), seconds=1)
    store = pipeline.run(settings(corpus), tmp_path / "run")
    written = sum(file.stat().st_blocks * 512 for file in store.path.rglob("*") if file.is_file())
    assert forecasts.add_steps(found.steps).disk_bytes == pytest.approx(written, rel=0.15)
    assert (found.images, found.classes, found.workers) == (90, 3, 1)
    names = ["opening", "hash", "relevance", "clusters (concept)", "clusters (features)", "ranking and report"]
    assert [step.step for step in found.steps] == names
    assert all(step.cpu_seconds > 0 for step in found.steps)
    told = found.to_json()
    for part in (told, told["quantification"]):
        assert part["cpu_seconds"] == pytest.approx(sum(step["cpu_seconds"] for step in part["steps"]))


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["all", "b"])
def test_screenings_are_foretold(corpus, tmp_path, target):
    """Oracle: `audit run` itself."""
    found = forecast(settings(corpus, target=target), seconds=1, workers=2)
    store = pipeline.run(settings(corpus, target=target), tmp_path / "run")
    written = sum(file.stat().st_blocks * 512 for file in store.path.rglob("*") if file.is_file())
    assert forecasts.add_steps(found.steps).disk_bytes == pytest.approx(written, rel=0.25)
    assert found.workers == 2 and found.quantification == ()


@pytest.mark.nightly
def test_classes_by_prediction_count_as_labelled(corpus):
    found = forecast(settings(corpus, target="predicted"), seconds=60)
    assert found.steps[3].sample.endswith(" images") and found.steps[3].cpu_seconds > 0


@pytest.mark.nightly
def test_a_corpus_of_classes_too_small_to_be_compared_is_foretold(tmp_path):
    write_corpus(tmp_path / "data", per_class=5)
    found = forecast(settings(tmp_path / "data"), seconds=1)
    assert found.steps[2].sample == "15 images"


def test_seconds_are_checked(corpus):
    with pytest.raises(UsageError, match="seconds"):
        forecast(settings(corpus), seconds=0)


@pytest.mark.nightly
def test_the_command_prints_it(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("klarsicht.audit.explanation.doctor.BUDGET", 0.0)
    given = ["audit", "doctor", "--model", MODEL, "--data", str(corpus), "--cost", "--seconds", "1"]
    (tmp_path / "small.toml").write_text("map_side = 8\n")
    given += ["--settings", str(tmp_path / "small.toml")]
    assert run(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("relevance ", "hash ", "all "))] == [
        "hash", "relevance", "all", "all",  # the last of `audit quantify`
    ]  # fmt: skip
    assert run([*given, "--json", "--workers", "3"]) == 0
    told = json.loads(capsys.readouterr().out)["cost"]
    assert told["images"] == 90 and told["workers"] == 3
    assert told["disk_bytes"] == sum(step["disk_bytes"] for step in told["steps"])
