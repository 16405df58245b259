"""Parts put on other images: a network that reads a tag by construction, and clusters of which one is the tag's."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from tests.audit.conftest import network, write_corpus
from tests.audit.verdicts.interventions.test_experiment import SCALE, blind, on_inputs, reads_tag, scenes, tagged
from torch.nn.modules.module import register_module_forward_pre_hook

from klarsicht import audit
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral.analysis import METRICS
from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
from klarsicht.audit.verdicts.interventions.regions import (
    RegionEffects,
    Regions,
    correlation,
    draw_donors,
    draw_other_images,
    jaccard,
    select_regions,
    smallest_regions,
)
from klarsicht.audit.verdicts.quantification import quantification
from klarsicht.audit.verdicts.quantification.cluster_units import candidate_analyses

N, CARRIERS = 80, 20
RNG = np.random.default_rng(5)
PLACES = RNG.integers(2, 24, (N, 2)) // 4 * 4
CARRIES = np.arange(N) < CARRIERS


@pytest.fixture(scope="module")
def images():
    """(levels, maps on a grid of 8): relevance lies on the tag of the carriers, and anywhere in the others."""
    levels = scenes(N)
    levels[:CARRIERS] = tagged(levels[:CARRIERS], PLACES[:CARRIERS])
    maps = np.zeros((N, 8, 8))
    for of_one, (a, b) in zip(maps, PLACES // 4, strict=True):
        of_one[a : a + 2, b : b + 2] = 1
    return levels, maps


def regions_of(model, levels, maps, fellows=None):
    return RegionEffects.of(on_inputs(model), levels, SCALE, maps, SCALE.inputs(scenes(5, seed=7)), 3, fellows)


@pytest.fixture(scope="module")
def found(images):
    return regions_of(reads_tag, *images)


@pytest.mark.slow
def test_the_rise_is_what_a_loop_over_pastes_gives(images, found):
    levels, _ = images
    x = scenes(5, seed=7).astype(np.float32)

    def logit(image):
        answer = reads_tag(image[None])[0]
        return answer[3] - answer.mean()

    for i in (0, CARRIERS):
        pasted = x.copy()
        for one in pasted:
            one[found.masks[i]] = levels[i][found.masks[i]]
        expected = np.mean([logit(after) - logit(before) for after, before in zip(pasted, x, strict=True)])
        assert found.rise[i] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_the_rise_beyond_its_fellows_is_what_a_loop_over_pastes_gives(images):
    levels, maps = images
    beyond = regions_of(reads_tag, levels, maps, levels)
    x = scenes(5, seed=7).astype(np.float32)
    owner, regions = select_regions(maps)
    other = draw_other_images(owner, N, len(x))

    def logit(i, background, mask):
        shown = background.copy()
        shown[mask] = levels[i][mask]
        answer = reads_tag(shown[None])[0]
        return answer[3] - answer.mean()

    for i in (0, CARRIERS):
        rises = []
        for m in np.flatnonzero(owner == i):
            mask = np.kron(regions[m], np.ones((4, 4), bool))
            rises.append(np.mean([logit(i, b, mask) - logit(k, b, mask) for k, b in zip(other[m], x, strict=True)]))
        assert beyond.rise[i] == pytest.approx(max(rises), abs=1e-4)


def test_strangers_are_always_others_and_any_of_them():
    owner = np.repeat(np.arange(7), 300)
    met = draw_other_images(owner, 7, 5)
    assert (met != owner[:, None]).all() and np.array_equal(met, draw_other_images(owner, 7, 5))
    counts = np.bincount(met.ravel(), minlength=7)
    assert abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


@pytest.mark.slow
def test_what_all_images_of_a_class_do_at_a_place_is_no_rise(images):
    """Every image carries the tag at one place: it raises the class by itself, and tells no image from another."""
    levels, maps = images
    alike, spot = levels.copy(), np.zeros_like(maps)
    alike[:] = tagged(levels, np.full((N, 2), 8))
    spot[:, 2:4, 2:4] = 1
    nobody, plain = (regions_of(reads_tag, alike, spot, f) for f in (alike, None))
    assert abs(nobody.rise.mean()) < 0.1 * plain.rise.mean()


def test_masks_lie_on_relevance_and_tags_raise_the_class(found):
    for mask, (a, b) in zip(found.masks[:CARRIERS], PLACES, strict=False):
        assert mask[a + 1 : a + 6, b + 1 : b + 5].all() and mask.sum() < 200
    assert found.rise[CARRIES].min() > found.rise[~CARRIES].max()


def test_an_image_without_relevance_has_no_part(images):
    levels, maps = images
    nothing = regions_of(reads_tag, levels[:3], -maps[:3])
    assert not nothing.masks.any() and (nothing.rise == 0).all()


def test_of_two_parts_the_one_that_raises_the_class_is_kept(images):
    levels, maps = images
    a, b = PLACES[0] // 4
    beside = maps[:1].copy()
    beside[0, (a + 4) % 8 : (a + 4) % 8 + 2, :2] = 1.5  # heavier, and beside the tag
    kept = regions_of(reads_tag, levels[:1], beside)
    assert kept.masks[0, a * 4 + 2, b * 4 + 2] and not kept.masks[0, (a + 4) % 8 * 4 + 2, 2]


def test_what_lies_in_many_places_is_tried_at_once(images):
    """Two halves of a tag, far apart on the map: neither is the heaviest part alone; what holds the mass is both."""
    _, maps = images
    two = np.zeros((1, 8, 8))
    two[0, 1, 1], two[0, 6, 6], two[0, 3, 5] = 1, 0.9, 0.1
    assert np.array_equal(smallest_regions(two, 0.9)[0], two[0] > 0.5) and smallest_regions(two, 1.0).sum() == 3
    owner, regions = select_regions(maps)
    assert set(owner) == set(range(N)) and regions[-1].sum() == (maps[-1] > 0).sum()
    assert not smallest_regions(-maps, 0.9).any()


def test_a_rare_artifact_is_chosen_before_a_natural_half(found):
    """A twentieth rises by four deviations, half of the images by one and a half: the half correlates more."""
    rng = np.random.default_rng(3)
    rare, natural = np.arange(400) % 20 == 0, rng.permutation(400) < 200
    rise = rng.normal(size=400) + 4 * rare + 2 * natural
    both = replace(found, rise=rise)
    half = rng.permutation(400) < 200
    assert correlation(natural, rise) > correlation(rare, rise)
    lucky = rise >= np.sort(rise)[-2]  # two images, the highest of all: one of them in either half or not at all
    assert both.choose_cluster(np.array([natural, rare, lucky]), half) == 1


def test_what_stands_apart_in_what_was_compared_too_is_chosen(found):
    """A natural half rises more surely; the rare group stands five deviations apart, the half one and a half."""
    rng = np.random.default_rng(4)
    rare, natural = np.arange(400) % 10 == 0, rng.permutation(400) < 200
    both = replace(found, rise=rng.normal(size=400) + 1.7 * rare + 1.5 * natural)
    members, distance, half = np.array([natural, rare]), np.array([1.5, 5.0]), rng.permutation(400) < 200
    assert both.choose_cluster(members, half) == 0 and both.choose_cluster(members, half, distance) == 1
    assert (
        both.choose_cluster(members, half, 10 * distance) == 1 and both.choose_cluster(members, half, np.ones(2)) == 0
    )
    falls = replace(found, rise=-both.rise)  # neither raises the class: distance is no reason to take the farther one
    assert falls.choose_cluster(members, half, distance) == falls.choose_cluster(members, half)


def test_the_cluster_that_goes_with_the_rise_is_chosen(found):
    rng = np.random.default_rng(0)
    decoys = np.array([rng.permutation(CARRIES), np.arange(N) % 2 == 0, ~CARRIES, np.arange(N) < 3, np.arange(N) < 45])
    half = np.arange(N) % 2 == 0
    assert found.choose_cluster(np.vstack([decoys, CARRIES]), half) == len(decoys)
    assert (
        found.choose_cluster(np.array([np.arange(N) < 3, np.ones(N, bool)]), half) is None
    )  # one member on a side; no rest


@pytest.mark.parametrize(("model", "used"), [(reads_tag, True), (blind, False)])
def test_the_effect_is_measured_against_a_control(found, model, used):
    effect = found.measure_effect(
        on_inputs(model), CARRIES, ~CARRIES, SCALE.inputs(scenes(64, seed=9)), 3, np.random.default_rng(0)
    )
    assert (effect.rank == 0 and effect.rise.low > 1 and effect.z > 5) == used


def test_every_donor_is_dealt_as_often_as_the_others():
    turns = draw_donors(CARRIES, 250, np.random.default_rng(0))
    who, often = np.unique(turns, return_counts=True)
    assert len(turns) == 250 and np.array_equal(who, np.flatnonzero(CARRIES))
    assert often.max() - often.min() <= 1
    assert len({tuple(turn) for turn in turns.reshape(5, 50)}) == 5


def test_regions_of_donors_and_of_blanks_are_put_on(images, found):
    """Every pixel that changes is that of one donor, in its region."""
    levels, _ = images
    put = Regions(levels, found.masks, CARRIES, ~CARRIES, SCALE)
    x = SCALE.inputs(scenes(12, seed=9))
    assert put.fits(x[0]) and not put.fits(x[0, :, 1:])
    for pasted, who in zip(put.put(x, np.random.default_rng(0)), (CARRIES, ~CARRIES), strict=True):
        for after, before in zip(pasted, x, strict=True):
            candidates = [
                torch.where(torch.from_numpy(found.masks[i]), SCALE.inputs(levels[i : i + 1])[0], before)
                for i in np.flatnonzero(who)
            ]
            assert any(torch.equal(after, one) for one in candidates)


def test_correlation_is_pearsons():
    member, value = RNG.random(50) < 0.3, RNG.normal(size=50)
    assert correlation(member, value) == pytest.approx(np.corrcoef(member, value)[0, 1])
    assert correlation(np.ones(50, bool), value) == 0


def test_jaccard_is_scikit_learns():
    a, b = RNG.random((2, 40)) < 0.4
    assert jaccard(a, b) == pytest.approx(jaccard_score(a, b))


@pytest.mark.slow
def test_a_quantified_run_ranks_the_cluster_that_the_model_follows(tmp_path, capsys):
    """And no more images are shown to the network than were announced before."""
    marked, shown, net = write_corpus(tmp_path / "data"), [0], network()
    classifier = load_model(net, classes=["a", "b", "c"])
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), metric=("concept", "euclidean"))
    pipeline.run(settings, tmp_path / "run", classifier=classifier)
    before = audit.rank(tmp_path / "run")
    assert before[0].effect is None
    capsys.readouterr()
    # of all modules: a hook of the network would make it another model
    handle = register_module_forward_pre_hook(
        lambda module, given: shown.__setitem__(0, shown[0] + len(given[0])) if module is net else None
    )
    quantification.quantify(tmp_path / "run", classifier=classifier)
    handle.remove()
    announced = re.findall(r"at most ([\d,]+) images will be shown", capsys.readouterr().err)
    assert 0 < shown[0] <= sum(int(most.replace(",", "")) for most in announced)
    quantification.quantify(tmp_path / "run", classifier=classifier)
    assert "will be shown" not in capsys.readouterr().err
    entry = audit.rank(tmp_path / "run").of("b")
    assert {path[-9:] for path in entry.members} == marked and entry.metric in settings.metric
    assert (
        entry.effect.rank == 0 and entry.effect.low > 0 and entry.effect.follows > 0.9 and entry.effect.stability == 1
    )
    ranked = audit.rank(tmp_path / "run").to_table().to_pylist()
    assert {"effect", "effect_low", "effect_high", "effect_rank"} <= ranked[0].keys()
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{entry.effect.shift:+.2f}" in page


@pytest.mark.slow
def test_candidates_come_from_all_that_is_stored_whatever_was_asked_for(tmp_path, monkeypatch):
    """Plain features were asked for and are made noise: another source must find the mark, and be drawn and opened."""
    marked = write_corpus(tmp_path / "data")
    noise = np.random.default_rng(0).normal(size=(180, 4))
    monkeypatch.setitem(METRICS, "features", replace(METRICS["features"], read=lambda _, group: noise[group.rows]))
    classifier = load_model(network(), classes=["a", "b", "c"])
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), metric=("features",), neighbours=6)
    pipeline.run(settings, tmp_path / "run", classifier=classifier)
    assert {path[-9:] for path in audit.rank(tmp_path / "run").of("b").members} != marked
    quantification.quantify(tmp_path / "run", classifier=classifier)
    entry = audit.rank(tmp_path / "run").of("b")
    assert {path[-9:] for path in entry.members} == marked and entry.metric in ("euclidean", "concept", "channels")
    assert entry.baseline.overlap < 1
    patient = AuditedRun.of(tmp_path / "run", classifier=classifier)
    assert set(patient.find_members("b", "cluster").members) == set(entry.rows)


def test_whole_maps_stand_beside_parts(tmp_path):
    write_corpus(tmp_path / "data", per_class=20)
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), metric=("euclidean",), parts=True)
    asked = audit_inputs.Audit.of(settings, load_model(network(), classes=["a", "b", "c"]))
    store = pipeline.open_run(asked, tmp_path / "run")
    relevance_step.attribute(asked, store, 1, own=asked.classifier)
    found = candidate_analyses(tuple(pipeline.make_analyses(asked, store).values()))
    assert [(one.metric, one.by_parts) for one in found] == [
        *[("euclidean", True), ("euclidean", False)],
        *[("concept", False), ("channels", False)],
    ]


def test_a_rise_of_rounding_is_none(images):
    levels, maps = images

    def constant(x):
        """Logits that do not depend on the image, with another rounding for each."""
        noise = np.random.default_rng(int(x.sum())).integers(-4, 5, (len(x), 12))
        return (np.arange(12.0) + noise * np.spacing(np.float32(11))).astype(np.float32)

    found = regions_of(constant, levels, maps)
    assert not found.rise.any()
