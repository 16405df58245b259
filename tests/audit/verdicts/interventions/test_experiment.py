"""Changes that put back what was taken, and models whose use of an artifact is known by construction."""

import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import sem
from scipy.stats import t as student

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.detectors.detection import Detection
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples, covers_artifact_only, grow_window
from klarsicht.audit.verdicts.interventions.border import Border, measure_border
from klarsicht.audit.verdicts.interventions.corruption import compress_jpeg
from klarsicht.audit.verdicts.interventions.experiment import (
    Experiment,
    logit_excess,
    p_among_rivals,
    robust_z,
    standard_error,
    turned_share,
)
from klarsicht.audit.verdicts.interventions.insertion import CHANGES
from klarsicht.audit.verdicts.interventions.patch import Patch
from klarsicht.numerics.imaging import image_statistics
from klarsicht.numerics.statistics.logits import Independent

SIDE, K = 32, 12
SCALE = PixelScale(np.full(3, -1, np.float32), np.ones(3, np.float32))
RNG = np.random.default_rng(0)
TAG = RNG.integers(0, 2, (7, 6, 1)) * np.array([240, 200, 220])


def scenes(n, seed=0):
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(0, 200, (n, SIDE, SIDE, 3)), (0, 1.5, 1.5, 0))
    return np.clip(120 + smooth + rng.normal(0, 2, smooth.shape), 0, 255).round().astype(np.uint8)


def tagged(x, places):
    x = x.copy()
    for image, (a, b) in zip(x, places, strict=True):
        image[a : a + 7, b : b + 6] = TAG
    return x


def found(places, inside=(1, 0)):
    """A window of 5 x 5 somewhere inside the tags of the first images."""
    places = np.asarray(places)
    return Detection("texture", 50.0, np.arange(len(places)), (places + inside) / SIDE, (5 / SIDE, 5 / SIDE))


PLACES = RNG.integers(4, SIDE - 12, (15, 2))


def specimen(places=PLACES):
    levels = scenes(60)
    levels[: len(places)] = tagged(levels[: len(places)], places)
    return ArtifactExamples.of(found(places), levels)


def reads_tag(x):
    """Logit 3 counts how much the image is like the tag at its best place; the others see random directions."""
    windows = (
        np.lib.stride_tricks.sliding_window_view(x, (7, 6), (1, 2)).transpose(0, 1, 2, 4, 5, 3).reshape(len(x), -1, 126)
    )
    windows = windows - windows.mean(2, keepdims=True)
    pattern = (TAG - TAG.mean()).ravel()
    like = (windows @ pattern / (np.linalg.norm(windows, axis=2) * np.linalg.norm(pattern) + 1)).max(1)
    logits = blind(x)
    logits[:, 3] += 6 * like
    return logits


def blind(x):
    directions = np.random.default_rng(1).normal(0, 1, (x[0].size, K)) / SIDE / 80
    return (x.reshape(len(x), -1) - 120) @ directions


def as_levels(inputs):
    """Pixel values (n, H, W, C) of model inputs, equal for equal ones."""
    return np.rint((inputs.numpy().transpose(0, 2, 3, 1) + 1) * 127.5 * 64) / 64


def on_inputs(model):
    return lambda inputs: model(as_levels(inputs))


def insert(ways, x, seed=0):
    """(how, pixel values with the artifact, pixel values of the control) of each way, on pixel values x."""
    for how, way in ways.items():
        yield how, *map(as_levels, way.put(SCALE.inputs(x), np.random.default_rng(seed)))


def test_the_whole_artifact_is_recovered_from_a_window_inside_it():
    whole = grow_window(specimen())
    assert whole.extent == (7, 6)
    np.testing.assert_array_equal(whole.places, PLACES)


