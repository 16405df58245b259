"""The letters of array axes, the same in every signature, and names for the arrays both wings speak of.

With jaxtyping installed the names are checked where a test asks for it (`jaxtyping.jaxtyped` with beartype); without
it, and in production, they are plain numpy arrays.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

LEGEND = {
    "B": "images of a batch",
    "N": "frames of a burst, or images of a corpus",
    "C": "channels",
    "H": "rows of pixels, downwards",
    "W": "columns of pixels, to the right",
    "K": "side of a square kernel, odd",
    "P": "points of a measure",
    "G": "side of a pooled relevance map",
}

if TYPE_CHECKING:
    from typing import Annotated as Float
    from typing import Annotated as UInt8

    from numpy.typing import NDArray

    Array = NDArray[Any]
else:
    Array = np.ndarray
    if find_spec("jaxtyping"):
        from jaxtyping import Float, UInt8
    else:

        class Float:
            """Float[Array, "axes"] without its check."""

            def __class_getitem__(cls, item):
                return item[0]

        UInt8 = Float

Picture = UInt8[Array, "H W 3"]
Frames = Float[Array, "N C H W"]
Maps = Float[Array, "B G G"]
Points = Float[Array, "P 2"]
