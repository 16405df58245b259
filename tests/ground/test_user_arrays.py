"""Arrays of a user: numpy's own conversions of the same numbers are the oracle."""

import numpy as np
import pytest
import torch

from klarsicht.ground.errors import InputError
from klarsicht.ground.user_arrays import as_numbers

PLAIN = np.array([[0.5, 1.0], [2.0, -3.0]], np.float32)


class Column:
    """Stand-in for a column of pandas, with the methods that numpy calls."""

    def __array__(self, dtype=None, copy=None):
        return np.asarray(PLAIN, dtype)


@pytest.mark.parametrize(
    "given",
    [
        PLAIN, PLAIN.astype(float), PLAIN.tolist(), Column(), torch.tensor(PLAIN),
        torch.tensor(PLAIN, requires_grad=True),
        torch.tensor(PLAIN).bfloat16(), torch.tensor(PLAIN).half(), PLAIN.astype(">f8"),
    ],
)  # fmt: skip
def test_numbers_of_any_kind_are_the_same_numbers(given):
    np.testing.assert_array_equal(as_numbers("maps", given), PLAIN)


@pytest.mark.parametrize("given", [torch.tensor([1, 2]), np.array([1, 2], np.int8), [True, False]])
def test_integers_and_booleans_keep_their_type(given):
    assert as_numbers("sources", given).dtype == np.asarray(given).dtype


@pytest.mark.parametrize("given", [["a", "b"], [[1.0], [1.0, 2.0]], [None, 1.0], None, {"a": 1}, np.array([1j])])
def test_what_is_no_number_is_refused_by_its_name(given):
    with pytest.raises(InputError, match="maps are not numbers"):
        as_numbers("maps", given)
