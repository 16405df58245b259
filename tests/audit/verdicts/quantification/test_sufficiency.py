"""A linear network whose logits are known: each class by a block of its own, one also by the border that all of its
images have."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from tests.audit.conftest import in_brief
from torch import nn

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.logit_effect import FLOOR
from klarsicht.audit.results.rows import WHOLE_IMAGE
from klarsicht.audit.results.sufficiency import compare_parts, read_sufficiency
from klarsicht.audit.verdicts.interventions.image_parts import IMAGE_PARTS, border_mask
from klarsicht.audit.verdicts.quantification.sufficiency import ExchangedRises, KeptScores, measure_sufficiency
from klarsicht.ground.errors import StoreError, UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics.intervals import Interval

SIDE, K, EACH, FRAMED, WEIGHT = 20, 7, 20, 3, 6.0
NAMES = [f"c{k}" for k in range(K)]
IMAGES, POOL = 16, 64


def block(k):
    """Rows and columns of the block of a class, away from borders and corners."""
    row, column = divmod(k, 4)
    return np.s_[6 + 4 * row : 10 + 4 * row, 4 + 3 * column : 7 + 3 * column]


def linear(outputs=K):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, outputs))
    weight = torch.zeros(outputs, 3, SIDE, SIDE)
    for k in range(outputs):
        weight[k][(slice(None), *block(k))] = 10 / (3 * 12)
    border = torch.from_numpy(border_mask(SIDE, SIDE))
    weight[FRAMED % outputs, :, border] = WEIGHT / (3 * int(border.sum()))
    with torch.no_grad():
        net[1].weight.copy_(weight.flatten(1))
        net[1].bias.zero_()
    return net.eval()


def write(folder, classes=K):
    rng = np.random.default_rng(0)
    for k in range(classes):
        for i in range(EACH):
            x = rng.integers(60, 120, (SIDE, SIDE, 3))
            x[block(k)] += rng.integers(20, 100)
            if k == FRAMED % classes:
                x[border_mask(SIDE, SIDE)] = 220
            (folder / NAMES[k]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.astype(np.uint8)).save(folder / NAMES[k] / f"{i:02d}.png")


def audited(folder, classes=K):
    classifier = load_model(linear(classes), classes=NAMES[:classes])
    settings = AuditSettings(model="object", data=str(folder / "data"), batch=64, method="EpsilonPlusFlat")
    with in_brief(POOL):
        pipeline.run(settings, folder / "run", classifier=classifier)
    return folder / "run", classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus and a finished run."""
    folder = tmp_path_factory.mktemp("sufficiency")
    write(folder / "data")
    audited(folder)
    return folder


@pytest.fixture(scope="module")
def measured(folder):
    classifier = load_model(linear(), classes=NAMES)
    shutil.copytree(folder / "run", folder / "measured")
    return (
        folder / "measured",
        classifier,
        measure_sufficiency(folder / "measured", images=IMAGES, classifier=classifier),
    )


@pytest.mark.slow
def test_the_border_that_all_images_of_a_class_have_is_noted_and_nothing_else_is(measured):
    _, _, found = measured
    assert found.compared and found.profiles[0].name == NAMES[FRAMED]
    assert "border" in [part.part for part in found.profiles[0].noted]
    assert [one.name for one in found.profiles[1:] if one.noted] == []
    border = found.of(NAMES[FRAMED]).parts[0]
    assert border.area > 0.99 and border.others < 0.75 and border.p <= 0.01 and border.recognised == 1
    assert "recognised by the border alone" in border.describe()
    assert all(one.whole > 0.9 for one in found)


