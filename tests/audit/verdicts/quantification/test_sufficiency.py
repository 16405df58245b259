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
from klarsicht.audit.results.logit_effect import FLOOR, LogitEffect
from klarsicht.audit.results.part_comparison import CHANCE, compare_parts
from klarsicht.audit.results.sufficiency import PART_COLUMNS, read_sufficiency
from klarsicht.audit.verdicts.interventions.framings import FRAMINGS, resample
from klarsicht.audit.verdicts.interventions.image_parts import IMAGE_PARTS, SINGLE_CORNERS, border_mask
from klarsicht.audit.verdicts.quantification import opened_runs, sufficiency_units
from klarsicht.audit.verdicts.quantification.natural_parts import read_natural_parts, read_natural_sets
from klarsicht.audit.verdicts.quantification.reference_parts import largest_area
from klarsicht.audit.verdicts.quantification.sufficiency import ExchangedImages, PartFeatures, measure_sufficiency
from klarsicht.ground.errors import ShareMade, StoreError, UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics.intervals import Interval
from klarsicht.numerics.statistics.linear_discriminants import cross_validated_scores

SIDE, K, EACH, FRAMED, WEIGHT = 20, 7, 20, 3, 6.0
NAMES = [f"c{k}" for k in range(K)]
IMAGES, POOL = 16, 64
PARTS = f"{len(IMAGE_PARTS)}-parts-{IMAGES}"
STEPS = {False: "kept-", True: "missing-"}  # by whether the part is missing


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
    assert border.area > 0.99 and border.others < 0.75 and border.p <= 0.01
    assert border.is_followed and border.shift_low > FLOOR
    assert found.headlines == ()  # of so few images
    (line,) = [line for line in found.lines if line.evidence.part == "border" and line.profile.name == NAMES[FRAMED]]
    assert f"alone, {NAMES[FRAMED]} can be recognised with AUC 1.00" in line.headline


def test_the_rise_of_an_exchanged_border_is_that_of_the_weights(measured, folder):
    """Levels are centred, so of the framed logit's change all but 1 / K counts."""
    run, _, found = measured
    corpus = RunStore.open(run).table("corpus")["path"].to_pylist()
    rows = RunStore.open(run).table(f"exchanged-{PARTS}").to_pylist()
    mine = [row for row in rows if row["target"] == FRAMED and row["part"] == "border"]

    def border(row):
        return np.asarray(Image.open(folder / "data" / corpus[row]))[border_mask(SIDE, SIDE)].mean() / 255

    expected = [WEIGHT * (1 - 1 / K) * (border(row["donor"]) - border(row["control"])) for row in mine]
    np.testing.assert_allclose([row["rise"] for row in mine], expected, atol=1e-3)
    assert found.of(NAMES[FRAMED]).parts[0].shift == pytest.approx(np.mean(expected), abs=1e-3)


def test_donors_are_of_the_class_and_controls_of_the_receivers(measured):
    run, _, _ = measured
    labels = RunStore.open(run).table("corpus")["label"].to_pylist()
    for row in RunStore.open(run).table(f"exchanged-{PARTS}").to_pylist():
        assert NAMES[row["target"]] != labels[row["row"]] == labels[row["control"]] == NAMES[row["own"]]
        if row["part"] in FRAMINGS:
            assert row["row"] == row["donor"] == row["control"]
        else:
            assert labels[row["donor"]] == NAMES[row["target"]] and row["row"] != row["control"]


