"""Bit depths. Oracle: rounding by hand, the round trip."""

import numpy as np
import pytest

from klarsicht.ground.pictures.pixel_depths import to_uint8, to_uint16


@pytest.mark.parametrize(("dtype", "back"), [(np.uint8, to_uint8), (np.uint16, to_uint16)])
def test_every_level_survives_the_round_trip(dtype, back):
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    floats = (levels / levels[-1]).astype(np.float32)
    np.testing.assert_array_equal(back(floats), levels)
    assert back(floats).dtype == dtype


def test_depths_round_to_the_nearest_and_clip():
    np.testing.assert_array_equal(to_uint8([-1, 0.49 / 255, 0.51 / 255, 254.51 / 255, 7]), [0, 0, 1, 255, 255])
    np.testing.assert_array_equal(to_uint16([-1, 0.49 / 65535, 0.51 / 65535, 7]), [0, 0, 1, 65535])
