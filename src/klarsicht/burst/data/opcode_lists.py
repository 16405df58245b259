"""Opcode lists of DNG files (specification 1.7, chapter 7): a camera's own corrections of its lens.

A list is a count, and that many opcodes, each with its number, version, flags and parameters, all big-endian. Places
are pixels of the image that the list is for, 0 the centre of the first: h rows and w columns.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.floating[Any]]  # (h,) or (w,): pixels
Gains = npt.NDArray[np.float32]  # h w
Positions = npt.NDArray[np.floating[Any]]  # h w: pixels

_NAMES = (
    "WarpRectilinear WarpFisheye FixVignetteRadial FixBadPixelsConstant FixBadPixelsList TrimBounds MapTable "
    "MapPolynomial GainMap DeltaPerRow DeltaPerColumn ScalePerRow ScalePerColumn WarpRectilinear2"
)
OPCODE_NAMES = dict(enumerate(_NAMES.split(), 1))
OPTIONAL = 1  # flag: a reader that does not know the opcode may skip it
HEAD = struct.Struct(">IBBBBII")  # number, version, flags, bytes of parameters
MOST_OPCODES = 64  # of a list; cameras write four to ten
MOST_GAIN = 1000.0  # a larger one is no vignetting
MOST_SCALE = 4.0  # of a warp, along a row or a column: beyond it, as where it folds, the picture is destroyed
CHECKED = 65  # places a side, or radii, at which a warp or a gain is checked


@dataclass(frozen=True)
class Opcode:
    """One opcode as stored. number: of the specification's table. version: of the specification that brought it."""

    number: int
    version: tuple[int, int, int, int]
    flags: int
    data: bytes

    @property
    def name(self) -> str:
        return OPCODE_NAMES.get(self.number, f"opcode {self.number}")

    @property
    def is_optional(self) -> bool:
        return bool(self.flags & OPTIONAL)

    @property
    def is_known(self) -> bool:
        """Whether the specification has such an opcode."""
        return self.number in OPCODE_NAMES

    def pack(self) -> bytes:
        """Pack the opcode as it is stored."""
        return HEAD.pack(self.number, *self.version, self.flags, len(self.data)) + self.data


def parse_list(data: bytes) -> tuple[Opcode, ...]:
    """Parse an opcode list. Raises ValueError for one that is cut off, or of more than MOST_OPCODES."""
    if len(data) < 4:
        raise ValueError(f"{len(data)} bytes")
    (count,) = struct.unpack_from(">I", data)
    if count > MOST_OPCODES:
        raise ValueError(f"{count} opcodes, more than {MOST_OPCODES}")
    opcodes, place = [], 4
    for i in range(count):
        if place + HEAD.size > len(data):
            raise ValueError(f"cut off, {i} of its {count} opcodes are there")
        number, *version, flags, size = HEAD.unpack_from(data, place)
        place += HEAD.size
        if place + size > len(data):
            raise ValueError(f"cut off, {i} of its {count} opcodes are there")
        major, minor, patch, build = version
        opcodes.append(Opcode(number, (major, minor, patch, build), flags, data[place : place + size]))
        place += size
    return tuple(opcodes)


def pack_list(opcodes: tuple[Opcode, ...]) -> bytes:
    """Pack opcodes to a list, the inverse of `parse_list`."""
    return struct.pack(">I", len(opcodes)) + b"".join(opcode.pack() for opcode in opcodes)