def test_a_framing_is_that_of_the_picture_itself(measured, folder):
    """The enlarged picture is shown to the weights by numpy; its control is the picture as it is."""
    run, _, found = measured
    corpus = RunStore.open(run).table("corpus")["path"].to_pylist()
    weight = linear()[1].weight.detach().numpy()
    rows = [r for r in RunStore.open(run).table(f"exchanged-{PARTS}").to_pylist() if r["part"] == "enlarged"]
    for row in rows[:20]:
        image = np.asarray(Image.open(folder / "data" / corpus[row["row"]]))
        logits = [
            weight @ (x[0].transpose(2, 0, 1).ravel() / 255) for x in windows_of(FRAMINGS["enlarged"], image[None])
        ]
        one, other = (y[row["target"]] - y.mean() for y in logits)
        assert row["rise"] == pytest.approx(one - other, abs=1e-3)
        assert row["stays_control"] == (logits[1].argmax() == row["own"])
    (mine,) = (part for part in found.of(NAMES[FRAMED]).parts if part.part == "enlarged")
    assert mine.area is mine.rest is None and mine.p is not None


def windows_of(framing, images):
    return resample(images, framing.window), resample(images, framing.control)


def test_shares_are_those_that_the_weights_give(measured, folder):
    """The network is the block and the border of an image: it is shown both, of other images, by numpy."""
    run, _, found = measured
    corpus = RunStore.open(run).table("corpus")["path"].to_pylist()
    weight = linear()[1].weight.detach().numpy()
    rows = [r for r in RunStore.open(run).table(f"exchanged-{PARTS}").to_pylist() if r["part"] == "border"]
    mask = border_mask(SIDE, SIDE)[..., None]

    def predict(row, donor):
        image, other = (np.asarray(Image.open(folder / "data" / corpus[i]), float) / 255 for i in (row, donor))
        return int((weight @ np.where(mask, other, image).transpose(2, 0, 1).ravel()).argmax())

    taken = [predict(r["row"], r["donor"]) == FRAMED for r in rows if r["target"] == FRAMED]
    stays = [predict(r["row"], r["donor"]) == FRAMED for r in rows if r["own"] == FRAMED]
    border = found.of(NAMES[FRAMED]).parts[0]
    assert (border.taken, border.stays) == (np.mean(taken), np.mean(stays)) and border.lost == 1 - np.mean(stays)


def test_an_area_is_that_of_scikit_learn(measured, folder):
    """The features of this network are its pixels: those of the border alone, and of one border on all images."""
    run, _, found = measured
    store = RunStore.open(run)
    corpus = store.table("corpus")
    images = np.stack([np.asarray(Image.open(folder / "data" / path)) for path in corpus["path"].to_pylist()])
    mask = border_mask(SIDE, SIDE)
    for missing in (False, True):
        table = store.table(next(name for name in store.manifest["steps"] if name.startswith(STEPS[missing])))
        part, rest = (np.array(table[name].to_pylist()) for name in ("part", "rest"))
        which = part == "border"
        row = table["row"].to_numpy()[which]
        assert (rest == missing).all()
        pixels = np.stack(table["features"].to_pylist())[which].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1) * 255
        own = pixels[:, ~mask] if missing else pixels[:, mask]
        np.testing.assert_allclose(own, images[row][:, ~mask if missing else mask], atol=1e-3)
        assert np.ptp(pixels[:, mask] if missing else pixels[:, ~mask], 0).max() < 1e-3
        label = row // EACH
        scores = cross_validated_scores(pixels.reshape(len(label), -1), label, row)
        profile = part_of(found.of(NAMES[5]), "border")
        told = profile.rest if missing else profile.area
        assert told == pytest.approx(roc_auc_score(label == 5, scores[:, 5]), abs=0.01)


@pytest.fixture
def units(folder, tmp_path, monkeypatch):
    """Units on a copy of the run, and a list of the number of images in each call of the network."""
    classifier, shown = load_model(linear(), classes=NAMES), []
    logits = type(classifier).logits
    monkeypatch.setattr(type(classifier), "logits", lambda self, x: shown.append(len(x)) or logits(self, x))
    shutil.copytree(folder / "run", tmp_path / "run")
    with opened_runs.open_run(tmp_path / "run", level=0.05, workers=1, data=None, classifier=classifier) as (_, work):
        yield sufficiency_units.ExchangeUnits(sufficiency_units.PartReader(work, IMAGES)), shown


