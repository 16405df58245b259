"""What an analysis keeps of the images it looked at last, so that nothing is read or computed twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowCache:
    """What was made from the rows asked for last: all groups of a screening share their rows."""

    def __init__(self) -> None:
        self.rows: NDArray[np.intp] = np.empty(0, np.intp)
        self.kept: dict[str, Any] = {}

    def keep(self, name: str, rows: NDArray[np.intp], make: Callable[[], Any]) -> Any:
        """What goes by a name for these rows, made where it is not there."""
        if not np.array_equal(rows, self.rows):
            self.rows, self.kept = rows, {}
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]