@dataclass(frozen=True, eq=False)
class GainMap:
    """Gains at the points of a grid, interpolated bilinearly. area: top, left, bottom and right (exclusive) of the
    pixels multiplied, every pitch-th row and column. planes: first of the image's planes, and number. step, origin:
    between points, and of the first, in shares of the image's sides. gains: (rows, columns, planes); planes beyond
    these take the last."""

    area: tuple[int, int, int, int]
    planes: tuple[int, int]
    pitch: tuple[int, int]
    step: tuple[float, float]
    origin: tuple[float, float]
    gains: npt.NDArray[np.float32]

    number, HEAD = 9, struct.Struct(">10I4dI")

    @classmethod
    def parse(cls, data: bytes) -> GainMap:
        """Parse the parameters. Raises ValueError where they are not what the specification allows."""
        if len(data) < cls.HEAD.size:
            raise ValueError(f"a GainMap of {len(data)} bytes")
        *whole, rows, columns = cls.HEAD.unpack_from(data)[:10]
        step_v, step_h, origin_v, origin_h, depth = cls.HEAD.unpack_from(data)[10:]
        top, first, bottom, right, plane, planes, row_pitch, column_pitch = whole
        points = rows * columns * depth
        if points < 1 or len(data) != cls.HEAD.size + 4 * points:
            raise ValueError(f"a GainMap of {rows} x {columns} x {depth} points in {len(data)} bytes")
        if min(row_pitch, column_pitch, planes) < 1 or bottom <= top or right <= first:
            raise ValueError(f"a GainMap of rows {top} to {bottom} by {row_pitch}, columns {first} to {right}")
        step = (step_v if rows > 1 else 1.0, step_h if columns > 1 else 1.0)
        origin = (origin_v if rows > 1 else 0.0, origin_h if columns > 1 else 0.0)
        if not all(map(math.isfinite, (*step, *origin))) or min(step) <= 0:
            raise ValueError(f"a GainMap whose points are {step} apart, from {origin}")
        gains = np.frombuffer(data, ">f4", points, cls.HEAD.size).reshape(rows, columns, depth).astype(np.float32)
        if not ((gains >= 0) & (gains <= MOST_GAIN)).all():
            raise ValueError(f"a GainMap with gains that are not between 0 and {MOST_GAIN:g}")
        return cls((top, first, bottom, right), (plane, planes), (row_pitch, column_pitch), step, origin, gains)

    def gain(self, rows: Places, columns: Places, plane: int, size: tuple[int, int]) -> Gains:
        """Compute the gains (h, w) of a plane at places; 1 where the map does not apply."""
        top, start, bottom, right = self.area
        first, count = self.planes
        out = np.ones((len(rows), len(columns)), np.float32)
        if not first <= plane < first + count:
            return out
        down = _members(rows, top, bottom, self.pitch[0])
        across = _members(columns, start, right, self.pitch[1])
        if not down.any() or not across.any():
            return out
        points = self.gains[..., min(plane - first, self.gains.shape[-1] - 1)]
        i, v = _grid_position(rows[down], size[0], self.step[0], self.origin[0], len(points))
        j, u = _grid_position(columns[across], size[1], self.step[1], self.origin[1], points.shape[1])
        below, beside = np.minimum(i + 1, len(points) - 1), np.minimum(j + 1, points.shape[1] - 1)
        upper = points[np.ix_(i, j)] * (1 - u) + points[np.ix_(i, beside)] * u
        lower = points[np.ix_(below, j)] * (1 - u) + points[np.ix_(below, beside)] * u
        out[np.ix_(down, across)] = upper * (1 - v[:, None]) + lower * v[:, None]
        return out


def _members(places: Places, first: int, end: int, pitch: int) -> npt.NDArray[np.bool_]:
    pixels = np.floor(places + 0.5).astype(np.int64)
    return (pixels >= first) & (pixels < end) & ((pixels - first) % pitch == 0)


def _grid_position(
    places: Places, side: int, step: float, origin: float, points: int
) -> tuple[npt.NDArray[np.int64], Gains]:
    """Return the point before each place, and how far beyond it the place lies; beyond the grid its border."""
    position = np.clip(((places + 0.5) / side - origin) / step, 0, points - 1)
    point = np.floor(position)
    return point.astype(np.int64), (position - point).astype(np.float32)


@dataclass(frozen=True)
class RadialGain:
    """FixVignetteRadial: the gain 1 + k0 r^2 + ... + k4 r^10 (`radius_frame`). centre: in shares of the image."""

    coefficients: tuple[float, ...]
    centre: tuple[float, float]
    number = 3

    @classmethod
    def parse(cls, data: bytes) -> RadialGain:
        """Parse the parameters. Raises ValueError where they are not what the specification allows."""
        if len(data) != 56:
            raise ValueError(f"a FixVignetteRadial of {len(data)} bytes")
        *coefficients, x, y = struct.unpack(">7d", data)
        correction = cls(tuple(coefficients), (y, x))
        _check_numbers("FixVignetteRadial", coefficients, correction.centre)
        gains = correction.at_radius(np.linspace(0, 1, CHECKED) ** 2)
        if not ((gains >= 0) & (gains <= MOST_GAIN)).all():
            raise ValueError(f"a FixVignetteRadial with gains that are not between 0 and {MOST_GAIN:g}")
        return correction

    def at_radius(self, r2: Positions) -> Positions:
        """Compute the gain at squared radii."""
        return 1 + r2 * np.polynomial.polynomial.polyval(r2, self.coefficients)

    def gain(self, rows: Places, columns: Places, plane: int, size: tuple[int, int]) -> Gains:
        """Compute the gains (h, w), the same in all planes."""
        y, x, _, _, _ = radius_frame(rows, columns, self.centre, size)
        return self.at_radius(np.minimum(y[:, None] ** 2 + x**2, 1)).astype(np.float32)


