"""Projected rows are nowhere farther apart than the rows; a projection is used where it tells pairs apart."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from klarsicht.numerics.search.projection_bounds import ProjectionBound


def near_a_plane(rng, n, noise, D=200, r=12):
    """n rows near an r-dimensional plane of D dimensions."""
    return rng.standard_normal((n, r)) @ rng.standard_normal((r, D)) + noise * rng.standard_normal((n, D))


@pytest.mark.parametrize("noise", [0, 0.1, 1])
def test_never_farther_apart(noise):
    x = near_a_plane(np.random.default_rng(0), 300, noise)
    projection = ProjectionBound.of(x[:200])
    narrow = projection(x)
    assert narrow.shape == (300, projection.axes.shape[1] + 1) and narrow.shape[1] < 110
    assert (pdist(narrow) <= pdist(x) * (1 + 1e-12)).all()


def test_rows_on_a_plane_keep_their_distances():
    x = near_a_plane(np.random.default_rng(1), 200, 0)
    np.testing.assert_allclose(pdist(ProjectionBound.of(x)(x)), pdist(x))


def test_axes_are_orthonormal_where_rows_repeat():
    """Fewer directions than axes: those that the rows do not have are orthonormal too."""
    x = near_a_plane(np.random.default_rng(2), 20, 0.1)[np.arange(200) % 20]
    axes = ProjectionBound.of(x).axes
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-12)


def test_rows_without_leading_axes_are_not_projected():
    """Pure noise: nearly all pairs are as far apart as the nearest, and few coordinates tell none apart."""
    assert ProjectionBound.of(np.random.default_rng(3).standard_normal((400, 300))) is None


def test_the_rest_tells_apart_what_the_axes_do_not():
    """Rows alike on every axis that is kept, and of lengths 1 and 9 beyond them."""
    projection = ProjectionBound(np.zeros(3), np.eye(3)[:, :1])
    np.testing.assert_allclose(pdist(projection(np.array([[2.0, 1, 0], [2, 0, 9]]))), [8])
