"""The burst: mosaics, the count of its frames, and what it must refuse."""

import numpy as np
import pytest

from klarsicht.burst.data.burst import Burst
from klarsicht.burst.data.cokriging import MOSAICS
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

NOISE = NoiseLevel(0.1, 0.04)


def frames(n=3, c=1, h=6, w=7, seed=0):
    return np.random.default_rng(seed).random((n, c, h, w), dtype=np.float32)


def test_mosaics_come_back():
    mosaic = frames(n=2, h=6, w=8)[:, 0]
    burst = Burst.from_mosaic(mosaic, GAINS[1], "GBRG")
    assert burst.frames.shape == (2, 4, 3, 4) and burst.colour_filter == "GBRG"
    np.testing.assert_array_equal(burst.mosaic, mosaic)
    np.testing.assert_array_equal(burst.frames[:, 0], mosaic[:, 1::2, 0::2])


def test_missing_frames_are_not_counted():
    burst = Burst(frames(n=3), NOISE, np.array([True, False, True]))
    assert burst.count == 2 and Burst(frames(n=3), NOISE).count == 3


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 4, 4), np.float32), np.zeros((1, 1, 4, 4)), np.zeros((0, 1, 4, 4), np.float32)]
)
def test_what_is_no_burst_is_refused(bad):
    with pytest.raises(InputError, match="float32 of shape"):
        Burst(bad, NOISE)


def test_grey_frames_without_an_axis_of_channels_are_refused_with_the_way_to_add_it():
    pixels = np.zeros((3, 4, 5), np.float32)
    with pytest.raises(InputError, match=r"frames\[:, None\]"):
        Burst(pixels, NOISE)
    assert Burst(pixels[:, None], NOISE).size == (4, 5)


def test_codes_of_a_sensor_are_to_be_divided_by_the_code_of_white():
    with pytest.raises(InputError, match=r"got uint16 .* / white\)\.astype"):
        Burst(np.zeros((2, 1, 4, 4), np.uint16), NOISE)


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