@dataclass(frozen=True)
class RectilinearWarp:
    """WarpRectilinear: where in the distorted picture a pixel is read. coefficients: one set of kr0 to kr3, kt0 and kt1
    for all planes, or one a plane. centre: vertical and horizontal, in shares of the image."""

    coefficients: tuple[tuple[float, ...], ...]
    centre: tuple[float, float]
    number = 1

    @classmethod
    def parse(cls, data: bytes, planes: int, size: tuple[int, int]) -> RectilinearWarp:
        """Parse the parameters. Raises ValueError where they are not what the specification allows, or where the
        picture would be folded or stretched more than MOST_SCALE."""
        sets = struct.unpack_from(">I", data)[0] if len(data) >= 4 else 0
        if sets not in (1, planes) or len(data) != 4 + 48 * sets + 16:
            raise ValueError(f"a WarpRectilinear of {sets} sets of coefficients in {len(data)} bytes")
        *flat, x, y = struct.unpack_from(f">{6 * sets + 2}d", data, 4)
        correction = cls(tuple(tuple(flat[6 * i : 6 * i + 6]) for i in range(sets)), (y, x))
        _check_numbers("WarpRectilinear", flat, correction.centre)
        rows, columns = (np.linspace(0, side - 1, CHECKED) for side in size)
        for plane in range(sets):
            v, u = correction.source(rows, columns, plane, size)
            for axis, (source, places) in enumerate(((v, rows), (u, columns))):
                scale = np.diff(source, axis=axis) / max(places[1] - places[0], 1e-9)
                if not ((scale > 0) & (scale <= MOST_SCALE)).all():
                    raise ValueError("a WarpRectilinear that folds the picture")
        return correction

    def source(self, rows: Places, columns: Places, plane: int, size: tuple[int, int]) -> tuple[Positions, Positions]:
        """Compute the rows and columns (h, w) that are read for the pixels at places."""
        kr0, kr1, kr2, kr3, kt0, kt1 = self.coefficients[min(plane, len(self.coefficients) - 1)]
        y, x, m, cy, cx = radius_frame(rows, columns, self.centre, size)
        y = y[:, None]
        r2 = y**2 + x**2
        near = np.minimum(r2, 1)
        f = kr0 + near * (kr1 + near * (kr2 + near * kr3))
        down = y * f + kt1 * (2 * x * y) + kt0 * (r2 + 2 * y**2)
        across = x * f + kt0 * (2 * x * y) + kt1 * (r2 + 2 * x**2)
        return cy + m * down, cx + m * across


def radius_frame(
    rows: Places, columns: Places, centre: tuple[float, float], size: tuple[int, int]
) -> tuple[Places, Places, float, float, float]:
    """Compute the coordinates y (h,) and x (w,) of places from the optical centre, in units of its distance m to the
    farthest corner; and m and the centre's row and column, in pixels."""
    cy, cx = (share * (side - 1) for share, side in zip(centre, size, strict=True))
    m = math.hypot(max(cy, size[0] - 1 - cy), max(cx, size[1] - 1 - cx)) or 1.0
    return (rows - cy) / m, (columns - cx) / m, m, cy, cx


def _check_numbers(name: str, coefficients: list[float], centre: tuple[float, float]) -> None:
    if not all(map(math.isfinite, coefficients)) or not all(0 <= share <= 1 for share in centre):
        raise ValueError(f"a {name} whose numbers are not finite, or whose centre lies outside the picture")


Gain = GainMap | RadialGain
