"""Formulas of opcodes against the specification, pixel by pixel, and lists that are not what they should be."""

import math
import struct

import numpy as np
import pytest
from tests.burst.opcodes import gain_by_map, gain_by_vignette, gain_map, packed, source_of, vignette, warp

from klarsicht.burst.data import opcode_lists
from klarsicht.burst.data.lens_corrections import LISTS, read_corrections
from klarsicht.burst.data.opcode_lists import GainMap, RadialGain, RectilinearWarp
from klarsicht.ground.pictures.tiff_tags import Entry, Tags

SIZE = (14, 18)
ROWS, COLUMNS = (np.arange(side, dtype=float) for side in SIZE)
RNG = np.random.default_rng(0)
GRID = RNG.uniform(0.5, 3, (4, 5, 1)).tolist()
DEEP = RNG.uniform(0.5, 3, (3, 2, 2)).tolist()
TURN = (0.98, 0.02, -0.01, 0.005, 0.004, -0.006)


def field(function, *arguments):
    """A function of row and column at every pixel."""
    return np.array([[function(*arguments[:1], y, x, *arguments[1:]) for x in range(SIZE[1])] for y in range(SIZE[0])])


@pytest.mark.parametrize(
    "opcode",
    [
        gain_map((0, 0, *SIZE), GRID),
        gain_map((0, 1, *SIZE), GRID, pitch=(2, 2)),
        gain_map((3, 2, 11, 17), GRID, pitch=(3, 2)),
        gain_map((0, 0, *SIZE), GRID, spacing=(0.2, 0.1), origin=(0.3, 0.25)),
        gain_map((0, 0, 99, 99), GRID, spacing=(0.4, 0.6), origin=(-0.1, -0.5)),
        gain_map((0, 0, *SIZE), DEEP, planes=(0, 3)),
        gain_map((0, 0, *SIZE), DEEP, planes=(1, 1)),
        gain_map((0, 0, *SIZE), [[[1.7]]], spacing=(math.nan, 0.0), origin=(math.inf, 5.0)),
        gain_map((0, 0, *SIZE), [[[1.0], [2.0], [1.5]]]),
    ],
)
@pytest.mark.parametrize("plane", range(3))
def test_gain_maps(opcode, plane):
    wanted = field(gain_by_map, opcode, plane, *SIZE)
    np.testing.assert_allclose(GainMap.parse(opcode[2]).gain(ROWS, COLUMNS, plane, SIZE), wanted, rtol=1e-6)


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.4, 0.7)])
def test_radial_gains(centre):
    opcode = vignette((0.4, 0.3, -0.2, 0.1, 0.05), centre)
    got = RadialGain.parse(opcode[2]).gain(ROWS, COLUMNS, 0, SIZE)
    np.testing.assert_allclose(got, field(gain_by_vignette, opcode, *SIZE), rtol=1e-6)


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.4, 0.7)])
@pytest.mark.parametrize("sets", [[TURN], [(1.01, 0, 0, 0, 0, 0), TURN, (0.99, 0.01, 0, 0, 0, 0)]])
def test_warps(sets, centre):
    opcode = warp(sets, centre)
    made = RectilinearWarp.parse(opcode[2], 3, SIZE)
    for plane in range(3):
        wanted = np.moveaxis(field(source_of, opcode, plane, *SIZE), -1, 0)
        np.testing.assert_allclose(made.source(ROWS, COLUMNS, plane, SIZE), wanted, rtol=1e-12)


def test_lists_are_packed_as_they_were():
    data = packed(gain_map((0, 0, 2, 2), GRID, flags=3), vignette((0,) * 5), (4321, 1, b"abc"))
    opcodes = opcode_lists.parse_list(data)
    assert opcode_lists.pack_list(opcodes) == data
    assert [(o.name, o.is_optional, o.is_known) for o in opcodes] == [
        ("GainMap", True, True),
        ("FixVignetteRadial", False, True),
        ("opcode 4321", True, False),
    ]


def lens(**lists):
    """Corrections of lists, named l1 to l3, of a file a.dng."""
    data = {LISTS[int(name[1])]: Entry(7, len(data), data) for name, data in lists.items()}
    return read_corrections(Tags(data, {}, {}), SIZE, "a.dng")


MAP = gain_map((0, 0, *SIZE), GRID)
WHOLE = packed(MAP, warp([TURN]))
NAN = float("nan")
PLAIN = struct.pack(">10I", 0, 0, 9, 9, 0, 1, 1, 1, 2, 2)


