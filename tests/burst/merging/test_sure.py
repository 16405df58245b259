"""Risk: weights against closed forms, centres against impulses, and blocks that are not worse whatever is wrong."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from tests.marks import slow_but_first

from klarsicht.burst.data.cokriging import MOSAICS, measured_mask, sample_weights
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.merging import motion_check, sure
from klarsicht.burst.merging.filters import MeanFilter, NetworkFilter
from klarsicht.burst.merging.motion_check import NO_LIMITS, ClippingLimits, Reference
from klarsicht.burst.merging.sure import LightEstimate, Risk
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.05, 0.0)
SIZE = (288, 288)


def own(c):
    return np.full(SIZE, c, np.float32)


def observed(seed, c, bias, channels=1):
    """X, and an estimate x + bias + c n, which takes the part c of X's own pixel."""
    x = np.full((channels, *SIZE), 0.4, np.float32)
    n = np.random.default_rng(seed).standard_normal(x.shape).astype(np.float32) * np.float32(LEVEL.read)
    return x, x + n, LightEstimate(x + np.float32(bias) + np.float32(c) * n, own(c))


@pytest.mark.parametrize(("c", "bias"), [(0.0, 0.05), (0.125, 0.05), (0.45, 0.05), (0.3, 0.1), (0.0, 0.5)])
def test_as_much_is_taken_as_makes_the_error_least(c, bias):
    """Of x + b + c n as much as (1 - c) s^2 / (b^2 + (1 - c)^2 s^2), with four channels to average over."""
    _, X, estimate = observed(1, c, bias, channels=4)
    (a,) = Risk(X, [LEVEL] * 4, NO_LIMITS).mixture_shares([estimate])
    s = LEVEL.read
    assert a.mean() == pytest.approx((1 - c) * s**2 / (bias**2 + (1 - c) ** 2 * s**2), rel=0.04, abs=1e-3)


def test_of_two_the_better_mixture_is_taken():
    """Independent errors b, c with the same weight on X: the least error is at weights in the ratio of 1 / b^2."""
    x = np.full((4, *SIZE), 0.4, np.float32)
    rng = np.random.default_rng(2)
    X, first, second = (x + s * rng.standard_normal(x.shape).astype(np.float32) for s in (0.05, 0.04, 0.02))
    shares = Risk(X, [LEVEL] * 4, NO_LIMITS).mixture_shares(
        [LightEstimate(first, own(0)), LightEstimate(second, own(0))]
    )
    precision = np.array([1 / 0.04**2, 1 / 0.02**2, 1 / 0.05**2])
    np.testing.assert_allclose(shares.mean((1, 2)), precision[:2] / precision.sum(), atol=0.03)


def cut_off(t, c, bias, shot):
    """Light of t deviations above black, X cut off there, and an estimate that takes the part c of X; what X is without
    being cut off."""
    level = NoiseLevel(LEVEL.read, shot)
    x = np.full((4, *SIZE), t * LEVEL.read, np.float32)
    rng, s = np.random.default_rng(9), level.deviation(x)
    Y = x + s * rng.standard_normal(x.shape).astype(np.float32)
    alone = np.maximum(x + s * np.float32(bias), 0) + 0.3 * s * rng.standard_normal(x.shape).astype(np.float32)
    X = np.maximum(Y, 0)
    return level, x, X, LightEstimate((1 - np.float32(c)) * alone + np.float32(c) * X, own(c)), Y


BLACK = ClippingLimits(0.0)


