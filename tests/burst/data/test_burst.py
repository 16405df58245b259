"""The burst against numpy's own padding, closed forms, and what it must refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.burst.data.burst import Burst
from klarsicht.burst.data.cokriging import MOSAICS
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

NOISE = NoiseLevel(0.1, 0.04)


def frames(n=3, c=1, h=6, w=7, seed=0):
    return np.random.default_rng(seed).random((n, c, h, w), dtype=np.float32)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 4, 8, 16]))
def test_padding_comes_off_again(height, width, stride):
    burst = Burst(frames(h=height, w=width), NOISE)
    wide = burst.pad_to_multiple(stride)
    assert all(side % stride == 0 for side in wide.size)
    assert all(0 <= a - b < stride for a, b in zip(wide.size, burst.size, strict=True))
    np.testing.assert_array_equal(wide.frames[..., :height, :width], burst.frames)


def test_padding_mirrors():
    row = Burst(np.array([1, 2, 3, 4, 5], np.float32).reshape(1, 1, 1, 5), NOISE).pad_to_multiple(4)
    np.testing.assert_array_equal(row.frames[0, 0, 0], [1, 2, 3, 4, 5, 5, 4, 3])
    assert row.size == (4, 8)


def test_map_and_amplification_are_their_formulas():
    burst = Burst(frames(), NOISE)
    np.testing.assert_allclose(burst.deviation_map, np.sqrt(0.01 + 0.04 * burst.frames[0]), rtol=1e-6)
    loud = burst.amplify(3.0)
    np.testing.assert_allclose(loud.deviation_map, 3 * burst.deviation_map, rtol=1e-6)
    np.testing.assert_allclose(loud.frames, 3 * burst.frames, rtol=1e-6)


def test_mosaics_come_back():
    mosaic = frames(n=2, h=6, w=8)[:, 0]
    burst = Burst.from_mosaic(mosaic, GAINS[1], "GBRG")
    assert burst.frames.shape == (2, 4, 3, 4) and burst.colour_filter == "GBRG"
    np.testing.assert_array_equal(burst.mosaic, mosaic)
    np.testing.assert_array_equal(burst.frames[:, 0], mosaic[:, 1::2, 0::2])


def test_missing_frames_are_zero_and_not_counted():
    burst = Burst(frames(n=3), NOISE).pad_frames(8)
    assert burst.count == 3 and len(burst.frames) == 8
    np.testing.assert_array_equal(burst.valid, [True] * 3 + [False] * 5)
    assert not burst.frames[3:].any()
    with pytest.raises(UsageError, match="fewer"):
        burst.pad_frames(7)


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 4, 4), np.float32), np.zeros((1, 1, 4, 4)), np.zeros((0, 1, 4, 4), np.float32)]
)
def test_what_is_no_burst_is_refused(bad):
    with pytest.raises(InputError, match="float32 of shape"):
        Burst(bad, NOISE)


def test_impossible_validity_and_filters_are_refused():
    with pytest.raises(InputError, match="reference"):
        Burst(frames(n=2), NOISE, valid=np.array([False, True]))
    with pytest.raises(InputError, match="one flag a frame"):
        Burst(frames(n=2), NOISE, valid=np.array([True]))
    with pytest.raises(InputError, match="1 channels"):
        Burst(frames(c=1), NOISE, colour_filter="RGGB")
    with pytest.raises(InputError, match="4 channels"):
        Burst(frames(c=4), NOISE, colour_filter=MOSAICS["x-trans"])
    with pytest.raises(UsageError, match="RGGB"):
        Burst(frames(c=4), NOISE, colour_filter="XTRANS")
    with pytest.raises(UsageError, match="not a mosaic"):
        _ = Burst(frames(c=4), NOISE).mosaic
    with pytest.raises(UsageError, match="not a mosaic"):
        _ = Burst(frames(c=3), NOISE, colour_filter="RGGB").mosaic
