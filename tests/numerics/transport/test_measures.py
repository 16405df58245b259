"""Maps as measures: closed forms, set-aside maps, and how nearly the measure follows a map that moves or turns."""

import numpy as np
import ot
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.neighbours import pairwise
from klarsicht.numerics.transport.measures import PointMeasures, measures_from_maps, require_comparable


def spots(n=6, side=40, seed=0):
    """Three smeared spots a map, away from the border."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((n, side, side))
    for one in maps:
        one[tuple(rng.integers(12, side - 12, (2, 3)))] = rng.uniform(0.5, 1, 3)
    return gaussian_filter(maps, (0, 1.5, 1.5))


def test_a_map_of_single_pixels_is_those_pixels():
    maps = np.zeros((1, 9, 9))
    maps[0, 2, 3] = maps[0, 7, 5] = 1
    measure = measures_from_maps(maps, points=4, mass=1)
    assert sorted(measure.points[0].tolist()) == [[2, 3], [2, 3], [7, 5], [7, 5]]
    np.testing.assert_allclose(measure.means, [[4.5, 4]])
    np.testing.assert_allclose(measure.radius, np.sqrt(2.5**2 + 1), rtol=1e-6)
    assert measure.kept.tolist() == [1]


def test_the_share_that_is_kept_is_recorded():
    maps = np.zeros((2, 4, 4))
    maps[0, 0, :] = [50, 30, 15, 5]
    maps[1] = 1
    measures = measures_from_maps(maps, points=8, mass=0.9)
    np.testing.assert_allclose(measures.kept, [0.95, 1])


def test_near_the_map_itself_by_pot():
    """Exact W2 to the map's own pixels, in radii: a sixth at 64 points, halved by four times as many."""
    maps = spots()
    pixels = np.argwhere(np.ones(maps.shape[1:]))
    far = {}
    for P in (16, 64, 256):
        measures = measures_from_maps(maps, P, mass=1)
        costs = [
            ot.emd2(one.ravel() / one.sum(), np.full(P, 1 / P), ot.dist(pixels.astype(float), points.astype(float)))
            for one, points in zip(maps, measures.points, strict=True)
        ]
        far[P] = np.mean(np.sqrt(costs) / measures.radius)
    assert far[16] < 0.4 and far[64] < 0.17 and far[256] < 0.09


def test_a_moved_map_is_nearly_the_same_shape():
    """Shares are cut along a curve that does not move: the error of a shift, over the distance between two maps."""
    maps = spots(8)
    both = measures_from_maps(np.concatenate([maps, np.roll(maps, (5, -3), (1, 2))]))
    np.testing.assert_allclose(both.means[8:] - both.means[:8], [[5, -3]] * 8, atol=0.02)
    D = pairwise(both, "wasserstein-t")
    same, other = np.diag(D[:8, 8:]), D[:8, :8][np.triu_indices(8, 1)]
    assert same.mean() < 0.17 * np.median(other)


@pytest.mark.parametrize("metric", ["sliced-rotation", "wasserstein-tsr", "gromov"])
def test_a_turned_map_is_nearly_the_same_shape(metric):
    """A quarter turn moves pixels without interpolation, so what is left is the curve's."""
    maps = spots(8)
    both = measures_from_maps(np.concatenate([maps, np.rot90(maps, axes=(1, 2))]))
    D = pairwise(both, metric)
    same, other = np.diag(D[:8, 8:]), D[:8, :8][np.triu_indices(8, 1)]
    assert same.mean() < 0.4 * np.median(other)


def test_negative_values_do_not_count():
    maps = spots()
    maps[:, ::2] *= -1
    np.testing.assert_array_equal(measures_from_maps(maps).points, measures_from_maps(np.maximum(maps, 0)).points)


def test_maps_of_no_use_are_set_aside_counted_and_named():
    maps = spots(5)
    maps[1] = 0
    maps[2] *= -1
    maps[3] = 0
    maps[3, 4, 4] = 1
    measures = measures_from_maps(maps)
    assert measures.set_aside.tolist() == [False, True, True, True, False]
    assert measures.counts == {"almost no positive relevance": 2, "zero radius": 1}
    with pytest.raises(InputError, match=r"3 of 5, the first is 1"):
        pairwise(measures, "wasserstein")
    assert len(measures[~measures.set_aside]) == 2


def test_all_maps_empty():
    measures = measures_from_maps(np.zeros((3, 5, 5)))
    assert measures.set_aside.all()
    assert measures.kept.tolist() == [0, 0, 0]


def test_scale_of_values_does_not_matter_and_tiny_ones_survive():
    maps = spots().astype(np.float32)
    for factor in (2.0**-60, 2.0**40):
        np.testing.assert_array_equal(measures_from_maps(maps * factor).points, measures_from_maps(maps).points)


def test_centred_and_scaled_by_hand():
    points = np.random.default_rng(0).normal(5, 3, (4, 10, 2))
    moved = PointMeasures.of(points).centre()
    np.testing.assert_allclose(moved.points, points - points.mean(1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(moved.scale().radius, 1, rtol=1e-5)
    with pytest.raises(InputError, match="zero radius"):
        PointMeasures.of(np.ones((2, 4, 2))).scale()


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"points": 0}, UsageError, "at least 1"),
        ({"mass": 0}, UsageError, "above 0"),
        ({"mass": 1.1}, UsageError, "at most 1"),
        ({"maps": [np.ones((3, 3)), np.ones((3, 4))]}, InputError, "different sizes"),
        ({"maps": np.ones((0, 3, 3))}, InputError, "no maps"),
        ({"maps": np.ones((3, 3))}, InputError, "no maps"),
        ({"maps": np.full((2, 3, 3), np.nan)}, InputError, "2 of 2, the first is 0"),
    ],
)
def test_bad_maps_are_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        measures_from_maps(**({"maps": np.ones((2, 3, 3))} | wrong))


@pytest.mark.parametrize("points", [np.ones((2, 3)), np.ones((2, 0, 2)), np.full((2, 3, 2), np.inf)])
def test_bad_points_are_refused(points):
    with pytest.raises(InputError):
        PointMeasures.of(points)


def test_what_is_not_measures_is_not_comparable():
    with pytest.raises(InputError, match="measures_from_maps"):
        require_comparable(np.ones((3, 5)))
    with pytest.raises(InputError, match="got 1; measures, at least 2"):
        require_comparable(PointMeasures.of(np.ones((1, 5, 2))))
