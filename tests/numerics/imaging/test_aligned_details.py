"""Alignment of images by their details. Oracle: NumPy's corrcoef pair by pair, and images that are aligned by
construction."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.numerics.imaging.aligned_details import SMOOTHING, common_region, median_detail_correlation


def test_it_is_the_median_of_the_correlations_of_all_pairs():
    x = np.random.default_rng(0).uniform(0, 255, (7, 32, 40))
    x[3:] += 200 * np.random.default_rng(1).normal(size=(32, 40))  # four of one pattern
    fine = [(one - gaussian_filter(one, SMOOTHING * 32)).ravel() for one in x]
    pairs = [np.corrcoef(fine[i], fine[j])[0, 1] for i in range(7) for j in range(i)]
    assert median_detail_correlation(x) == pytest.approx(np.median(pairs), abs=1e-9)


def test_aligned_images_correlate_and_shifted_ones_do_not():
    rng = np.random.default_rng(0)
    outline, moved = np.zeros((32, 32)), []
    outline[8:24, 10:22] = 200
    aligned = outline + rng.normal(0, 20, (40, 32, 32))
    moved = np.stack([np.roll(one, rng.integers(-12, 12, 2), (0, 1)) for one in aligned])
    assert median_detail_correlation(aligned) > 0.5 > 0.05 > abs(median_detail_correlation(moved))


def test_a_mark_on_two_fifths_of_the_images_is_overlooked():
    rng = np.random.default_rng(0)
    x = rng.normal(100, 20, (50, 32, 32))
    x[:20, 2:9, 2:9] = 255
    assert abs(median_detail_correlation(x)) < 0.02
    assert median_detail_correlation(x[:20]) > 0.3


def test_images_without_details_and_single_ones_correlate_with_none():
    assert median_detail_correlation(np.full((5, 8, 8), 7.0)) == 0
    assert median_detail_correlation(np.zeros((1, 8, 8))) == 0


def test_the_common_region_is_where_an_object_is_that_all_images_show():
    rng = np.random.default_rng(0)
    texture, images = rng.normal(0, 30, (32, 32)), rng.normal(100, 30, (60, 64, 64))
    images[:, 10:42, 20:52] += texture
    found = common_region(images, 0.25)
    assert found.sum() == 64 * 64 // 4
    assert found[12:40, 22:50].mean() > 0.9 and found[50:].mean() < 0.02