def test_a_caption_wider_than_three_windows_is_recovered():
    caption, places = (
        np.random.default_rng(4).integers(0, 255, (6, 20, 1)),
        np.random.default_rng(5).integers(0, 12, 15),
    )
    levels = scenes(60)
    for image, a in zip(levels, places, strict=False):
        image[a : a + 6, a : a + 20] = caption
    window = Detection("fine", 50.0, np.arange(15), np.stack([places, places + 8], 1) / SIDE, (5 / SIDE, 5 / SIDE))
    whole = grow_window(ArtifactExamples.of(window, levels))
    assert whole.extent == (6, 20)
    np.testing.assert_array_equal(whole.places, np.stack([places, places], 1))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_few_images_that_share_nothing_do_not_grow_their_window(count):
    """Two images agree at a third of their pixels by half of what others differ, and these pixels hang together."""
    rng, areas = np.random.default_rng(7), []
    levels = gaussian_filter(rng.normal(128, 400, (80, SIDE, SIDE, 1)), (0, 4, 4, 0)).clip(0, 255).astype(np.uint8)
    for _ in range(20):
        order = rng.permutation(len(levels))
        carriers, others = levels[order[:count]], levels[order[count:]]
        places = np.tile(rng.integers(0, SIDE - 6, 2), (count, 1))
        whole = grow_window(ArtifactExamples(carriers, others, places, (6, 6)))
        areas.append(whole.extent[0] * whole.extent[1] / 36)
    assert np.median(areas) < 2


def test_carriers_that_are_alike_as_a_whole_do_not_grow_their_window():
    levels = scenes(60)
    levels[:9] = levels[0]
    window = Detection("fine", 50.0, np.arange(9), np.full((9, 2), 0.4), (6 / SIDE, 6 / SIDE))
    given = ArtifactExamples.of(window, levels)
    assert grow_window(given) is given


def test_what_is_pasted_is_the_artifact_and_the_control_is_not():
    x = scenes(20, seed=5)
    for how, marked, control in insert(Patch.ways(specimen(), SCALE), x):
        changed = (marked != x).any(-1)
        assert (changed.sum((1, 2)) <= 42).all()
        assert ((control != x).any(-1).sum((1, 2)) <= 42).all()
        windows = np.lib.stride_tricks.sliding_window_view(marked, (7, 6), (1, 2)).transpose(0, 1, 2, 4, 5, 3)
        assert (windows == TAG).all((3, 4, 5)).any((1, 2)).all(), how