@pytest.mark.parametrize(
    "data",
    [
        *(WHOLE[:n] for n in (0, 3, 4, 15, 19, 40, 100, len(WHOLE) - 1)),
        struct.pack(">I", 2**32 - 1) + WHOLE[4:],
        packed(*[MAP] * 65),
        packed((9, 0, PLAIN + struct.pack(">4dI", 1, 1, 0, 0, 2**32 - 1) + b"\0" * 16)),
        packed((9, 0, struct.pack(">10I", 0, 0, 9, 9, 0, 1, 1, 1, 2**32 - 1, 2**32 - 1) + b"\0" * 36)),
        packed(gain_map((0, 0, *SIZE), [[[NAN]]])),
        packed(gain_map((0, 0, *SIZE), [[[math.inf]]])),
        packed(gain_map((0, 0, *SIZE), [[[-1.0]]])),
        packed(gain_map((0, 0, *SIZE), [[[2000.0]]])),
        packed(gain_map((0, 0, *SIZE), GRID, pitch=(0, 1))),
        packed(gain_map((5, 0, 5, 9), GRID)),
        packed(gain_map((0, 0, *SIZE), GRID, planes=(0, 0))),
        packed(gain_map((0, 0, *SIZE), GRID, spacing=(0.0, 1.0))),
        packed(gain_map((0, 0, *SIZE), GRID, spacing=(NAN, 1.0))),
        packed(gain_map((0, 0, *SIZE), GRID, origin=(math.inf, 0.0))),
        packed((9, 0, b"")),
        packed(vignette((NAN, 0, 0, 0, 0))),
        packed(vignette((-3.0, 0, 0, 0, 0))),
        packed(vignette((1e300, 1e300, 0, 0, 0))),
        packed(vignette((0, 0, 0, 0, 0), (2.0, 0.5))),
        packed((3, 0, b"\0" * 55)),
        packed(warp([(NAN, 0, 0, 0, 0, 0)])),
        packed(warp([(1, 1e9, 0, 0, 0, 0)])),
        packed(warp([(0, 0, 0, 0, 0, 0)])),
        packed(warp([(1, -2, 0, 0, 0, 0)])),
        packed(warp([TURN, TURN])),
        packed((1, 0, struct.pack(">I", 2**32 - 1))),
    ],
)
def test_a_damaged_list_is_left_out_with_one_line(data):
    found = lens(l3=data)
    assert found.is_empty and not found.tags(mosaic=True) and not found.tags(mosaic=False)
    (line,) = found.lines(mosaic=False)
    assert line.startswith("OpcodeList3 of a.dng is damaged and left out: ") and "\n" not in line


def kinds(corrections):
    return [type(one) for one in corrections]


def test_an_unknown_opcode_is_skipped_where_it_is_optional_and_stops_the_list_where_it_is_not():
    skipped = lens(l3=packed(MAP, (99, 1, b"xyz"), vignette((0.1, 0, 0, 0, 0))))
    assert kinds(skipped.on_colours) == [GainMap, RadialGain] and not skipped.remains
    assert "OpcodeList3: optional opcode 99 is unknown and skipped" in skipped.lines(mosaic=False)
    stopped = lens(l3=packed(MAP, (99, 0, b"xyz"), vignette((0.1, 0, 0, 0, 0))))
    assert kinds(stopped.on_colours) == [GainMap]
    assert stopped.tags(mosaic=False)[51022].data == packed((99, 0, b"xyz"), vignette((0.1, 0, 0, 0, 0)))
    assert "OpcodeList3 (opcode 99, FixVignetteRadial) is not applied: a DNG keeps it" in stopped.lines(mosaic=False)


def test_what_is_applied_to_colours_is_not_in_their_dng_and_in_that_of_a_mosaic():
    """The second warp acts on what the first leaves: neither it nor what follows it is applied."""
    turn, trim = warp([TURN]), (6, 0, struct.pack(">4I", 0, 0, 9, 9))
    found = lens(l2=packed(MAP), l3=packed(turn, MAP, turn, trim))
    assert (kinds(found.on_samples), kinds(found.on_colours)) == ([GainMap], [RectilinearWarp, GainMap])
    assert {tag: entry.data for tag, entry in found.tags(mosaic=False).items()} == {51022: packed(turn, trim)}
    assert {tag: entry.data for tag, entry in found.tags(mosaic=True).items()} == {
        51009: packed(MAP),
        51022: packed(turn, MAP, turn, trim),
    }
    assert found.backward_version(mosaic=False) == (1, 3, 0, 0) and not found.obstacle
    assert (
        "lens corrections of the file, applied: 1 GainMap of OpcodeList2, 1 WarpRectilinear of OpcodeList3"
        in (found.lines(mosaic=False)[0])
    )


@pytest.mark.parametrize(
    "lists, obstacle",
    [
        ({"l2": packed(MAP, (10, 0, b"\0" * 40))}, "OpcodeList2 (DeltaPerRow)"),
        ({"l2": packed(warp([TURN]))}, "OpcodeList2 (WarpRectilinear)"),
        ({"l1": packed(MAP)}, "OpcodeList1 (GainMap)"),
        ({"l1": packed((5, 0, b"\0" * 12), MAP)}, "OpcodeList1 (GainMap)"),
        ({"l1": packed((5, 0, b"\0" * 12))}, ""),
        ({"l3": packed((10, 0, b"\0" * 40))}, ""),
    ],
)
def test_opcodes_for_the_mosaic_that_are_not_applied_are_obstacles(lists, obstacle):
    found = lens(**lists)
    assert found.obstacle == obstacle
    if obstacle:
        (kept,) = (line for line in found.lines(mosaic=True) if "merged as planes" in line)
        (left,) = (line for line in found.lines(mosaic=False) if line.endswith("it is left out"))
        assert kept.startswith(obstacle) and left.startswith(obstacle)


def test_the_list_for_counts_is_kept_only_where_pixels_are_as_the_camera_stored_them():
    data = packed(MAP)
    for changed in ({50712: Entry(3, 1, b"\0\0")}, {50829: Entry(4, 4, struct.pack("<4I", 2, 0, 14, 18))}):
        found = read_corrections(Tags({51008: Entry(7, len(data), data), **changed}, {}, {}), SIZE, "a.dng")
        assert not found.tags(mosaic=True) and not found.obstacle
        assert found.notes == ("OpcodeList1 (GainMap) is left out: it is for pixels as the camera stored them",)
    whole = {256: Entry(4, 1, struct.pack("<I", 18)), 257: Entry(4, 1, struct.pack("<I", 14))}
    whole[50829] = Entry(4, 4, struct.pack("<4I", 0, 0, 14, 18))
    found = read_corrections(Tags({51008: Entry(7, len(data), data), **whole}, {}, {}), SIZE, "a.dng")
    assert found.tags(mosaic=True)[51008].data == data
