"""Opcode lists, packed as the DNG specification prints them, and what they do to a picture, pixel by pixel."""

import math
import struct


def packed(*opcodes, version=(1, 3, 0, 0)):
    """A list of opcodes (number, flags, parameters)."""
    parts = [struct.pack(">I4BII", n, *version, flags, len(data)) + data for n, flags, data in opcodes]
    return struct.pack(">I", len(opcodes)) + b"".join(parts)


def tag(number, data):
    """The tag of OpcodeList 1, 2 or 3 for tifffile."""
    return ({1: 51008, 2: 51009, 3: 51022}[number], 7, len(data), data, True)


def gain_map(area, gains, pitch=(1, 1), spacing=None, origin=(0.0, 0.0), planes=(0, 1), flags=0):
    """A GainMap; gains: rows of columns of planes. spacing: by default from one border of the image to the other."""
    V, H, P = len(gains), len(gains[0]), len(gains[0][0])
    spacing = spacing or (1 / max(V - 1, 1), 1 / max(H - 1, 1))
    head = struct.pack(">8I2I4dI", *area, *planes, *pitch, V, H, *spacing, *origin, P)
    return (9, flags, head + struct.pack(f">{V * H * P}f", *(g for row in gains for point in row for g in point)))


def vignette(coefficients, centre=(0.5, 0.5), flags=0):
    """A FixVignetteRadial; centre: x, y."""
    return (3, flags, struct.pack(">7d", *coefficients, *centre))


def warp(sets, centre=(0.5, 0.5), flags=0):
    """A WarpRectilinear; centre: x, y."""
    return (1, flags, struct.pack(f">I{6 * len(sets)}d2d", len(sets), *(k for one in sets for k in one), *centre))


def gain_by_map(opcode, row, column, plane, height, width):
    """The gain of a GainMap at one pixel, 1 where it does not apply."""
    data = opcode[2]
    top, left, bottom, right, first, planes, row_pitch, column_pitch, V, H = struct.unpack(">10I", data[:40])
    spacing_v, spacing_h, origin_v, origin_h, P = struct.unpack(">4dI", data[40:76])
    gains = struct.unpack(f">{V * H * P}f", data[76:])
    inside = top <= row < bottom and left <= column < right and first <= plane < first + planes
    if not inside or (row - top) % row_pitch or (column - left) % column_pitch:
        return 1.0

    def entry(v, h):
        return gains[(v * H + h) * P + min(plane - first, P - 1)]

    def place(pixel, side, origin, spacing, points):
        if points == 1:
            return 0, 0, 0.0
        x = ((pixel + 0.5) / side - origin) / spacing
        if x <= 0:
            return 0, 0, 0.0
        if x >= points - 1:
            return points - 1, points - 1, 0.0
        return int(x), int(x) + 1, x - int(x)

    v0, v1, v = place(row, height, origin_v, spacing_v, V)
    h0, h1, h = place(column, width, origin_h, spacing_h, H)
    upper = entry(v0, h0) * (1 - h) + entry(v0, h1) * h
    lower = entry(v1, h0) * (1 - h) + entry(v1, h1) * h
    return upper * (1 - v) + lower * v


def radius(row, column, centre, height, width):
    """Offsets from the optical centre in units of the distance to the farthest corner; that distance; the centre."""
    cx, cy = centre[0] * (width - 1), centre[1] * (height - 1)
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    m = max(math.dist((cy, cx), corner) for corner in corners)
    return (column - cx) / m, (row - cy) / m, m, cx, cy


def gain_by_vignette(opcode, row, column, height, width):
    """The gain of a FixVignetteRadial at one pixel."""
    *k, x, y = struct.unpack(">7d", opcode[2])
    dx, dy, *_ = radius(row, column, (x, y), height, width)
    r = math.hypot(dx, dy)
    return 1 + k[0] * r**2 + k[1] * r**4 + k[2] * r**6 + k[3] * r**8 + k[4] * r**10


def source_of(opcode, row, column, plane, height, width):
    """The row and column that a WarpRectilinear reads for one pixel."""
    (sets,) = struct.unpack(">I", opcode[2][:4])
    *k, x, y = struct.unpack(f">{6 * sets + 2}d", opcode[2][4:])
    kr0, kr1, kr2, kr3, kt0, kt1 = k[6 * min(plane, sets - 1) :][:6]
    dx, dy, m, cx, cy = radius(row, column, (x, y), height, width)
    r = math.hypot(dx, dy)
    f = kr0 + kr1 * r**2 + kr2 * r**4 + kr3 * r**6
    tx = kt0 * (2 * dx * dy) + kt1 * (r**2 + 2 * dx**2)
    ty = kt1 * (2 * dx * dy) + kt0 * (r**2 + 2 * dy**2)
    return cy + m * (f * dy + ty), cx + m * (f * dx + tx)