@pytest.mark.slow
def test_each_window_and_control_is_shown_once(units):
    """Eight images get eleven parts of a class. Each of the receivers, 12 of each class where they are needed, gets
    eleven controls, and is shown in eight windows: whole, enlarged, two stretched and four shifted."""
    exchanges, shown = units
    exchanges.exchange(FRAMED)
    assert sum(shown) == 8 * (2 * len(IMAGE_PARTS) + 8) == exchanges.most_shown([FRAMED])
    receivers = {int(row) for k in range(K) for row in exchanges.draw_pairs(k)[0]}
    for k in range(K):
        exchanges.exchange(k)
    assert sum(shown) == 8 * (K + 1) * len(IMAGE_PARTS) + len(receivers) * (len(IMAGE_PARTS) + 8)
    assert len(receivers) < 8 * K


@pytest.mark.slow
def test_a_class_is_measured_alike_whoever_was_asked_before(units):
    exchanges, _ = units
    first = exchanges.exchange(FRAMED)
    again = sufficiency_units.ExchangeUnits(exchanges.reader)
    for k in range(K):
        rows = again.exchange(k)
        assert rows == first or k != FRAMED


def test_images_are_receivers_equally_often(units):
    """Of each class the 12 receivers get at most two of the others' parts, and no image twice that of one class; each
    has one control, whoever asks."""
    exchanges, _ = units
    receivers = [exchanges.draw_pairs(k) for k in range(K)]
    controls = {}
    for rows, _, control, _ in receivers:
        for row, other in zip(rows.tolist(), control.tolist(), strict=True):
            assert controls.setdefault(row, other) == other
    for k in range(K):
        used = np.concatenate([rows[owners == k] for rows, _, _, owners in receivers])
        times = np.bincount(used - k * EACH, minlength=EACH)
        assert times.sum() in range(6, 13) and times.max() <= 2 and (times > 0).sum() <= 12
    assert all(len(rows) == len(set(rows.tolist())) == 8 for rows, *_ in receivers)


def test_images_without_a_part_are_shown_of_flagged_parts_only(measured):
    _, _, found = measured
    flagged = {part.part for one in found for part in one.noted}
    for one in found:
        shown = {part.part for part in one.parts if part.rest is not None}
        assert "border" in shown and shown == flagged - {*SINGLE_CORNERS, *FRAMINGS}


def of_class(k):
    return Group(NAMES[k], k, np.arange(k * EACH, (k + 1) * EACH))


def part_of(profile, name):
    return next(part for part in profile.parts if part.part == name)


