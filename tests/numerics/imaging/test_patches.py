"""Windows of images, against slow rewrites, NumPy's correlation, and laws."""

import numpy as np
import pytest

from klarsicht.numerics.imaging import patches

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (4, 12, 14, 3))


@pytest.mark.parametrize("w", [1, 2, 3, 5])
def test_box_is_the_mean_of_each_window(w):
    found = patches.box_mean(IMAGES, w)
    slow = [[IMAGES[:, i : i + w, j : j + w].mean((1, 2)) for j in range(14 - w + 1)] for i in range(12 - w + 1)]
    np.testing.assert_allclose(found, np.moveaxis(np.array(slow), 2, 0), rtol=1e-6)


def test_high_pass_ignores_level_and_slope_inside():
    ramp = np.broadcast_to(np.arange(14.0)[None, None, :, None] * 3 + 50, (1, 12, 14, 1))
    np.testing.assert_allclose(patches.high_pass(ramp)[:, 1:-1, 1:-1], 0, atol=1e-9)


def test_densest_takes_the_largest_and_keeps_apart():
    density = np.zeros((1, 6, 6))
    density[0, 1, 1], density[0, 1, 2], density[0, 4, 4] = 3, 2.5, 2
    np.testing.assert_array_equal(patches.select_peaks(density, 1, 2)[0], [[1, 1], [4, 4]])
    np.testing.assert_array_equal(patches.select_peaks(density, 9, 2)[0], [[1, 1], [1, 1]])  # no room: repeated


def test_cut_is_slicing():
    places = np.array([[[0, 0], [3, 4]]] * 4)
    found = patches.extract_windows(IMAGES, places, 5)
    np.testing.assert_array_equal(found[2, 1], IMAGES[2, 3:8, 4:9])


def test_products_of_normalised_windows_are_correlations():
    windows = RNG.uniform(0, 255, (6, 5, 5, 3))
    flat = windows.reshape(6, -1)
    v = patches.normalise_windows(windows, soft=0)
    np.testing.assert_allclose(v @ v.T, np.corrcoef(flat), atol=1e-5)


def test_correlation_ignores_brightness_and_flat_windows_are_like_nothing():
    window = RNG.uniform(0, 100, (5, 5, 3))
    a, b = patches.normalise_windows(np.stack([window, window + 70]))
    np.testing.assert_allclose(a, b, atol=1e-6)
    flat = patches.normalise_windows(np.full((2, 5, 5, 3), 80.0))
    assert (flat @ flat.T == 0).all()


def test_likeness_is_the_largest_over_shifts():
    a = RNG.standard_normal((3, 7)).astype(np.float32)
    b = RNG.standard_normal((9, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(
        patches.max_correlation(a, b), np.einsum("pd,sqd->spq", a, b).max(0), rtol=1e-4, atol=1e-5
    )
