import numpy as np
import pytest

from klarsicht.numerics.imaging.near_duplicates import first_duplicates

RNG = np.random.default_rng(0)
THUMBNAILS = RNG.uniform(0, 255, (50, 8, 8, 3))


@pytest.mark.parametrize("block", [3, 7, 1000])
def test_repeats_point_to_their_first(block):
    thumbnails = THUMBNAILS.copy()
    thumbnails[[9, 31]] = thumbnails[4] * 0.8 + 20  # another exposure
    thumbnails[40] = thumbnails[22] + RNG.normal(0, 3, thumbnails[22].shape)  # re-encoded
    expected = np.arange(50)
    expected[[9, 31]], expected[40] = 4, 22
    np.testing.assert_array_equal(first_duplicates(thumbnails, block=block), expected)


def test_different_and_blank_images_repeat_nothing():
    np.testing.assert_array_equal(first_duplicates(THUMBNAILS), np.arange(50))
    np.testing.assert_array_equal(first_duplicates(np.full((4, 8, 8, 3), 7.0)), np.arange(4))
    assert len(first_duplicates(np.zeros((0, 8, 8, 3)))) == 0


def test_pictures_of_one_shape_are_no_repeats():
    """Two stripes, as trousers are, with a pattern of their own: at 8 pixels a side nothing else is seen."""
    rng = np.random.default_rng(1)
    shapes = np.zeros((20, 24, 24))
    shapes[:, :, 6:11] = shapes[:, :, 13:18] = 200
    shapes += 40 * rng.normal(size=shapes.shape) * (shapes > 0)
    coarse = shapes.reshape(20, 8, 3, 8, 3).mean((2, 4))
    assert len(np.unique(first_duplicates(coarse))) < 20
    np.testing.assert_array_equal(first_duplicates(shapes), np.arange(20))