@pytest.mark.parametrize("shot", [0.0, 0.02])
@pytest.mark.parametrize("c", [0.0, 0.3])
@pytest.mark.parametrize(("t", "bias"), [(0, 0), (0, 0.5), (0.5, 1), (1, 0), (1, -1), (2, 1), (4, 1)])
def test_what_is_cut_off_at_black_counts_as_it_should(t, bias, c, shot):
    """The share of least error follows from the truth by least squares; it is met from X alone."""
    level, x, X, estimate, _ = cut_off(t, c, bias, shot)
    step = estimate.light - X
    best = np.clip(((x - X) * step).sum() / np.square(step).sum(), 0, 1)
    (a,) = Risk(X, [level] * 4, BLACK).mixture_shares([estimate])
    assert a.mean() == pytest.approx(best, abs=0.15 if bias else 0.04)
    reference, least, found = (np.square(X + share * step - x).mean() for share in (0, best, a))
    assert found <= least + 0.05 * reference


@pytest.mark.parametrize("c", [0.0, 0.3])
@pytest.mark.parametrize(("t", "bias"), [(0, 0), (0.5, 1), (1, -1), (2, 1)])
def test_what_is_cut_off_at_white_counts_alike(t, bias, c):
    """The mirror image of the same with noise that does not depend on the light: the same shares."""
    level, _, X, estimate, _ = cut_off(t, c, bias, 0.0)
    (at_black,) = Risk(X, [level] * 4, BLACK).mixture_shares([estimate])
    mirrored = LightEstimate(1 - estimate.light, estimate.own_weight)
    (at_white,) = Risk(1 - X, [level] * 4, ClippingLimits(high=1.0)).mixture_shares([mirrored])
    np.testing.assert_allclose(at_white, at_black, atol=1e-4)


@pytest.mark.parametrize("bias", [0.02, 0.05])
def test_dark_pixels_beside_saturated_ones_count_with_their_own_noise(bias):
    """Half of the pixels are far above white and as they are in the estimate; of the others as much is taken as their
    own noise and the estimate's error make best, b^2 / (b^2 + s^2) less than all of it."""
    level, dark = NoiseLevel(0.02, 0.02), 0.1
    bright = np.indices(SIZE).sum(0) % 2 == 0
    x = np.broadcast_to(np.where(bright, 4, dark), (4, *SIZE)).astype(np.float32)
    X = np.minimum(level.sample(x, np.random.default_rng(4)), 1)
    estimate = LightEstimate(
        np.where(bright, 1, dark + bias).astype(np.float32) * np.ones((4, 1, 1), np.float32), own(0)
    )
    (a,) = Risk(X, [level] * 4, ClippingLimits(high=1.0)).mixture_shares([estimate])
    s = level.deviation(dark)
    assert a.mean() == pytest.approx(s**2 / (bias**2 + s**2), rel=0.03)


@pytest.mark.parametrize("t", [0, 0.5, 1, 3])
def test_what_was_cut_off_is_expected_where_it_was(t):
    """Against the mean of what was simulated and then cut off."""
    level, x, X, _, Y = cut_off(t, 0.0, 0.0, 0.0)
    expected = Risk(X, [level] * 4, BLACK).unclip_reference(x)
    assert expected[X == 0].mean() == pytest.approx(Y[Y < 0].mean(), rel=0.05)
    np.testing.assert_array_equal(expected[X > 0], X[X > 0])


def test_a_dark_window_in_doubt_is_no_island_of_noise():
    """All of it at black: the mean of seven other frames, cut off as well, is taken nearly whole."""
    level, x, X, _, _ = cut_off(0, 0.0, 0.0, 0.0)
    others = np.maximum(x + LEVEL.read * np.random.default_rng(10).standard_normal((7, *x.shape)), 0)
    estimate = LightEstimate(others.mean(0).astype(np.float32), own(0))
    verdict = motion_check.MotionCheck(np.zeros((1, *SIZE), np.float32), np.zeros_like(X), (0,))
    shares = sure.apply_risk_shares(verdict, Risk(X, [level] * 4, BLACK), [estimate]).shares[0]
    picture = X + shares * (estimate.light - X)
    best = min(np.square(X + a * (estimate.light - X) - x).mean() for a in np.linspace(0, 1, 101))
    assert np.square(picture - x).mean() <= 1.05 * best < np.square(X - x).mean() / 2


