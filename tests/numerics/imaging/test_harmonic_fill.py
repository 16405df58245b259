"""A filled region obeys Laplace's equation, and a ramp, which does already, comes back."""

import numpy as np

from klarsicht.numerics.imaging.harmonic_fill import fill_harmonically


def test_a_ramp_comes_back():
    y, x = np.mgrid[:20, :24]
    ramp = np.stack([4 * x + 3 * y, 250 - 8 * x, np.full_like(x, 77)], -1).astype(np.uint8)
    mask = np.zeros((20, 24), bool)
    mask[5:12, 6:15] = True
    damaged = ramp.copy()
    damaged[mask] = 255
    np.testing.assert_array_equal(fill_harmonically(damaged, mask), ramp)


def test_every_filled_pixel_is_the_mean_of_its_neighbours_and_the_rest_stays():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (15, 15, 1)).astype(np.uint8), np.zeros((15, 15), bool)
    mask[0:6, 9:15] = True  # a corner: neighbours outside the image are left out
    filled = fill_harmonically(image, mask)
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    wide = np.pad(filled[..., 0].astype(float), 1, constant_values=np.nan)
    around = np.nanmean([wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]], 0)
    assert np.abs(filled[..., 0] - around)[mask].max() <= 1  # each is rounded by a half
    known = image[..., 0][~mask]
    assert known.min() <= filled.min() and filled.max() <= known.max()


def test_nothing_and_everything():
    image = np.random.default_rng(1).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(fill_harmonically(image, np.zeros((4, 5), bool)), image)
    np.testing.assert_allclose(fill_harmonically(image, np.ones((4, 5), bool))[0, 0], image.mean((0, 1)), atol=0.5)
