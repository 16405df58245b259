"""Application of a raw file's lens corrections to windows of light that is already denoised.

The gains of OpcodeList2 are a mosaic's: interpolated colours take the mean gain of the samples of their colour around
them. OpcodeList3 follows, on colours. Light that is white stays white at least; light that a gain lifts above white is
not cut off here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d, map_coordinates

from klarsicht.burst.data.bayer import cell_offsets
from klarsicht.burst.data.cokriging import AT_WHITE, cell_side, colour_numbers
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.lens_corrections import COLOUR_PLANES, Correction, LensCorrections
from klarsicht.burst.data.opcode_lists import Gains, Places, Positions, RectilinearWarp
from klarsicht.burst.data.photograph import Planes

Reader = Callable[[Window], Planes]

SAMPLES_AROUND = 2  # pixels: reach of the mean gain of samples
WEIGHTS = np.array([1.0, 2, 2, 2, 1])  # of that mean, along a side: both greens of a Bayer cell count alike everywhere
SPLINE_REACH = 12  # pixels after which the prefilter of cubic splines is below 1e-6
WARP_SIDE = 256  # pixels a side that are warped at once


def plane_gains(lens: LensCorrections, cells: Window, size: tuple[int, int], pattern: str) -> Gains:
    """Compute the gains (4, h, w) of a Bayer mosaic's planes in a window of cells, which may reach beyond the frame of
    that size (cells); there its border is repeated."""
    down, across = (
        np.clip(np.arange(first, end), 0, side - 1)
        for first, end, side in ((cells.y0, cells.y1, size[0]), (cells.x0, cells.x1, size[1]))
    )
    return np.stack([sample_gains(lens, 2.0 * down + y, 2.0 * across + x) for y, x in cell_offsets(pattern)])


def colour_gains(lens: LensCorrections, window: Window, size: tuple[int, int], cell: str) -> Gains:
    """Compute the gains (3, h, w) of colours interpolated behind such a cell, in a window inside the frame."""
    if lens.pixels != 1:
        return _enlarge_gains(lens, window, size, cell)
    around = window.grow(SAMPLES_AROUND).clip_to(size)
    rows, columns = np.arange(around.y0, around.y1), np.arange(around.x0, around.x1)
    gains = sample_gains(lens, 1.0 * rows, 1.0 * columns)
    side, inside = cell_side(cell), (slice(None), *window.slices_in(around))
    member = colour_numbers(cell)[rows[:, None] % side, columns % side] == np.arange(COLOUR_PLANES)[:, None, None]
    return _local_sums(gains * member)[inside] / _local_sums(member.astype(np.float32))[inside]


def _enlarge_gains(lens: LensCorrections, window: Window, size: tuple[int, int], cell: str) -> Gains:
    """Compute the gains of a picture that has several pixels along one of the sensor: those of that one."""
    n, (H, W) = lens.pixels, size
    sensor = Window(window.y0 // n, -(-window.y1 // n), window.x0 // n, -(-window.x1 // n))
    gains = colour_gains(replace(lens, pixels=1), sensor, (H // n, W // n), cell).repeat(n, 1).repeat(n, 2)
    return gains[:, *window.slices_in(Window(n * sensor.y0, n * sensor.y1, n * sensor.x0, n * sensor.x1))]


def sample_gains(lens: LensCorrections, rows: Places, columns: Places) -> Gains:
    """Compute the product (h, w) of the gains of OpcodeList2 for samples at places."""
    gains = np.ones((len(rows), len(columns)), np.float32)
    for one in lens.on_samples:
        gains *= one.gain(rows, columns, 0, lens.size)
    return gains


def correct_colours(
    lens: LensCorrections, window: Window, read: Reader, size: tuple[int, int], step: int = 1
) -> Planes:
    """Apply OpcodeList3 to colours (3, h, w) in a window. read: reads colours in a window inside the frame of that
    size. step: pixels of the picture a side that are one of the frame's, as in a thumbnail."""
    return _correct(lens.on_colours, lens, window, read, size, step / lens.pixels)


def apply_gains(light: Planes, gains: Gains) -> Planes:
    """Multiply light (C, h, w) by gains; what is white stays white at least, because its light is not known."""
    return light * np.where(light >= 1 - AT_WHITE, np.maximum(gains, 1), gains)


def _correct(
    corrections: tuple[Correction, ...],
    lens: LensCorrections,
    window: Window,
    read: Reader,
    size: tuple[int, int],
    step: float,
) -> Planes:
    if not corrections:
        return read(window)
    *earlier, last = corrections
    before = partial(_correct, tuple(earlier), lens, read=read, size=size, step=step)
    if isinstance(last, RectilinearWarp):
        return _warp(last, lens.size, window, before, size, step)
    rows, columns = _places(window, step)
    return apply_gains(before(window), np.stack([last.gain(rows, columns, c, lens.size) for c in range(COLOUR_PLANES)]))


def _warp(
    warp: RectilinearWarp, area: tuple[int, int], window: Window, read: Reader, size: tuple[int, int], step: float
) -> Planes:
    """Read colours where a warp for an image of size `area` says, by cubic splines; the border is repeated."""
    out = np.empty((COLOUR_PLANES, *window.size), np.float32)
    for tile in _split(window):
        rows, columns = _places(tile, step)
        positions = np.array([warp.source(rows, columns, c, area) for c in range(COLOUR_PLANES)])
        where = (positions - (step - 1) / 2) / step  # C 2 h w
        ends = np.floor(where.min((0, 2, 3))), np.ceil(where.max((0, 2, 3))) + 1
        (y0, x0), (y1, x1) = (np.clip(end, -1, np.array(size) + 1).astype(int).tolist() for end in ends)
        box = Window(y0, y1, x0, x1).grow(SPLINE_REACH).clip_to(size)
        light, corner = read(box), np.array([box.y0, box.x0])[:, None, None]
        for c in range(COLOUR_PLANES):
            out[c][tile.slices_in(window)] = _read_between(light[c], where[c] - corner)
    return out


def _read_between(plane: npt.NDArray[np.float32], where: Positions) -> npt.NDArray[np.float32]:
    """Read a plane (h, w) at positions (2, h, w) by cubic splines, linearly where all around is white."""
    values: npt.NDArray[np.float32] = map_coordinates(plane, where, order=3, mode="nearest")
    white = plane >= 1 - AT_WHITE
    if white.any():
        among = map_coordinates(white.astype(np.float32), where, order=1, mode="nearest") > 1 - AT_WHITE
        values[among] = map_coordinates(plane, where[:, among], order=1, mode="nearest")
    return values


def _local_sums(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sum values (C, h, w) around each pixel, by WEIGHTS; nothing lies beyond the border."""
    down = correlate1d(values, WEIGHTS, 1, mode="constant")
    return correlate1d(down, WEIGHTS, 2, mode="constant")


def _places(window: Window, step: float) -> tuple[Places, Places]:
    """Return the places of a window's rows and columns in the picture, of which each takes `step` pixels."""
    rows, columns = np.arange(window.y0, window.y1), np.arange(window.x0, window.x1)
    return rows * step + (step - 1) / 2, columns * step + (step - 1) / 2


def _split(window: Window) -> list[Window]:
    """Split a window into tiles of at most WARP_SIDE pixels a side."""
    return [
        Window(y, min(y + WARP_SIDE, window.y1), x, min(x + WARP_SIDE, window.x1))
        for y in range(window.y0, window.y1, WARP_SIDE)
        for x in range(window.x0, window.x1, WARP_SIDE)
    ]