def test_the_rise_of_an_exchanged_border_is_that_of_the_weights(measured, folder):
    """Levels are centred, so of the framed logit's change all but 1 / K counts."""
    run, _, found = measured
    corpus = RunStore.open(run).table("corpus")["path"].to_pylist()
    rows = RunStore.open(run).table(f"exchanged-{IMAGES}").to_pylist()
    mine = [row for row in rows if row["target"] == FRAMED and row["part"] == "border"]

    def border(row):
        return np.asarray(Image.open(folder / "data" / corpus[row]))[border_mask(SIDE, SIDE)].mean() / 255

    expected = [WEIGHT * (1 - 1 / K) * (border(row["donor"]) - border(row["control"])) for row in mine]
    np.testing.assert_allclose([row["rise"] for row in mine], expected, atol=1e-3)
    assert found.of(NAMES[FRAMED]).parts[0].shift == pytest.approx(np.mean(expected), abs=1e-3)


def test_donors_are_of_the_class_and_controls_of_the_receivers(measured):
    run, _, _ = measured
    labels = RunStore.open(run).table("corpus")["label"].to_pylist()
    for row in RunStore.open(run).table(f"exchanged-{IMAGES}").to_pylist():
        assert labels[row["donor"]] == NAMES[row["target"]] != labels[row["row"]] == labels[row["control"]]
        assert row["row"] != row["control"]


def test_an_area_is_that_of_scikit_learn(measured):
    run, _, found = measured
    rows = RunStore.open(run).table(f"kept-{IMAGES}").to_pylist()
    for part in (WHOLE_IMAGE, "border", "spectrum"):
        mine = [row for row in rows if row["part"] == part]
        own = [row["target"] == 5 for row in mine]
        area = roc_auc_score(own, [row["levels"][5] for row in mine])
        profile = found.of(NAMES[5])
        assert area == pytest.approx(profile.whole if part == WHOLE_IMAGE else part_of(profile, part).area)


def of_class(k):
    return Group(NAMES[k], k, np.arange(k * EACH, (k + 1) * EACH))


def part_of(profile, name):
    return next(part for part in profile.parts if part.part == name)


def test_profiles_are_read_back_and_stand_on_the_page(measured):
    run, _, found = measured
    assert read_sufficiency(run) == found
    page = (run / "report.html").read_text()
    assert "Parts that suffice to recognise a class" in page
    assert page.count("<figcaption") == K * (len(IMAGE_PARTS) + 1)
    assert len(RunStore.open(run).table("shortcuts")) == K * len(IMAGE_PARTS)
    told = json.loads((run / "shortcuts.json").read_text())
    assert told["limits"] == found.limits and f"below {1 / K:.3f} is extrapolated" in page.replace("&#39;", "'")
    json.dumps(found.to_json(), allow_nan=False)
    with pytest.raises(UsageError, match="unknown class"):
        found.of("c9")


def test_what_is_done_is_not_shown_again(measured, monkeypatch):
    run, classifier, found = measured
    shown = []
    monkeypatch.setattr(type(classifier), "logits", lambda self, x: shown.append(len(x)))
    assert measure_sufficiency(run, images=IMAGES, classifier=classifier) == found
    assert shown == []


