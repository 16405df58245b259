"""Noise against moments, closed forms and the numbers of the protocol."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging import sensor_noise
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

LEVELS = st.builds(NoiseLevel, st.floats(0, 0.3), st.floats(0, 0.1))


def test_gains_are_those_of_the_protocol():
    """sigma_read, sigma_shot as decimal numbers, worked out by hand."""
    printed = {1: (0.00631, 0.0519), 2: (0.0158, 0.0785), 4: (0.0363, 0.1202), 8: (0.0851, 0.1820)}
    for gain, (read, shot) in printed.items():
        assert GAINS[gain].read == pytest.approx(read, rel=1e-2)
        assert GAINS[gain].shot_deviation == pytest.approx(shot, rel=1e-2)
    assert list(GAINS) == [1, 2, 4, 8]


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("light", [0.0, 0.05, 0.5, 1.0])
def test_moments(gain, light):
    """Mean, variance and fourth moment of n samples, each within five of its own deviations."""
    level, n = GAINS[gain], 100_000
    clean = np.full(n, light, np.float32)
    error = level.sample(clean, np.random.default_rng(gain)) - light
    v = level.read**2 + level.shot * light
    assert error.mean() == pytest.approx(0, abs=5 * math.sqrt(v / n))
    assert error.var() == pytest.approx(v, rel=5 * math.sqrt(2 / n))
    assert (error**4).mean() == pytest.approx(3 * v**2, rel=5 * math.sqrt(96 / n) / 3)


def test_samples_are_white_and_unclipped():
    clean = np.zeros((200, 200), np.float32)
    error = GAINS[8].sample(clean, np.random.default_rng(0))
    assert error.dtype == np.float32 and error.min() < 0
    assert abs(np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1]) < 5 / 200
    again = GAINS[8].sample(clean, np.random.default_rng(0))
    np.testing.assert_array_equal(error, again)


@given(LEVELS, st.floats(0.1, 16), st.floats(0, 2))
def test_amplified_is_the_variance_of_scaled_light(level, g, x):
    """y = g x: var y = g^2 var x = g^2 read^2 + g shot y."""
    y = g * x
    expected = g**2 * level.read**2 + g * level.shot * y
    assert level.scale_by_gain(g).variance(np.float64(y)) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(g**2 * level.variance(np.float64(x)), abs=1e-12)


@given(LEVELS, st.integers(1, 50), st.floats(0, 2))
def test_averaged_divides_the_variance(level, n, x):
    assert level.average_frames(n).variance(np.float64(x)) == pytest.approx(
        level.variance(np.float64(x)) / n, abs=1e-15
    )


@given(st.floats(0, 0.1), st.floats(0, 0.01))
def test_profile_there_and_back(S, O):  # noqa: E741
    level = NoiseLevel.from_profile(S, O)
    assert level.profile == pytest.approx((S, O), abs=1e-15)
    assert level.variance(np.float64(0.3)) == pytest.approx(S * 0.3 + O, abs=1e-15)


def test_map_ignores_negative_light():
    level = NoiseLevel(0.1, 0.04)
    x = np.array([-1.0, 0.0, 0.25], np.float32)
    np.testing.assert_allclose(level.deviation(x), [0.1, 0.1, math.sqrt(0.02)], rtol=1e-6)
    np.testing.assert_allclose(level.deviation(torch.from_numpy(x)), level.deviation(x))


def test_batches_of_levels_broadcast():
    x = np.full((2, 3, 4, 4), 0.5, np.float32)
    read, shot = np.array([0.0, 0.1]).reshape(2, 1, 1, 1), np.array([0.02, 0.0]).reshape(2, 1, 1, 1)
    assert sensor_noise.variance(x, read, shot)[:, 0, 0, 0] == pytest.approx([0.01, 0.01])


@pytest.mark.parametrize("level", [*GAINS.values(), NoiseLevel(0.1, 0.0)])
def test_stabilised_light_has_unit_noise_and_comes_back(level):
    clean = np.full(200_000, 0.4, np.float32)
    seen = level.stabilise(level.sample(clean, np.random.default_rng(1)))
    assert seen.std() == pytest.approx(1, abs=0.03)
    back = level.unstabilise(np.float64(seen.mean(dtype=np.float64)))
    assert back == pytest.approx(0.4, abs=0.05 * level.shot + 5 * level.deviation(np.float64(0.4)) / math.sqrt(200_000))


@pytest.mark.parametrize(("read", "shot"), [(-1, 0), (0, -1), (math.nan, 0), (0, math.inf)])
def test_impossible_levels_are_refused(read, shot):
    with pytest.raises(UsageError, match="not negative"):
        NoiseLevel(read, shot)


def test_impossible_profiles_are_refused():
    with pytest.raises(InputError, match="NoiseProfile"):
        NoiseLevel.from_profile(-1e-3, 1e-6)


def test_levels_are_values():
    level = NoiseLevel(0.1, 0.2)
    assert pickle.loads(pickle.dumps(level)) == level and hash(level) == hash(NoiseLevel(0.1, 0.2))
