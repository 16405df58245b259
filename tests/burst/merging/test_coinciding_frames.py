"""Mixture with the mean of frames that coincide: closed forms, impulses, and what must stay as it was."""

import numpy as np
import pytest

from klarsicht.burst.merging.coinciding_frames import mean_variance, mix_with_mean
from klarsicht.burst.merging.filters import MeanFilter
from klarsicht.burst.merging.motion_check import NO_LIMITS, ClippingLimits
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

N, SIZE = 8, (288, 288)
LEVEL = NoiseLevel(0.05, 0.0)


class Smoother:
    """Weights of the factor `centre` on each pixel of each frame; the rest is the light, wrong by `bias`."""

    def __init__(self, frames, centre, rest):
        self.frames, self.centre, self.rest = frames, centre, rest

    def centre_weights(self, frames, pattern=None):
        return np.full((len(frames), *SIZE), self.centre, np.float32)

    def __call__(self, frames=None):
        own = (self.frames if frames is None else frames).sum(0) * np.float32(self.centre)
        return own + (self.rest if frames is None else 0)


def tripod_burst(bias, centre=0.0, level=LEVEL, light=0.4):
    """Light x, frames of it, and a filter whose picture is x + bias + centre (sum of frames - N x)."""
    x = np.full((4, *SIZE), light, np.float32)
    rng = np.random.default_rng(1)
    frames = np.stack([level.sample(x, rng) for _ in range(N)])
    return x, frames, Smoother(frames, centre, (1 - N * np.float32(centre)) * x + np.float32(bias))


def mixed(frames, smoother, coinciding=None, level=LEVEL, limits=NO_LIMITS):
    shown = np.ones((N, *SIZE), np.float32) if coinciding is None else coinciding
    return mix_with_mean(smoother, frames, shown, [level] * 4, limits)


@pytest.mark.parametrize(("bias", "centre"), [(0.05, 0.0), (0.05, 0.05), (0.1, 0.02)])
def test_as_much_is_taken_of_the_mean_as_makes_the_error_least(bias, centre):
    """Errors b + c sum n_i and sum n_i / N with the covariance c s^2; the slack of two deviations is taken off."""
    _, frames, smoother = tripod_burst(bias, centre)
    s2, n = LEVEL.read**2, 81 * 4
    better, square = (1 / N - centre) * s2, bias**2 + N * (1 / N - centre) ** 2 * s2
    share = better / (square - 2 * np.sqrt(2 / n) * s2 / N)
    assert mixed(frames, smoother).share.mean() == pytest.approx(share, rel=0.05)


def test_what_is_smoothed_away_is_kept_and_what_is_right_is_taken():
    x, frames, right = tripod_burst(0.0)
    assert mixed(frames, right).share.mean() > 0.99
    x, frames, wrong = tripod_burst(0.04)  # .8 deviations of a frame's noise, 2.3 of the mean's
    error = np.square(mixed(frames, wrong)() - x).mean()
    assert error < 0.0013 < 0.0016 == pytest.approx(np.square(wrong() - x).mean(), rel=0.01)


def test_weights_are_those_of_the_picture():
    """An impulse in a frame shows the weight of its own pixel."""
    _, frames, smoother = tripod_burst(0.05, 0.05)
    weights = mixed(frames, smoother)
    for frame, y, x in ((0, 5, 7), (3, 200, 100)):
        impulse = np.zeros_like(frames)
        impulse[frame, :, y, x] = 1
        assert weights(impulse)[0, y, x] == pytest.approx(weights.centre_weights([frame])[0, y, x], abs=1e-6)


def test_a_mean_of_different_things_has_no_say():
    """From the second frame on something else is shown on the right, by one deviation."""
    _, frames, smoother = tripod_burst(0.04)
    frames[1:, :, :, SIZE[1] // 2 :] += np.float32(LEVEL.read)
    share = mixed(frames, smoother).share
    assert share[:, : SIZE[1] // 2 - 40].mean() < 0.6
    assert share[:, SIZE[1] // 2 + 40 :].min() == 1


def test_frames_that_do_not_coincide_have_no_part_in_the_mean():
    _, frames, smoother = tripod_burst(0.04)
    shown = np.ones((N, *SIZE), np.float32)
    shown[5] = 0
    weights = mixed(frames, smoother, shown)
    assert weights.mean.share[5].max() == 0
    assert weights.mean.share[0] == pytest.approx(1 / (N - 1))


@pytest.mark.parametrize("light", [0.0, 0.05, 0.2])
def test_the_variance_of_frames_clipped_at_black_is_that_of_drawn_ones(light):
    _, frames, _ = tripod_burst(0.0, level=NoiseLevel(0.05, 0.01), light=light)
    frames = np.maximum(frames, 0)
    v = mean_variance(frames.mean(0), [NoiseLevel(0.05, 0.01)] * 4, ClippingLimits(0.0))
    assert v.mean() == pytest.approx(frames.var(0, ddof=1).mean(), rel=0.05)


def test_mixing_a_mean_with_itself_changes_nothing():
    _, frames, _ = tripod_burst(0.0)
    weights = MeanFilter().compute_weights(frames, [LEVEL] * 4, np.ones((N, *SIZE), np.float32))
    np.testing.assert_allclose(mixed(frames, weights)(), weights(), atol=1e-6)
