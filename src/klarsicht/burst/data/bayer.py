"""Conversion between a Bayer mosaic (..., H, W) and its four half-resolution planes, always in the order R, G, G, B,
the G of a cell's first row first. All functions take numpy arrays and torch tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from klarsicht.ground.errors import InputError, unknown_name
from klarsicht.numerics.imaging.tone import Values

PATTERNS: dict[str, tuple[tuple[int, int], ...]] = {
    "RGGB": ((0, 0), (0, 1), (1, 0), (1, 1)),
    "BGGR": ((1, 1), (0, 1), (1, 0), (0, 0)),
    "GRBG": ((0, 1), (0, 0), (1, 1), (1, 0)),
    "GBRG": ((1, 0), (0, 0), (1, 1), (0, 1)),
}
"""Row and column, within a cell of 2 x 2, of R, G, G and B."""

PLANE_CHANNELS = (0, 1, 1, 2)  # the RGB channel of each plane


def cell_offsets(pattern: str) -> tuple[tuple[int, int], ...]:
    """Return the row and column of R, G, G, B within a 2 x 2 cell. Raises UsageError for another pattern."""
    if pattern not in PATTERNS:
        raise unknown_name("colour filter pattern", pattern, PATTERNS)
    return PATTERNS[pattern]


def to_planes(mosaic: Values, pattern: str = "RGGB") -> Values:
    """Split a mosaic (..., H, W) into its planes (..., 4, H/2, W/2). Raises InputError for odd sides."""
    height, width = mosaic.shape[-2:]
    if height % 2 or width % 2:
        remedy = "Crop the last row or column."
        raise InputError("mosaic", got=f"{height} x {width}", rule="both sides must be even", remedy=remedy)
    return stack_planes([mosaic[..., y::2, x::2] for y, x in cell_offsets(pattern)])


def to_mosaic(planes: Values, pattern: str = "RGGB") -> Values:
    """Interleave planes (..., 4, h, w) to a mosaic (..., 2 h, 2 w). Raises InputError for another number of planes."""
    *lead, channels, h, w = planes.shape
    if channels != 4:
        raise InputError("planes", got=f"{channels} channels", rule="a mosaic has four planes, R G G B")
    mosaic = _empty_like(planes, (*lead, 2 * h, 2 * w))
    for i, (y, x) in enumerate(cell_offsets(pattern)):
        mosaic[..., y::2, x::2] = planes[..., i, :, :]
    return mosaic


def sample_mosaic(rgb: Values, pattern: str = "RGGB") -> Values:
    """Sample an RGB image (..., 3, H, W) through the colour filter: the planes (..., 4, H/2, W/2)."""
    return stack_planes(
        [rgb[..., c, y::2, x::2] for c, (y, x) in zip(PLANE_CHANNELS, cell_offsets(pattern), strict=True)]
    )


def stack_planes(planes: Sequence[Values]) -> Values:
    """Stack planes (..., h, w) along a new channel axis, here (..., 4, h, w)."""
    *lead, h, w = planes[0].shape
    together = _empty_like(planes[0], (*lead, len(planes), h, w))
    for i, plane in enumerate(planes):
        together[..., i, :, :] = plane
    return together


def _empty_like(array: Values, shape: tuple[int, ...]) -> Values:
    return np.empty(shape, array.dtype) if isinstance(array, np.ndarray) else array.new_empty(shape)