def test_an_opaque_mark_brings_nothing_of_its_class_and_a_blended_one_does():
    """Images of the class are bright and others dark, so that the control's pixels tell where they come from."""
    dark, bright = scenes(40, seed=6) // 2, scenes(60) // 2 + 128
    marked = tagged(bright[:15], PLACES)
    for mark, of_others in ((marked, True), (bright[:15] // 2 + marked // 2, False)):
        given = ArtifactExamples.of(found(PLACES), np.concatenate([mark, bright[15:]]))
        assert covers_artifact_only(grow_window(given)) == of_others
        for _, _, control in insert(Patch.ways(given, SCALE), dark):
            pasted = control[(control != dark).any(-1)]
            assert len(pasted) > 500 and (pasted < 128).all() == of_others


def measured(predict, x, target, ways):
    """The effect of each way on all images x, as model inputs, with common random numbers."""
    runs = {how: Experiment.run(predict, way, x, target, np.random.default_rng(0)) for how, way in ways.items()}
    return {how: run.effect(predict(x)) for how, run in runs.items()}


def strongest(predict, x, target):
    tried = measured(on_inputs(predict), SCALE.inputs(x), target, CHANGES["tile"](specimen(), SCALE))
    assert tried.keys() == {"own place", "any place"}
    return max(tried.values(), key=lambda e: e.z)


def test_a_model_that_reads_the_tag_is_caught_and_a_blind_one_is_not():
    x = scenes(64, seed=7)
    used = strongest(reads_tag, x, 3)
    assert used.rise.low > 1 and used.z > 8 and used.rank == 0
    assert used.flips > used.flips_control + 0.3
    for target in range(K):
        unused = strongest(blind, x, target)
        assert abs(unused.z) < 5
    other = strongest(reads_tag, x, 5)
    assert other.z < 3  # it raises class 3, not the class that carries it


def test_a_tile_that_is_used_beats_other_windows_and_one_that_is_not_is_one_of_them():
    x, ways = SCALE.inputs(scenes(8, seed=7)), Patch.ways(specimen(), SCALE)

    def p(model, target, patch, seed):
        rng = np.random.default_rng(seed)
        return p_among_rivals(on_inputs(model), x, patch.put(x, rng)[0], patch.rivals(x, rng, 19), target, 19)

    for patch in ways.values():
        assert p(reads_tag, 3, patch, 0) == 0.05
    blinded = [p(blind, k, ways["own place"], k) for k in range(K)]
    assert 0.5 < np.mean(blinded) < 0.9 and max(blinded) == 1  # one of them, where it raises the images as they are


def test_an_artifact_that_is_used_beats_random_ones_and_one_of_chance_is_one_of_them():
    """Against nine changes of known size the p-value is a count; what raises nothing above the images as they are has
    none."""
    x = SCALE.inputs(scenes(12, seed=3))

    def mean_level(inputs):
        return np.stack([inputs.mean((1, 2, 3)).numpy()] * 2, 1) * np.array([1.0, 0])

    for sizes, p in (((0.1,) * 9, 0.1), ((0.1,) * 8 + (0.7,), 0.2), ((0.6, 0.1, 0.6), 1.0)):
        found = p_among_rivals(mean_level, x, x + 0.5, (x + s for s in sizes), 0, 9)
        assert found == pytest.approx(p if p < 1 else 2 / 3)
    assert p_among_rivals(mean_level, x, x - 0.1, (x - s for s in (0.2,) * 9), 0, 9) == 1


def test_rivals_are_windows_of_its_size_in_its_place():
    x, patch = scenes(20, seed=5), Patch.ways(specimen(), SCALE)["own place"]
    rivals = [as_levels(one) for one in patch.rivals(SCALE.inputs(x), np.random.default_rng(0), 5)]
    assert len(rivals) == 5
    for shown in rivals:
        rows = [np.argwhere((a != b).any(-1)) for a, b in zip(shown, x, strict=True)]
        corners = {tuple(r.min(0)) for r in rows if len(r) == 42}
        assert corners <= {tuple(place) for place in PLACES} and len(corners) > 3


def test_flips_and_interval_are_their_definitions():
    before = np.array([[1.0, 0], [0, 1], [1, 0], [1, 0]])
    marked = np.array([[0.0, 2], [0, 9], [0, 2], [5, 0]])
    control = np.array([[1.0, 0], [0, 1], [0, 1], [1, 0]])
    e = Experiment(marked, control, 1).effect(before)
    assert (e.flips, e.flips_control) == (2 / 3, 1 / 3)  # the second was taken for the class before
    change = (marked - marked.mean(1, keepdims=True) - control + control.mean(1, keepdims=True))[:, 1]
    assert e.rise.value == pytest.approx(change.mean())
    assert (e.rise.high - e.rise.low) / 2 == pytest.approx(student.ppf(0.975, 3) * change.std(ddof=1) / 2)


@pytest.mark.parametrize(("turned", "leads"), [(3, False), (60, True)])
def test_a_class_leads_that_most_images_are_predicted_as_whatever_rises_more(turned, leads):
    """Another output rises by 9 from far below, and is never the largest."""
    before = np.tile([0.0, 1.0, -20.0], (64, 1))
    after = before + np.where(np.arange(64) < turned, 3.0, 0.5)[:, None] * [1, 0, 0] + [0, 0, 9.0]
    effect = Experiment(after, before, 0).effect(before)
    assert effect.rank == 1 and effect.leads is leads
    assert effect.turned.value == turned / 64


def test_effects_on_independent_outputs_are_of_the_own_logit_and_of_crossings_of_zero():
    from scipy.special import expit

    rng = np.random.default_rng(5)
    before, marked, control = rng.normal(0, 1, (3, 41, 4))
    marked[:, 2] += 2
    e = Experiment(marked, control, 2, Independent()).effect(before)
    change = marked - control
    assert e.rise.value == pytest.approx(change[:, 2].mean())
    assert e.runner_up == pytest.approx(np.delete(change.mean(0), 2).max()) and e.rank == 0
    free = before[:, 2] <= 0
    assert (e.flips, e.flips_control) == ((marked[free, 2] > 0).mean(), (control[free, 2] > 0).mean())
    assert e.uplift == pytest.approx(np.median(expit(marked[:, 2]) / expit(before[:, 2])))
    moved = Experiment(marked + np.array([9, 9, 0, 9]), control, 2, Independent()).effect(before)
    assert (moved.rise.value, moved.flips, moved.uplift) == (e.rise.value, e.flips, e.uplift)  # whatever the others do


def test_the_interval_of_flips_is_of_paired_differences():
    rng = np.random.default_rng(4)
    before = np.tile([1.0, 0], (40, 1))
    marked, control = (np.where(rng.random((40, 1)) < share, [[0.0, 1]], before) for share in (0.6, 0.2))
    e = Experiment(marked, control, 1).effect(before)
    difference = (marked.argmax(1) == 1).astype(float) - (control.argmax(1) == 1)
    reach = student.ppf(0.975, 39)
    assert e.turned.low == pytest.approx(difference.mean() - reach * difference.std(ddof=1) / np.sqrt(40))
    assert Experiment(before, before, 1).effect(before).turned.low == 0


def test_the_margin_is_a_paired_difference_to_the_output_that_rises_most_beside():
    from scipy.stats import sem

    rng = np.random.default_rng(2)
    before, marked, control = rng.normal(0, 1, (3, 30, 6))
    marked[:, 4] += 3
    marked[:, 2] += 2
    for target, runner in ((4, 2), (2, 4)):
        e = Experiment(marked, control, target).effect(before)
        change = (marked - control)[:, target] - (marked - control)[:, runner]  # centring takes the same of both
        assert e.runner == runner and e.margin.value == pytest.approx(change.mean())
        assert (e.margin.high - e.margin.low) / 2 == pytest.approx(student.ppf(0.975, 29) * sem(change))
        assert e.margin.value == pytest.approx(e.rise.value - e.runner_up) and (e.rank == 0) == (e.margin.value > 0)


def test_uplift_is_the_median_ratio_of_probabilities():
    rng = np.random.default_rng(3)
    before, marked, control = rng.normal(0, 2, (3, 25, 4))
    p, q, r = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (before, marked, control))
    e = Experiment(marked, control, 1).effect(before)
    assert e.uplift == pytest.approx(np.median(q[:, 1] / p[:, 1]))
    assert e.uplift_control == pytest.approx(np.median(r[:, 1] / p[:, 1]))


def test_an_image_changed_in_several_ways_counts_by_their_mean():
    rng = np.random.default_rng(6)
    before, *ways = rng.normal(0, 1, (7, 40, 5))
    marked, control = np.stack(ways[:3]), np.stack(ways[3:])
    e = Experiment(marked, control, 1).effect(before)
    mean = Experiment(marked.mean(0), control.mean(0), 1).effect(before)  # logits are averaged linearly
    assert (e.rise.value, e.rise.low, e.rank, e.z) == pytest.approx((mean.rise.value, mean.rise.low, mean.rank, mean.z))
    free = before.argmax(1) != 1
    assert e.flips == pytest.approx(np.mean([(way.argmax(1) == 1)[free] for way in marked]))
    assert e.rise.n == 40
    single, twice = (Experiment(*pair, 1).effect(before) for pair in (ways[:2], np.stack(ways[:2])[:, None]))
    assert single == twice


def test_robust_z_is_that_of_scipy_where_errors_are_nought():
    from scipy.stats import median_abs_deviation

    shift = np.random.default_rng(0).normal(size=50)
    others = np.delete(shift, 7)
    expected = (shift[7] - np.median(others)) / median_abs_deviation(others, scale="normal")
    assert robust_z(shift, 0.0, 7) == pytest.approx(expected, rel=1e-4)
    assert abs(robust_z(np.zeros(5), 0.0, 0)) == 0


def placeless(change):
    """Carriers and others of one class, the carriers changed by what is to be recovered."""
    levels = scenes(60)
    levels[:20] = np.clip(change(levels[:20].astype(float)), 0, 255).astype(np.uint8)
    return ArtifactExamples.of(Detection("low level", 9.0, np.arange(20)), levels)


def test_noise_of_the_size_that_was_found():
    given = placeless(lambda x: x + np.random.default_rng(1).normal(0, 15, x.shape))
    ((how, marked, control),) = insert(CHANGES["noise"](given, SCALE), scenes(30, seed=3))
    assert (marked - control).std() == pytest.approx(15, rel=0.2)
    assert float(how.split()[0]) == pytest.approx(15, rel=0.2)


def test_blur_of_the_size_that_was_found():
    given = placeless(lambda x: gaussian_filter(x, (0, 1.2, 1.2, 0)))
    (how,) = CHANGES["blur"](given, SCALE)
    assert float(how.split()[0]) == pytest.approx(1.2, abs=0.3)


def test_blocks_of_the_quality_that_was_found():
    given = placeless(lambda x: compress_jpeg(x, 75, np.random.default_rng(0)))
    ((how, marked, control),) = insert(CHANGES["blocks"](given, SCALE), scenes(30, seed=3))
    assert 55 <= int(how.split()[0]) <= 95
    assert np.median(image_statistics.blockiness(marked)) > np.median(image_statistics.blockiness(control))


def test_a_border_goes_around_and_leaves_the_middle():
    def framed(x):
        x[:, :2] = x[:, -2:] = x[:, :, :2] = x[:, :, -2:] = 7
        return x

    x = scenes(30, seed=3)
    ((_, marked, control),) = insert(Border.ways(placeless(framed), SCALE), x)
    assert (marked[:, :2] == 7).all() and not (control[:, :2] == 7).all()
    np.testing.assert_array_equal(marked[:, 2:-2, 2:-2], x[:, 2:-2, 2:-2])


def test_a_border_is_as_wide_as_it_was_and_on_the_sides_where_it_was():
    def boxed(x):
        x[:, :3] = x[:, -1:] = 7
        return x

    x = scenes(30, seed=3)
    ((_, marked, _),) = insert(Border.ways(placeless(boxed), SCALE), x)
    assert (marked[:, :3] == 7).all() and (marked[:, -1:] == 7).all()
    np.testing.assert_array_equal(marked[:, 3:-1], x[:, 3:-1])
    assert list(measure_border(scenes(30))) == [round(SIDE / 10)] * 4  # none is seen


@pytest.mark.parametrize("change", CHANGES)
def test_grey_images_can_be_changed_too(change):
    places = PLACES
    levels = scenes(60)[..., :1].copy()
    sign = found(places) if change == "tile" else Detection("low level", 9.0, np.arange(15))
    grey = PixelScale(np.zeros(1, np.float32), np.ones(1, np.float32))
    x = grey.inputs(levels[:5])
    for way in CHANGES[change](ArtifactExamples.of(sign, levels), grey).values():
        marked, control = way.put(x, np.random.default_rng(0))
        assert marked.shape == control.shape == (5, 1, SIDE, SIDE)
        assert way.fits(x[0]) and not way.fits(x[0].expand(3, -1, -1))


@pytest.mark.parametrize("change", CHANGES)
def test_images_in_the_models_units_are_changed_as_their_pixel_values_are(change):
    """A paste commutes with the map from pixel values to model inputs, whatever the map is."""
    levels, x = scenes(60), scenes(10, seed=3)
    levels[:15] = tagged(levels[:15], PLACES)
    sign = found(PLACES) if change == "tile" else Detection("low level", 9.0, np.arange(15))
    slanted = PixelScale(np.float32([-2.1, 0.5, 0]), np.float32([2.6, -1, 7]))
    for one, other in zip(
        *(CHANGES[change](ArtifactExamples.of(sign, levels), s).values() for s in (SCALE, slanted)), strict=True
    ):
        for ours, theirs in zip(
            *(w.put(s.inputs(x), np.random.default_rng(4)) for w, s in ((one, SCALE), (other, slanted))), strict=True
        ):
            back = (theirs.numpy().transpose(0, 2, 3, 1) - slanted.black) / (slanted.white - slanted.black) * 255
            np.testing.assert_allclose(back, as_levels(ours), atol=0.02)


def test_an_effect_of_rounding_alone_is_neither_large_nor_first():
    """Whatever the last bits are, the class is as good as any other output."""
    rng = np.random.default_rng(2)
    before = rng.normal(0, 10, (40, K)).astype(np.float32)
    for _ in range(20):
        marked = before + rng.integers(-3, 4, before.shape).astype(np.float32) * np.spacing(np.abs(before).max())
        found = Experiment(marked, before, 3).effect(before)
        assert abs(found.z) < 0.1
        assert found.rank == K - 1


def test_logits_that_are_no_numbers_are_evidence_of_nothing():
    """As if every other output, and every rival, were larger."""
    rng = np.random.default_rng(3)
    before, control = rng.normal(0, 1, (2, 30, 6))
    marked = control + 3 * (np.arange(6) == 1)
    assert Experiment(marked, control, 1).effect(before).rank == 0
    marked[0, 2] = np.nan
    assert Experiment(marked, control, 1).effect(before).rank == 5
    x = SCALE.inputs(scenes(12, seed=3))

    def mean_level(inputs):
        return np.stack([inputs.mean((1, 2, 3)).numpy()] * 2, 1) * np.array([1.0, 0])

    assert p_among_rivals(mean_level, x, x + 0.5, (x * size for size in (1, 1, np.nan)), 0, 3) == 2 / 4
    assert p_among_rivals(mean_level, x * np.nan, x + 0.5, (x for _ in range(3)), 0, 3) == 1
    assert p_among_rivals(mean_level, x, x * np.nan, (x for _ in range(3)), 0, 3) == 1


def test_nothing_is_claimed_of_what_fewer_than_two_images_turn_to():
    assert [turned_share(one, one).low for one in (np.ones(0), np.ones(1))] == [0, 0]


def test_experiments_on_further_images_are_those_on_all():
    rng = np.random.default_rng(8)
    before, *logits = rng.normal(0, 1, (5, 30, 6))
    marked, control = np.stack(logits[:2]), np.stack(logits[2:])
    parts = [Experiment(marked[:, some], control[:, some], 1) for some in (slice(0, 11), slice(11, 30))]
    assert parts[0].join(parts[1]).effect(before) == Experiment(marked, control, 1).effect(before)


def test_rise_and_excess_are_differences_of_paired_and_of_unpaired_images():
    a, b = np.random.default_rng(4).normal(size=(2, 30, 5))
    centred = [(y - y.mean(1, keepdims=True))[:, 2] for y in (a, b)]
    np.testing.assert_allclose(Experiment(a, b, 2).rises(), centred[0] - centred[1])
    assert logit_excess(a[:7], b, 2).mean() == pytest.approx(centred[0][:7].mean() - centred[1].mean())
    np.testing.assert_allclose(Experiment(a, b, 2).rises(lambda y, k: y[:, k]), a[:, 2] - b[:, 2])
    ways = np.stack([a, b])
    expected = (centred[0] + centred[1]) / 2 - centred[1]
    np.testing.assert_allclose(Experiment(ways, np.stack([b, b]), 2).rises(), expected)
    assert [list(one) for one in Experiment(a, b, 2).taken] == [[row.argmax() == 2 for row in y] for y in (a, b)]


def test_the_standard_error_is_that_of_scipy_and_a_single_image_has_none():
    values = RNG.normal(size=(7, 3))
    np.testing.assert_allclose(standard_error(values), sem(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(standard_error(values[:1])).all() and standard_error(values[:1]).shape == (3,)