@pytest.mark.slow
def test_a_measurement_that_was_stopped_goes_on_and_says_the_same(measured, folder, tmp_path, monkeypatch):
    _, classifier, found = measured
    shutil.copytree(folder / "run", tmp_path / "run")
    logits, calls = type(classifier).logits, []

    def stopped(self, x):
        calls.append(len(x))
        if len(calls) == 30:
            raise KeyboardInterrupt
        return logits(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(type(classifier), "logits", stopped)
        with pytest.raises(KeyboardInterrupt):
            measure_sufficiency(tmp_path / "run", images=IMAGES, classifier=classifier)
    with pytest.raises(StoreError):
        read_sufficiency(tmp_path / "run")
    assert measure_sufficiency(tmp_path / "run", images=IMAGES, classifier=classifier) == found


@pytest.mark.slow
def test_shards_measure_what_one_process_does(measured, folder, tmp_path):
    """The first does everything, for nobody else comes; the second finds it done."""
    _, classifier, found = measured
    shutil.copytree(folder / "run", tmp_path / "run")
    for shard in ("2/3", "1/3"):
        assert measure_sufficiency(tmp_path / "run", images=IMAGES, classifier=classifier, shard=shard) == found
    for name in ("shortcuts.json", "tables/shortcuts.parquet", "tables/profiles.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (measured[0] / name).read_bytes()
    with pytest.raises(UsageError, match="--shard is not a shard"):
        measure_sufficiency(tmp_path / "run", images=IMAGES, classifier=classifier, shard="4/3")


def test_images_of_few_sources_are_less_sure(measured):
    store = RunStore.open(measured[0])
    n = len(store.table("corpus"))
    alone, eight = np.arange(n), np.arange(n) // 8
    kept = KeptScores.of(store.table(f"kept-{IMAGES}"), "border")
    first, then = (kept.area(of_class(5), alone, sources) for sources in (alone, eight))
    assert then.value == first.value and then.low < first.low and then.high > first.high
    lines = store.table(f"exchanged-{IMAGES}").to_pylist()
    rises = ExchangedRises([line for line in lines if (line["target"], line["part"]) == (5, "spectrum")])
    first, then = (rises.rise(sources) for sources in (alone, eight))
    assert then.value == first.value and then.high - then.low > first.high - first.low


def test_images_that_carry_the_class_as_a_further_label_are_no_others(measured):
    store = RunStore.open(measured[0])
    kept = KeptScores.of(store.table(f"kept-{IMAGES}"), WHOLE_IMAGE)
    alone = np.arange(len(store.table("corpus")))
    twice = np.where(alone // EACH == 1, alone - EACH, alone)  # the images of class 1 are those of class 0
    assert kept.area(of_class(0), twice, alone).n == kept.area(of_class(0), alone, alone).n - IMAGES


def test_two_classes_are_not_compared(tmp_path):
    write(tmp_path / "data", 2)
    run, classifier = audited(tmp_path, classes=2)
    found = measure_sufficiency(run, images=IMAGES, classifier=classifier)
    assert not found.compared and all(part.p is None for one in found for part in one.parts)
    assert "only you can say" in found.limits
    for one in found:  # the frame tells one, and that there is none the other
        assert "border" in [part.part for part in one.noted]


def test_a_number_of_images_out_of_range_is_an_error(measured):
    with pytest.raises(UsageError, match="images is out of range"):
        measure_sufficiency(measured[0], images=2, classifier=measured[1])


def test_images_of_one_source_cannot_be_compared(measured, monkeypatch):
    monkeypatch.setattr(Corpus, "source_numbers", np.zeros(K * EACH, int))
    with pytest.raises(UsageError, match=r"nothing to compare with.*2 sources"):
        measure_sufficiency(measured[0], images=IMAGES, classifier=measured[1])


def certain(value, half=0.02):
    return Interval(value, value - half, min(value + half, 1.0), 100)


def test_a_part_is_noted_only_where_area_and_rise_are_both_beyond_other_classes():
    areas = [[certain(0.6 + 0.01 * i), certain(0.7)] for i in range(20)]
    rises = [[certain(0.1), certain(0.6 + 0.01 * i)] for i in range(20)]
    areas[4][0], rises[4][0] = certain(0.999, 0.01), certain(6.0)
    p, noted = compare_parts(areas, rises, 0.05)
    assert np.argwhere(noted).tolist() == [[4, 0]] and p[4, 0] < 0.01
    rises[4][0] = replace(rises[4][0], low=FLOOR - 0.01)
    assert not compare_parts(areas, rises, 0.05)[1].any()
    rises[4][0], areas[4][0] = certain(6.0), certain(0.5)
    assert not compare_parts(areas, rises, 0.05)[1].any()


def test_p_of_exchangeable_classes_is_uniform():
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        areas = [[certain(0.5 + 0.4 * a, 0.01) for a in line] for line in rng.beta(2, 3, (25, 4))]
        rises = [[certain(r, 0.1) for r in line] for line in rng.exponential(1.0, (25, 4))]
        found.append(compare_parts(areas, rises, 0.05)[0].min(1))
    assert 0.01 < (np.concatenate(found) <= 0.05).mean() < 0.075
