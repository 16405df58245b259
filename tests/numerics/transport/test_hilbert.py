"""Space-filling curve and equal shares, against their definitions spelled out mass by mass."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from klarsicht.numerics.transport.hilbert import centres_of_mass, hilbert_path, hilbert_square, select_heaviest


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_hilbert_visits_every_cell_once_in_steps_of_one(order):
    path = hilbert_square(order)
    assert len({tuple(cell) for cell in path.tolist()}) == 4**order == len(path)
    assert (np.abs(np.diff(path, axis=0)).sum(1) == 1).all()
    assert path.min() == 0 and path.max() == 2**order - 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 3), (16, 16), (28, 31)])
def test_the_curve_of_any_grid_visits_every_pixel_once(height, width):
    path = hilbert_path(height, width)
    everywhere = {(y, x) for y in range(height) for x in range(width)}
    assert {tuple(cell) for cell in path.tolist()} == everywhere
    assert len(path) == len(everywhere)


def literal_centres(places, weights, shares):
    """Whole weights in units: each unit of mass in its turn, shares units to each weight's one."""
    units = np.repeat(places, weights * shares, axis=0)
    return units.reshape(shares, -1, 2).mean(1)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 9), st.integers(0, 999))
def test_centres_are_means_of_equal_shares_of_single_units(weights, shares, seed):
    weights = np.array(weights)
    places = np.random.default_rng(seed).integers(0, 32, (len(weights), 2))
    expected = literal_centres(places, weights, shares)
    np.testing.assert_allclose(centres_of_mass(places, weights.astype(np.float32), shares), expected, atol=1e-10)


def test_the_centre_of_mass_stays():
    rng = np.random.default_rng(0)
    places, weights = rng.integers(0, 64, (500, 2)), rng.random(500)
    np.testing.assert_allclose(
        centres_of_mass(places, weights, 64).mean(0), np.average(places, axis=0, weights=weights), rtol=1e-12
    )


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 20))
@example([12, 17, 17, 17, 18, 19, 20, 20], 11)  # 77 of 140, and .55 x 140 is a little more in floats
def test_heaviest_is_the_fewest_largest_that_hold_the_share(weights, twentieths):
    """By whole numbers: no set of fewer entries holds the share; what is kept does, and keeps equals together."""
    weights, share = np.array(weights), twentieths / 20
    kept = select_heaviest(weights.astype(np.float64), share)
    needed = -(-int(weights.sum()) * twentieths // 20)
    assert weights[kept].sum() >= needed
    assert (weights[kept] > 0).all()
    if len(kept):
        least = weights[kept].min()
        assert set(kept) == set(np.flatnonzero(weights >= least))
        assert weights[weights > least].sum() < max(needed, 1)


def test_no_mass_keeps_nothing():
    assert len(select_heaviest(np.zeros(5), 0.95)) == 0
