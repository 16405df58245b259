"""Arrays of a user: numpy's, torch's tensors, columns and tables of pandas, or lists, as numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.errors import InputError


def as_numbers(name: str, values: Any) -> NDArray[Any]:
    """Convert what a user gives under a name to an array of integers, floats or booleans, of any shape; a tensor of
    half precision becomes float32. Raises InputError: no numbers, or lists of different lengths."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.itemsize < np.float32().itemsize else values
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        got = f"{type(values).__name__} of {array.dtype}" if array.dtype != object else type(values).__name__
        rule = "numbers in an array of numpy, a tensor, a column or table of pandas, or lists of one length"
        raise InputError(f"{name} are not numbers", got=got, rule=rule)
    return array