def test_profiles_are_read_back_and_stand_on_the_page(measured):
    run, _, found = measured
    assert read_sufficiency(run) == found
    page = (run / "report.html").read_text()
    assert "Parts that suffice to recognise a class" in page
    assert page.count("<figcaption") == K * (sum(part.area is not None for part in found.profiles[0].parts) + 1)
    assert all(column.heading in page.replace("\N{NO-BREAK SPACE}", " ") for column in PART_COLUMNS.values())
    assert found.headlines == () and "too few for a headline" in page  # of IMAGES a class
    names = [part.part for part in found.profiles[0].parts]
    assert {*IMAGE_PARTS, *FRAMINGS} <= {*names} and len(RunStore.open(run).table("shortcuts")) == K * len(names)
    told = json.loads((run / "shortcuts.json").read_text())
    assert told["limits"] == found.limits and "in sets of ten" in page
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
    """Each makes its share of a step and says so, until none is left."""
    _, classifier, found = measured
    shutil.copytree(folder / "run", tmp_path / "run")
    shares = []
    for _ in range(9):
        for shard in ("2/3", "1/3", "3/3"):
            try:
                result = measure_sufficiency(tmp_path / "run", images=IMAGES, classifier=classifier, shard=shard)
            except ShareMade as share:
                shares.append(share)
                continue
            assert result == found
    assert 3 <= len(shares) < 27
    for name in ("shortcuts.json", "tables/shortcuts.parquet", "tables/profiles.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (measured[0] / name).read_bytes()
    with pytest.raises(UsageError, match="`shard` is not a shard"):
        measure_sufficiency(tmp_path / "run", images=IMAGES, classifier=classifier, shard="4/3")


def test_images_of_few_sources_are_less_sure(measured):
    store = RunStore.open(measured[0])
    n = len(store.table("corpus"))
    alone, eight = np.arange(n), np.arange(n) // 8
    kept = PartFeatures.of(store.table(f"kept-{PARTS}"), "border", rest=False)
    groups = [of_class(k) for k in range(K)]
    first, then = (kept.areas(groups, alone, sources, 0)[5] for sources in (alone, eight))
    assert then.high - then.low > first.high - first.low
    lines = store.table(f"exchanged-{PARTS}").to_pylist()
    some = [line for line in lines if (line["target"], line["part"]) == (5, "spectrum")]
    first, then = (ExchangedImages(some, sources).rise for sources in (alone, eight))
    assert then.value == first.value and then.high - then.low > first.high - first.low


def test_images_that_carry_the_class_as_a_further_label_are_no_others(measured):
    store = RunStore.open(measured[0])
    kept = PartFeatures.of(store.table(f"kept-{PARTS}"), "border", rest=False)
    alone, groups = np.arange(len(store.table("corpus"))), [of_class(k) for k in range(K)]
    order = kept.row[kept.target == 0], kept.row[kept.target == 1]
    twice = alone.copy()
    twice[order[1]] = order[0]  # the images of class 1 are those of class 0
    first, then = (kept.areas(groups, images, alone, 0)[0].n for images in (alone, twice))
    assert then == first - IMAGES


def test_two_classes_are_not_compared(tmp_path):
    write(tmp_path / "data", 2)
    run, classifier = audited(tmp_path, classes=2)
    found = measure_sufficiency(run, images=IMAGES, classifier=classifier)
    assert not found.compared and all(0 < part.p <= 1 for one in found for part in one.parts)
    assert "only you can say" in found.limits and "classes of ordinary photographs" in found.limits
    (first_border, second_border) = (part_of(one, "border") for one in found)
    assert first_border.is_followed and second_border.is_followed and first_border.area > 0.99
    first, second = found
    for a, b in zip(first.parts, second.parts, strict=True):  # with two outputs, who leaves one class joins the other
        assert (a.taken, a.stays) == pytest.approx((1 - b.stays, 1 - b.taken)) and a.area == pytest.approx(b.area)
    natural = read_natural_parts()
    for one in found:  # what is noted follows from the pairs that are included
        low = np.array([[CHANCE if part.low is None else part.low for part in one.parts]])
        rises = np.array([[part.shift_low for part in one.parts]])
        shares = np.array([[part.effect.turned.low for part in one.parts]])
        p = natural.p_values([part.part for part in one.parts], low, rises, shares)
        np.testing.assert_allclose([part.p for part in one.parts], p[0])
        assert all(part.noted == (part.p <= 0.05 and (part.low or 1) > 0.5 and part.is_followed) for part in one.parts)
    assert sorted(line.evidence.part for line in found.lines) == sorted(part.part for part in first.parts)


@pytest.mark.slow
def test_a_part_that_tells_reference_classes_as_well_is_not_noted(tmp_path):
    """Reference pictures with and without the same frame: it comes with the apparatus."""
    write(tmp_path / "data", 2)
    run, classifier = audited(tmp_path, classes=2)
    shutil.copytree(tmp_path / "data", tmp_path / "reference")
    found = measure_sufficiency(run, images=IMAGES, classifier=classifier, reference=tmp_path / "reference")
    borders = [part_of(one, "border") for one in found]
    assert all(border.others == 1 and border.is_ordinary and not border.noted for border in borders)
    assert all(part_of(one, "background").others is part_of(one, "enlarged").others is None for one in found)
    shutil.rmtree(tmp_path / "reference" / NAMES[0])
    with pytest.raises(UsageError, match="no reference classes to compare"):
        measure_sufficiency(run, images=IMAGES, classifier=classifier, reference=tmp_path / "reference")


def test_the_largest_area_of_reference_classes_is_that_of_scikit_learn():
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    features = rng.normal(size=(60, 4)) + 2 * (labels == 1)[:, None]
    scores = cross_validated_scores(features, labels, np.arange(60))
    areas = [roc_auc_score(labels == k, scores[:, k]) for k in range(3)]
    assert largest_area(features, labels, np.arange(60)) == pytest.approx(max(areas))


@pytest.mark.slow
def test_the_outside_of_a_mask_is_measured_as_the_border_that_it_is(measured, folder, tmp_path):
    """Both have the same pixels, and the inside is what is left: areas, shares and rises must be equal."""
    _, classifier, _ = measured
    shutil.copytree(folder / "run", tmp_path / "run")
    Image.fromarray(np.where(border_mask(SIDE, SIDE), 0, 255).astype(np.uint8)).save(tmp_path / "middle.png")
    mask = tmp_path / "middle.png"
    found = measure_sufficiency(tmp_path / "run", images=IMAGES, classifier=classifier, region=mask)
    assert found.region == "middle.png" and read_sufficiency(tmp_path / "run") == found
    for one in found:
        border, outside, inside = (part_of(one, name) for name in ("border", "outside", "inside"))
        same = ("area", "low", "high", "shift", "taken", "taken_control", "stays", "stays_control")
        assert [getattr(outside, name) for name in same] == [getattr(border, name) for name in same]
        assert (outside.rest, inside.rest) == (inside.area, outside.area)


def test_a_number_of_images_out_of_range_is_an_error(measured):
    with pytest.raises(UsageError, match="images is out of range"):
        measure_sufficiency(measured[0], images=2, classifier=measured[1])


def test_images_of_one_source_cannot_be_compared(measured, monkeypatch):
    monkeypatch.setattr(Corpus, "source_numbers", np.zeros(K * EACH, int))
    with pytest.raises(UsageError, match=r"nothing to compare with.*2 sources"):
        measure_sufficiency(measured[0], images=IMAGES, classifier=measured[1])


def certain(value, half=0.02):
    return Interval(value, value - half, min(value + half, 1.0), 100)


def rise(value, half=0.1):
    return LogitEffect(certain(value, half) if value < 1 else Interval(value, value - half, value + half, 100))


def test_a_part_is_noted_only_where_area_and_rise_are_both_beyond_other_classes():
    areas = [[certain(0.6 + 0.01 * i), certain(0.7)] for i in range(20)]
    effects = [[rise(0.1), rise(0.6 + 0.01 * i)] for i in range(20)]
    areas[4][0], effects[4][0] = certain(0.999, 0.01), rise(6.0)
    p, noted = compare_parts(NAMES[: len(areas[0])], areas, effects, 0.05, read_natural_parts(), read_natural_sets())
    assert np.argwhere(noted).tolist() == [[4, 0]] and p[4, 0] < 0.01
    effects[4][0] = LogitEffect(replace(effects[4][0].rise, low=FLOOR - 0.01))
    assert not compare_parts(NAMES[: len(areas[0])], areas, effects, 0.05, read_natural_parts(), read_natural_sets())[
        1
    ].any()
    effects[4][0], areas[4][0] = rise(6.0), certain(0.5)
    assert not compare_parts(NAMES[: len(areas[0])], areas, effects, 0.05, read_natural_parts(), read_natural_sets())[
        1
    ].any()


def test_p_of_exchangeable_classes_is_uniform():
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        areas = [[certain(0.5 + 0.4 * a, 0.01) for a in line] for line in rng.beta(2, 3, (25, 4))]
        effects = [[rise(r) for r in line] for line in rng.exponential(1.0, (25, 4))]
        found.append(
            compare_parts(NAMES[: len(areas[0])], areas, effects, 0.05, read_natural_parts(), read_natural_sets())[
                0
            ].min(1)
        )
    assert 0.01 < (np.concatenate(found) <= 0.05).mean() < 0.075
