"""The least of a row against numpy's stable sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.numerics.compiled.smallest import STRIDE, smallest_columns


def sorted_first(rows, c):
    return np.sort(np.argsort(rows, axis=1, kind="stable")[:, :c], axis=1)


@pytest.mark.parametrize("n", [1, 2, 37, STRIDE, 3 * STRIDE + 1])
@pytest.mark.parametrize("c", [1, 2, 36, 300])
def test_equals_a_stable_sort(n, c):
    rows = np.random.default_rng(n).standard_normal((5, n)).astype(np.float32)
    c = min(c, n)
    np.testing.assert_array_equal(np.sort(smallest_columns(rows, c), 1), sorted_first(rows, c))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_of_equal_entries_the_first_are_taken(seed, c):
    """Few values, some infinite: what a row may not have as neighbour."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.array([-1, 0, 0.5, np.inf], np.float32), (3, 2 * STRIDE + 9))
    np.testing.assert_array_equal(np.sort(smallest_columns(rows, c), 1), sorted_first(rows, c))


def test_threads_change_nothing():
    rows = np.random.default_rng(0).integers(9, size=(50, 400)).astype(np.float32)
    np.testing.assert_array_equal(smallest_columns(rows, 20, threads=1), smallest_columns(rows, 20, threads=3))