def test_what_is_right_is_taken_nearly_whole_and_what_is_lost_is_not():
    _, X, right = observed(3, 0.125, 0.0)
    assert Risk(X, [LEVEL], NO_LIMITS).estimate_share(right).mean() > 0.98
    _, X, wrong = observed(3, 0.125, 0.5)
    assert Risk(X, [LEVEL], NO_LIMITS).estimate_share(wrong).max() < 0.05


@pytest.mark.parametrize("c", [0.0, 0.2, 0.45])
@pytest.mark.parametrize("strength", [0.5, 1, 2, 5])
def test_blocks_are_never_worse_than_the_reference(c, strength):
    """Lost texture of any strength, with estimates that lean on X by any part; tests and risk together."""
    x, X, _ = observed(4, c, 0.0)
    texture = strength * np.float32(LEVEL.read) * np.random.default_rng(5).choice([-1, 1], x.shape).astype(np.float32)
    lost = texture * (np.arange(SIZE[1]) > SIZE[1] // 2)
    X, estimate = X + lost, LightEstimate(x + np.float32(c) * (X + lost - x), own(c))
    verdict = motion_check.check_estimates(Reference(X, [LEVEL]), [lambda doubt: estimate.light])
    verdict = sure.apply_risk_shares(verdict, Risk(X, [LEVEL], NO_LIMITS), [estimate])
    picture = verdict.mix([estimate.light], X)
    worse = blocks(np.square(picture - x - lost)) / blocks(np.square(X - x - lost))
    assert worse.max() <= 1.02
    assert worse[:, :4].mean() < 0.4


def blocks(values):
    Y, X = SIZE[0] // 32, SIZE[1] // 32
    return values.reshape(Y, 32, X, 32).mean((1, 3))


def test_an_estimate_in_doubt_still_gives_what_it_is_good_for():
    """Beside the reference itself, which never fails a test; as much as if there were nothing else."""
    x, X, _ = observed(7, 0.0, 0.0, channels=4)
    estimate, itself = LightEstimate(x + np.float32(2 * LEVEL.read), own(0)), LightEstimate(X, own(1))
    verdict = motion_check.check_estimates(
        Reference(X, [LEVEL] * 4), [lambda doubt: estimate.light, lambda doubt: itself.light]
    )
    assert verdict.shares[0].max() == 0
    shares = sure.apply_risk_shares(verdict, Risk(X, [LEVEL] * 4, NO_LIMITS), [estimate, itself]).shares
    assert shares[0].mean() == pytest.approx(1 / 5, rel=0.05)


@pytest.mark.parametrize("offset", [0, 3])
def test_around_what_moved_shares_pass_softly_and_let_no_ghost_in(offset):
    """A disc is only in the reference. Two means over five pixels change by at most a fifth from pixel to pixel; steps
    at the borders of windows, every fourth pixel, are no larger than between; no block is worse than the reference."""
    x, X, right = observed(12, 0.125, 0.0)
    rows, columns = np.indices(SIZE) - 140 - offset
    disc = (np.square(rows) + np.square(columns) < 40**2) * np.float32(0.3)
    X = X + disc
    verdict, picture = merged(X, right, [LEVEL], NO_LIMITS)
    share = verdict.shares[0]
    assert share[disc > 0].max() < 0.1 and share[:64].mean() > 0.95
    steps = np.abs(np.diff(share, axis=0))
    assert 0.05 < steps.max() <= 0.2 + 1e-6
    at_borders = np.arange(1, SIZE[0]) % 4 == 0
    assert steps[at_borders].mean() < 1.1 * steps[~at_borders].mean()
    worse = blocks(np.square(picture - x - disc)[0]) / blocks(np.square(X - x - disc)[0])
    assert worse.max() <= 1.02


WHITE = ClippingLimits(high=1 - 1e-6)


def merged(X, estimate, levels, limits):
    """The picture of an estimate, after all tests and weights."""
    verdict = motion_check.check_estimates(Reference(X, levels, limits), [lambda doubt: estimate.light])
    verdict = sure.apply_risk_shares(verdict, Risk(X, levels, limits), [estimate])
    return verdict, verdict.mix([estimate.light], X)


def test_where_all_is_white_the_reference_stays():
    X = np.ones((1, *SIZE), np.float32)
    verdict, picture = merged(X, LightEstimate(X - np.float32(0.02), own(0.125)), [LEVEL], WHITE)
    np.testing.assert_array_equal(picture, X)
    assert verdict.shares_of_picture.max() == 0


def test_where_one_channel_is_white_the_others_lose_all_their_noise():
    """Red is far above white and stays as it is; green and blue are those of the estimate, which is the truth; of the
    picture, in the mean over its channels, the estimate makes two thirds."""
    x = np.broadcast_to(np.float32([2, 0.5, 0.2])[:, None, None], (3, *SIZE))
    X = np.minimum(LEVEL.sample(x, np.random.default_rng(11)), 1)
    verdict, picture = merged(X, LightEstimate(np.minimum(x, 1), own(0.0)), [LEVEL] * 3, WHITE)
    np.testing.assert_array_equal(picture[0], 1)
    left = np.square(picture - x)[1:].mean() / np.square(X - x)[1:].mean()
    assert left < 0.01
    assert verdict.shares_of_picture[0].mean() == pytest.approx(2 / 3, abs=0.01)


def test_around_white_pixels_as_much_of_the_channel_is_kept_as_they_are():
    """Counted one by one in the window of 9 x 9 around a pixel."""
    X = np.full((2, *SIZE), 0.5, np.float32)
    X[0, 100:140, 100:103], X[1, 120, 104] = 1, 1
    share = Risk(X, [LEVEL] * 2, WHITE).clipped_share
    for y, x in ((120, 101), (120, 105), (103, 98), (96, 106)):
        window = X[:, y - 4 : y + 5, x - 4 : x + 5]
        np.testing.assert_allclose(share[:, y, x], [np.mean(channel == 1) for channel in window], atol=1e-5)


def interpolated_burst(cell, texture=0.0):
    """Light x of a camera with texture in its colours, its samples with noise, interpolated, the level of the samples,
    the interpolation, and what was measured."""
    noise, level = InterpolatedNoise(cell, (2.0, 1.0, 1.5)), NoiseLevel(0.03, 0.01)
    rng = np.random.default_rng(8)
    x = np.float32([0.2, 0.4, 0.3])[:, None, None] * (1 + texture * rng.choice([-1, 1], (3, *SIZE))).astype(np.float32)
    X = noise.interpolate_samples(level.sample(x, rng))
    return x, X, level, noise, measured_mask(cell, SIZE)


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
@pytest.mark.parametrize(
    ("weights", "bias"), [((0.0, 0.0), 0.03), ((0.2, 0.0), 0.03), ((0.2, 0.1), 0.03), ((0.1, 0.05), 0.05)]
)
def test_of_interpolated_colours_as_much_is_taken_as_makes_the_error_of_samples_least(cell, weights, bias):
    """Beside the share that least squares find from the truth, of x + b + w * n with w on a pixel and its four
    neighbours, n the interpolated noise."""
    x, X, level, _, measured = interpolated_burst(cell)
    kernel = np.zeros((3, 3), np.float32)
    kernel[[0, 1, 1, 2], [1, 0, 2, 1]], kernel[1, 1] = weights[1], weights[0]
    left = np.stack([convolve(plane, kernel, mode="mirror") for plane in X - x])
    c = float((kernel * sample_weights(cell)[2:5, 2:5]).sum())
    estimate = LightEstimate(x + np.float32(bias) + left, own(c))
    step = (estimate.light - X)[measured]
    best = ((x - X)[measured] * step).sum() / np.square(step).sum()
    (a,) = Risk(X, [level] * 3, NO_LIMITS, measured).mixture_shares([estimate])
    assert a.mean() == pytest.approx(best, abs=0.03)


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_the_excess_of_an_error_is_that_beside_the_truth(cell):
    """Of an estimate that is wrong everywhere and keeps a part of the noise, and of one that keeps another part: the
    mean squares of both errors are computed from the truth."""
    x, X, level, _, measured = interpolated_burst(cell)
    first, second = x + np.float32(0.05) + np.float32(0.3) * (X - x), x + np.float32(0.6) * (X - x)
    risk = Risk(X, [level] * 3, NO_LIMITS, measured)
    found = risk.excess_error(LightEstimate(first, own(0.3)), LightEstimate(second, own(0.6)))
    beside = (np.square(first - x) - np.square(second - x))[measured].mean() / level.variance(x)[measured].mean()
    assert found.mean() == pytest.approx(beside, abs=0.15)


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_errors_of_interpolation_do_not_count_against_what_is_right(cell):
    """The truth, where interpolation is wrong by twice the noise and more; taken for noise, they make it doubtful."""
    x, X, level, _, measured = interpolated_burst(cell, texture=0.5)
    right = LightEstimate(x, own(0))
    assert np.square(X - x)[~measured].mean() > 4 * level.variance(x).mean()
    assert Risk(X, [level] * 3, NO_LIMITS, measured).estimate_share(right).mean() > 0.98
    assert Risk(X, [level] * 3, NO_LIMITS).estimate_share(right).mean() < 0.5
    assert not motion_check.find_failing_pixels(Reference(X, [level] * 3, NO_LIMITS, measured), x).any()
    assert motion_check.find_failing_pixels(Reference(X, [level] * 3), x).all()


@pytest.mark.parametrize("preset", slow_but_first(["mean", "swift", "kpn"]))
def test_the_weight_on_a_sample_is_what_its_interpolation_leaves(preset):
    """Weights are linear: applied to what a sample gives to the pixels around it, they give its weight."""
    rng = np.random.default_rng(6)
    frames = rng.random((3, 1, 32, 48), np.float32)
    agreement = np.stack([np.ones((32, 48)), *rng.random((2, 32, 48))]).astype(np.float32)
    weighing = weights_of(preset, frames, agreement, rng)
    pattern = sample_weights(MOSAICS["x-trans"])
    (found,) = weighing.centre_weights([0], pattern)
    for y, x in ((7, 30), (16, 21), (20, 20)):
        seen = np.zeros_like(frames)
        seen[0, 0, y - 3 : y + 4, x - 3 : x + 4] = pattern
        assert found[y, x] == pytest.approx(weighing(seen)[0, y, x], abs=0.02 * float(np.abs(found).max()))


def weights_of(preset, frames, agreement, rng):
    """Weights of the mean, or of a network whose parameters are drawn."""
    if preset == "mean":
        return MeanFilter().compute_weights(frames, [LEVEL], agreement)
    network = build_network(NetworkSettings(preset=preset, width=0.125, frames=4), seed=1).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.from_numpy(rng.standard_normal(parameter.shape, np.float32))
    return NetworkFilter(network).compute_weights(frames, [LEVEL], agreement)


@pytest.mark.parametrize("preset", slow_but_first(["mean", "swift", "mkpn", "kpn"]))
def test_the_centre_is_what_an_impulse_leaves(preset):
    """Weights are linear in the frames they are laid over, so that an impulse in the reference shows them."""
    rng = np.random.default_rng(6)
    frames = rng.random((3, 1, 32, 48), np.float32)
    agreement = np.stack([np.ones((32, 48)), *rng.random((2, 32, 48))]).astype(np.float32)
    weighing = weights_of(preset, frames, agreement, rng)
    (centre,) = weighing.centre_weights([0])
    for y, x in ((0, 0), (7, 30), (16, 21), (31, 47)):
        impulse = np.zeros_like(frames)
        impulse[0, 0, y, x] = 1
        assert centre[y, x] == pytest.approx(weighing(impulse)[0, y, x], abs=1e-5)
