"""Scenes against literal arithmetic, and what is no photograph."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.burst.synthesis.scenes import (
    KPN,
    Geometry,
    box_mean,
    check_size,
    fit_scale,
    grey_light,
    orient_crop,
    rgb_light,
    scenes,
    untoned_light,
)
from klarsicht.ground.errors import CorpusError, ImageError, InputError, UsageError


def photograph(height=12, width=16, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_light_is_x_to_the_gamma(dtype, white):
    picture = photograph(dtype=dtype)
    expected = np.moveaxis((picture / white) ** 2.2, -1, 0)
    np.testing.assert_allclose(rgb_light(picture), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(grey_light(picture), expected.mean(0, keepdims=True), rtol=1e-6, atol=1e-9)


def test_untoned_light_becomes_the_photograph_again():
    """Gamma 2.2, then the smoothstep 3 v^2 - 2 v^3 (arXiv 1811.11127), written out."""
    picture = photograph()
    v = untoned_light(picture) ** (1 / 2.2)
    again = 3 * v**2 - 2 * v**3
    np.testing.assert_allclose(np.moveaxis(again, 0, -1) * 255, picture, atol=1e-3)


def test_a_kpn_burst_is_cut_from_640_pixels():
    assert KPN.crop == (640, 640) and KPN.margin == 64
    assert Geometry(2, 224, 352, 16).crop == (512, 768)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_box_mean_is_the_mean_of_each_block(scale, height, width):
    image = np.random.default_rng(scale).random((2, height * scale, width * scale), dtype=np.float32)
    expected = [
        [image[:, y * scale : (y + 1) * scale, x * scale : (x + 1) * scale].mean((1, 2)) for x in range(width)]
        for y in range(height)
    ]
    np.testing.assert_allclose(box_mean(image, scale), np.moveaxis(expected, -1, 0), rtol=1e-5)


def test_orientations_are_the_group_of_the_square():
    crop = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    turned = {orient_crop(crop, turn).tobytes() + bytes(orient_crop(crop, turn).shape) for turn in range(8)}
    group = [np.rot90(flip, k, (1, 2)) for flip in (crop, crop[:, ::-1]) for k in range(4)]
    assert turned == {picture.tobytes() + bytes(picture.shape) for picture in group} and len(turned) == 8
    np.testing.assert_array_equal(orient_crop(crop, 0), crop)


@pytest.mark.parametrize("shape", [(640, 640), (640, 640, 1), (640, 640, 4)])
def test_grey_and_cmyk_are_refused(shape):
    with pytest.raises(ImageError, match="photograph 1 is not an RGB picture"):
        scenes([photograph(), np.zeros(shape, np.uint8)], rgb_light)


def test_floats_small_pictures_and_no_pictures_are_refused():
    with pytest.raises(ImageError, match="float64"):
        scenes([np.zeros((640, 640, 3))], rgb_light)
    with pytest.raises(CorpusError, match="no photographs"):
        scenes([], rgb_light)
    with pytest.raises(ImageError, match="640 x 640"):
        check_size(np.zeros((1, 639, 900), np.float32), KPN)
    assert issubclass(ImageError, InputError) and issubclass(CorpusError, InputError)
    with pytest.raises(UsageError, match="positive"):
        Geometry(scale=0)


@pytest.mark.parametrize(("side", "scale"), [(1000, 4), (640, 4), (639, 3), (480, 3), (320, 2), (319, 2), (100, 2)])
def test_the_largest_scale_that_fits_is_chosen(side, scale):
    """KPN's 160 pixels with margins, times the scale; where none fits, the smallest, which `check_size` refuses."""
    assert fit_scale(KPN, np.zeros((1, side, 2000), np.float32), 2).scale == scale
