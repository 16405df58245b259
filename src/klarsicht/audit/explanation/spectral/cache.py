"""Cache of an analysis for one selection of rows, so that no array is read or computed twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowCache:
    """Cache of values for the rows that were requested last; all groups of a screening share their rows."""

    def __init__(self) -> None:
        self.rows: NDArray[np.intp] = np.empty(0, np.intp)
        self.values: dict[str, Any] = {}

    def get_or_make(self, name: str, rows: NDArray[np.intp], make: Callable[[], Any]) -> Any:
        """Return the value of this name for these rows; compute it by `make` where it is not cached."""
        if not np.array_equal(rows, self.rows):
            self.rows, self.values = rows, {}
        if name not in self.values:
            self.values[name] = make()
        return self.values[name]
