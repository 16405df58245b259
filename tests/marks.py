"""Marks of parameters."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """Mark one parameter, or the parameters of one case, slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def slow_but_first(values: Iterable[Any]) -> list[Any]:
    """Mark all parameters slow but the first."""
    first, *others = values
    return [first, *map(slow, others)]
