"""Trust: false alarms as often as said, worse estimates found, and the promise block by block."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2, norm

from klarsicht.burst.data.cokriging import MOSAICS, interpolate_mosaic, measured_mask, take_samples
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.merging import motion_check
from klarsicht.burst.merging.motion_check import ClippingLimits, Reference
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 1e-3)
SIZE = (256, 256)


@pytest.fixture(scope="module")
def truth():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    return (0.3 + 0.2 * np.sin(x / 17) * np.cos(y / 23))[None].repeat(3, 0).astype(np.float32)


def noisy(truth, seed):
    return LEVEL.sample(truth, np.random.default_rng(seed))


def failing_windows(reference, estimate):
    """Of 16 x 16 pixels."""
    blocks = motion_check.sum_blocks(reference, estimate, reference.light - estimate)
    return motion_check.find_failing_windows([*motion_check.window_sums(blocks, motion_check.WINDOW_SIDES)][1])


@pytest.mark.parametrize("size", [(64, 96), (70, 101)])
def test_sums_over_windows_are_those_over_their_pixels(size):
    values = torch.from_numpy(np.random.default_rng(0).random((2, 3, *size)))
    wide = np.pad(values.numpy(), ((0, 0), (0, 0), (0, 64), (0, 64)))
    blocks = motion_check._sum_blocks(values, 4)
    for side, sums in zip((8, 16, 32), motion_check.window_sums(blocks, (8, 16, 32)), strict=True):
        step = side // 2
        assert sums.shape[2:] == (-(-size[0] // step), -(-size[1] // step))
        for y, x in [(0, 0), (1, 2), (sums.shape[2] - 1, sums.shape[3] - 1)]:
            wanted = wide[:, :, y * step : y * step + side, x * step : x * step + side].sum((2, 3))
            np.testing.assert_allclose(sums[:, :, y, x], wanted)


@pytest.mark.parametrize("behind_mosaic", [False, True])
@pytest.mark.parametrize("limits", [ClippingLimits(), ClippingLimits(high=0.9), ClippingLimits(0.0, 0.9)])
def test_sums_over_blocks_are_those_of_the_model(limits, behind_mosaic):
    """By numpy and scipy, pixel by pixel: light from black to beyond white, sides that blocks do not divide."""
    rng, levels = np.random.default_rng(7), [LEVEL, NoiseLevel(0.01, 4e-3)]
    E = np.clip(np.linspace(-0.05, 1.05, 45, dtype=np.float32) + np.zeros((2, 26, 1), np.float32), -np.inf, limits.high)
    X = np.clip(E + 0.03 * rng.standard_normal(E.shape), limits.low, limits.high).astype(np.float32)
    measured = rng.random(E.shape) < 0.5 if behind_mosaic else None
    got = motion_check.sum_blocks(Reference(X, levels, limits, measured), E, X - E).numpy()
    v = np.stack([level.variance(np.maximum(plane, 0)) for level, plane in zip(levels, E.astype(float), strict=True)])
    s, counts = np.sqrt(v), np.ones(E.shape, bool) if measured is None else measured
    at_white = (limits.high - motion_check.NEAR * s <= E) & (limits.high - 2 * motion_check.NEAR * s <= X)
    at_black = (limits.low + motion_check.NEAR * s >= E) & (limits.low + 2 * motion_check.NEAR * s >= X)
    usable = counts & ~at_white & ~at_black
    expected = [usable, usable * (X - E) ** 2 / v, usable * (X - E), usable * v]
    if np.isfinite(limits.high):
        below, clipped = (limits.high - E) / s, limits.high <= X
        for sign in (1, -1):
            p = np.where(below <= 7, norm.cdf(sign * motion_check.CLIPPED_MEAN_TOLERANCE - below), 0)
            countable = counts & (below > motion_check.AT_LIMIT)
            expected += [countable * sign * (clipped - p), countable * p * (1 - p)]
    wide = np.pad(np.array(expected), ((0, 0), (0, 0), (0, 2), (0, 3)))
    blocks = wide.reshape(len(expected), 2, 7, 4, 12, 4).sum((3, 5))
    np.testing.assert_allclose(got, blocks, atol=1e-4, rtol=1e-4)


def test_the_bound_is_that_of_chi_squared():
    n = torch.tensor([64.0, 256.0, 4096.0])
    np.testing.assert_allclose(
        motion_check.chi_squared_bound(n).numpy(), chi2.isf(motion_check.FALSE_ALARMS, n) / n, rtol=0.01
    )


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_the_truth_is_doubted_as_seldom_as_said(truth, rate, monkeypatch):
    """Windows of the truth itself under pure noise; two tests each."""
    monkeypatch.setattr(motion_check, "FALSE_ALARMS", rate)
    monkeypatch.setattr(motion_check, "LEAVE", 1.0)
    failed = windows = 0
    for seed in range(20):
        fails = failing_windows(Reference(noisy(truth, seed), [LEVEL] * 3, ClippingLimits()), truth)
        failed, windows = failed + int(fails.sum()), windows + fails.numel()
    assert 0.3 * rate < failed / windows < 3.5 * rate


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_what_was_measured_behind_a_mosaic_is_doubted_as_seldom_as_said(truth, cell, monkeypatch):
    """The noise of samples is white, whatever interpolation makes of them elsewhere."""
    rate, measured = 1e-2, measured_mask(cell, SIZE)
    monkeypatch.setattr(motion_check, "FALSE_ALARMS", rate)
    monkeypatch.setattr(motion_check, "LEAVE", 1.0)
    failed = windows = 0
    for seed in range(20):
        X = interpolate_mosaic(take_samples(noisy(truth, seed), cell), cell)
        fails = failing_windows(Reference(X, [LEVEL] * 3, ClippingLimits(), measured), truth)
        failed, windows = failed + int(fails.sum()), windows + fails.numel()
    assert 0.3 * rate < failed / windows < 3.5 * rate


@pytest.mark.parametrize("harm", ["ghost", "blur", "dim"])
def test_what_is_worse_than_noise_is_doubted_and_only_there(truth, harm):
    estimate = truth.copy()
    there = (slice(None), slice(96, 160), slice(96, 160))
    if harm == "ghost":
        estimate[there] += np.float32(0.08)
    elif harm == "dim":
        estimate[there] *= np.float32(0.9)
    else:
        texture = 0.06 * np.random.default_rng(1).choice([-1, 1], (1, 64, 64)).astype(np.float32)
        truth = truth.copy()
        truth[there] += texture
    doubt = motion_check.find_failing_pixels(Reference(noisy(truth, 2), [LEVEL] * 3), estimate)
    assert doubt[100:156, 100:156].all()
    outside = doubt.copy()
    outside[64:192, 64:192] = False
    assert not outside.any()


def test_a_saturated_light_is_kept_and_not_doubted(truth):
    bright = truth.copy()
    bright[:, 100:140, 100:140] = 1.5
    reference = np.minimum(noisy(bright, 3), 1)
    mean = np.mean([np.minimum(noisy(bright, s), 1) for s in range(10, 18)], 0).astype(np.float32)
    verdict = motion_check.check_estimates(
        Reference(reference, [LEVEL] * 3, ClippingLimits(high=1 - 1e-6)), [lambda doubt: mean]
    )
    assert verdict.shares[0].min() > 0.99
    mixed = verdict.mix([mean], reference)
    assert (mixed[:, 104:136, 104:136] == 1).all()


@pytest.mark.parametrize(("n", "p"), [(64, 0.01), (64, 0.3), (1024, 0.05), (1024, 0.5)])
@pytest.mark.parametrize("rate", [1e-2, 1e-6])
def test_clipped_pixels_exceed_the_bound_no_more_often_than_said(n, p, rate):
    """Against the binomial distribution itself; and not a bound that nothing reaches."""
    bound = float(motion_check.bernstein_bound(torch.tensor(n * p * (1 - p)), rate))
    assert binom.sf(np.floor(n * p + bound), n, p) <= rate
    assert binom.isf(rate, n, p) - n * p > 0.4 * bound


def test_light_below_white_is_doubted_where_all_is_white(truth):
    """A light far above white: the residual there is cut off and says nothing, the number of white pixels does."""
    bright, limits = truth.copy(), ClippingLimits(high=1 - 1e-6)
    there = (slice(None), slice(96, 160), slice(96, 160))
    bright[there] = 3
    reference, estimate = np.minimum(noisy(bright, 5), 1), np.minimum(bright, 1)
    assert not motion_check.find_failing_pixels(Reference(reference, [LEVEL] * 3, limits), estimate).any()
    estimate[there] = 1 - LEVEL.deviation(np.float32(1))
    doubt = motion_check.find_failing_pixels(Reference(reference, [LEVEL] * 3, limits), estimate)
    assert doubt[100:156, 100:156].all() and not doubt[:64].any()


@pytest.mark.parametrize("light", [0.93, 0.98, 1.0, 1.05])
def test_the_mean_of_clipped_frames_is_hardly_doubted(truth, light):
    """It lacks what was cut off, four tenths of a deviation at the limit, and is still the better picture."""
    flat, limits = np.full_like(truth, light), ClippingLimits(high=1 - 1e-6)
    frames = [np.minimum(noisy(flat, seed), 1) for seed in range(8)]
    mean = np.mean(frames, 0).astype(np.float32)
    assert np.square(mean - min(light, 1)).mean() <= np.square(frames[0] - min(light, 1)).mean()
    assert motion_check.find_failing_pixels(Reference(frames[0], [LEVEL] * 3, limits), mean).mean() < 0.05


@pytest.mark.parametrize("light", [0.0, 0.01, 0.02, 0.04, 0.06, 0.1])
def test_the_mean_of_frames_cut_off_at_black_is_not_doubted(truth, light):
    """As in 8-bit pictures, from black to five deviations of the noise."""
    flat = np.full_like(truth, light)
    frames = [np.maximum(noisy(flat, seed), 0) for seed in range(8)]
    mean = np.mean(frames, 0).astype(np.float32)
    assert not motion_check.find_failing_pixels(Reference(frames[0], [LEVEL] * 3, ClippingLimits(low=0.0)), mean).any()


def test_the_next_best_is_taken_and_only_made_where_wanted(truth):
    reference, made = noisy(truth, 4), []
    wrong = truth.copy()
    wrong[:, :64] += np.float32(0.3)

    def second(doubt):
        made.append(doubt)
        return truth

    verdict = motion_check.check_estimates(Reference(reference, [LEVEL] * 3), [lambda doubt: wrong, second])
    assert verdict.estimate_numbers == (0, 1)
    assert (made[0][:64] == 1).all() and (made[0][64 + motion_check.CHECK_MARGIN :] == 0).all()
    np.testing.assert_allclose(verdict.mix([wrong, truth], reference), truth, atol=1e-6)
    untouched = motion_check.check_estimates(Reference(reference, [LEVEL] * 3), [lambda doubt: truth, second])
    assert len(made) == 1 and untouched.estimate_numbers == (0,)


def test_later_estimates_are_tested_only_where_they_are_wanted_and_alike(truth, monkeypatch):
    reference, wrong, second = noisy(truth, 6), truth.copy(), truth.copy()
    wrong[:, 10:30, 200:230] += np.float32(0.3)
    second[:, 20:40, 210:240] += np.float32(0.3)
    makers = [lambda doubt: wrong, lambda doubt: second]
    found = motion_check.check_estimates(Reference(reference, [LEVEL] * 3), makers)
    monkeypatch.setattr(motion_check, "cover_marked", lambda marked, margin, **_: [Window(0, *SIZE[:1], 0, SIZE[1])])
    everywhere = motion_check.check_estimates(Reference(reference, [LEVEL] * 3), makers)
    np.testing.assert_array_equal(found.shares, everywhere.shares)
    assert found.shares[1].max() > 0 and found.shares.sum(0).min() == 0


def test_a_part_with_its_margin_is_as_the_whole(truth):
    reference, estimate = noisy(truth, 5), truth.copy()
    estimate[:, 90:120, 60:200] += np.float32(0.05)
    whole = motion_check.check_estimates(Reference(reference, [LEVEL] * 3), [lambda doubt: estimate]).shares[0]
    part = (slice(None), slice(32, 224), slice(32, 224))
    cut = motion_check.check_estimates(Reference(reference[part], [LEVEL] * 3), [lambda doubt: estimate[part]]).shares[
        0
    ]
    inner = slice(motion_check.CHECK_MARGIN, -motion_check.CHECK_MARGIN)
    np.testing.assert_array_equal(cut[inner, inner], whole[32:224, 32:224][inner, inner])


@pytest.mark.parametrize("seed", range(3))
def test_never_worse_than_the_reference(truth, seed):
    """Wherever an estimate is wrong by any amount: blocks of 32 x 32 are no worse than the reference's."""
    rng = np.random.default_rng(seed)
    estimate = truth + 0.02 / 8**0.5 * rng.standard_normal(truth.shape).astype(np.float32)
    for _ in range(12):
        y, x = rng.integers(0, 224, 2)
        h, w = rng.integers(4, 64, 2)
        estimate[:, y : y + h, x : x + w] += np.float32(rng.normal() * 10 ** rng.uniform(-2.5, 0))
    reference = noisy(truth, 100 + seed)
    picture = motion_check.check_estimates(Reference(reference, [LEVEL] * 3), [lambda doubt: estimate]).mix(
        [estimate], reference
    )
    errors = [np.square(x - truth).reshape(3, 8, 32, 8, 32).mean((0, 2, 4)) for x in (picture, reference)]
    assert (errors[0] <= 1.02 * errors[1]).all()
    assert errors[0].mean() < 0.7 * errors[1].mean()
