"""Type aliases of numpy arrays of any shape; docstrings give shapes by the axis letters of their wing's legend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]
Rows = NDArray[np.intp]  # positions in another array
Bools = NDArray[np.bool_]
Pixels = NDArray[np.uint8]  # 8-bit levels, 0 to 255
