"""The two colours that a mosaic's pixel does not have, by the linear 5 x 5 filters of Malvar, He and Cutler (ICASSP
2004): bilinear interpolation, corrected by the Laplacian of the colour that is there.

Axes: H W pixels of the mosaic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate

from klarsicht.burst.data.bayer import places

Light = npt.NDArray[np.float32]

MARGIN = 4  # pixels around a part that decide about it, and even
GREEN = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]], np.float32
)  # at red or blue
BESIDE = np.array(
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]], np.float32
)  # a colour at green, whose neighbours of that colour are left and right
ACROSS = np.array(
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]], np.float32
)  # red at blue, and blue at red
SCALE = np.float32(1 / 8)


def demosaiced(mosaic: Light, pattern: str) -> Light:
    """(H, W), even sides, to (3, H, W)."""
    rgb = np.empty((3, *mosaic.shape), np.float32)
    green, beside, above, across = (filtered(mosaic, k) for k in (GREEN, BESIDE, BESIDE.T, ACROSS))
    red, first, second, blue = ((slice(y, None, 2), slice(x, None, 2)) for y, x in places(pattern))
    rgb[0][red], rgb[1][red], rgb[2][red] = mosaic[red], green[red], across[red]
    rgb[0][blue], rgb[1][blue], rgb[2][blue] = across[blue], green[blue], mosaic[blue]
    for place in (first, second):
        in_row, in_column = (0, 2) if place[0] == red[0] else (2, 0)  # which colour its neighbours have
        rgb[1][place], rgb[in_row][place], rgb[in_column][place] = mosaic[place], beside[place], above[place]
    return rgb


def filtered(mosaic: Light, kernel: npt.NDArray[np.float32]) -> Light:
    """Borders are mirrored about the outermost pixel, which keeps the pattern."""
    out: Light = correlate(mosaic, kernel * SCALE, mode="mirror")
    return out
