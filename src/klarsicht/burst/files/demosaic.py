"""Demosaicking by the linear 5 x 5 filters of Malvar, He and Cutler (ICASSP 2004): bilinear interpolation of the two
missing colours, corrected by the Laplacian of the measured one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate

from klarsicht.burst.data.bayer import cell_offsets

Light = npt.NDArray[np.float32]

MARGIN = 4  # pixels around a part that its result depends on; even, to keep the pattern
GREEN = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]], np.float32
)  # green at red or blue
COLOUR_AT_GREEN = np.array(
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]], np.float32
)  # red or blue at green, where the neighbours of that colour are left and right
COLOUR_AT_OPPOSITE = np.array(
    [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]], np.float32
)  # red at blue, and blue at red
SCALE = np.float32(1 / 8)


def interpolate_colours(mosaic: Light, pattern: str) -> Light:
    """Demosaic (H, W), even sides, to RGB (3, H, W)."""
    rgb = np.empty((3, *mosaic.shape), np.float32)
    kernels = (GREEN, COLOUR_AT_GREEN, COLOUR_AT_GREEN.T, COLOUR_AT_OPPOSITE)
    green, beside, above, across = (correlate(mosaic, k * SCALE, mode="mirror") for k in kernels)  # keeps the pattern
    red, first, second, blue = ((slice(y, None, 2), slice(x, None, 2)) for y, x in cell_offsets(pattern))
    rgb[0][red], rgb[1][red], rgb[2][red] = mosaic[red], green[red], across[red]
    rgb[0][blue], rgb[1][blue], rgb[2][blue] = across[blue], green[blue], mosaic[blue]
    for place in (first, second):
        in_row, in_column = (0, 2) if place[0] == red[0] else (2, 0)  # the colours of its neighbours
        rgb[1][place], rgb[in_row][place], rgb[in_column][place] = mosaic[place], beside[place], above[place]
    return rgb
