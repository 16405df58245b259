"""Masks by relevance: shares of maps, their excess, and where half of its peak is exceeded."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from klarsicht.numerics.imaging.relevance_masks import enlarge_masks, relevance_excess, smooth_shares, threshold_map


def maps(n, seed=0):
    """The object in the middle of every map, over noise."""
    found = 0.1 * np.random.default_rng(seed).random((n, 8, 8))
    found[:, 3:5, 3:5] += 1
    return found


def test_shares_are_those_of_positive_relevance():
    """A literal rewrite, map by map; a map without positive relevance has no shares."""
    some = np.random.default_rng(3).normal(size=(4, 8, 8))
    some[3] = -1
    wanted = [gaussian_filter(np.where(one > 0, one, 0) / one[one > 0].sum(), 1.0) for one in some[:3]]
    np.testing.assert_allclose(smooth_shares(some), [*wanted, np.zeros((8, 8))])


def test_excess_is_the_difference_of_shares():
    """Every map counts as much as every other, whatever its sum, and smoothing keeps sums within the map's edges."""
    a, b = maps(5, 1), maps(7, 2)
    each, mean = relevance_excess(1000 * a, b)
    np.testing.assert_allclose(mean, relevance_excess(a, 5 * b)[1], atol=1e-12)
    np.testing.assert_allclose(each.mean(0), mean)
    assert abs(mean.sum()) < 1e-2


def test_a_mask_is_where_half_of_the_peak_is_exceeded():
    excess = np.full((8, 8), -1.0)
    excess[2, 4], excess[2, 5], excess[6, 6] = 1.0, 0.6, 0.4
    np.testing.assert_array_equal(np.argwhere(threshold_map(excess, (8, 8))), [[2, 4], [2, 5]])
    assert not threshold_map(np.full((8, 8), -1.0), (16, 16)).any()


@pytest.mark.parametrize("shape", [(20, 30), (50, 75)])
def test_masks_are_enlarged_as_by_pillow(shape):
    masks = np.random.default_rng(0).random((2, 10, 15)) > 0.5
    pictures = [Image.fromarray(mask.astype(np.uint8)) for mask in masks]
    expected = [np.asarray(one.resize(shape[::-1], Image.Resampling.NEAREST), bool) for one in pictures]
    np.testing.assert_array_equal(enlarge_masks(masks, shape), expected)
