"""Corrections of the lens in every output: the specification pixel by pixel, truths before the lens, tags of DNGs."""

from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import map_coordinates
from tests.burst.conftest import X_TRANS
from tests.burst.opcodes import gain_by_map, gain_by_vignette, gain_map, packed, source_of, tag, vignette, warp

from klarsicht.burst.data.bayer import PATTERNS, sample_mosaic, to_mosaic
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.lens_corrections import LISTS, read_corrections
from klarsicht.burst.data.photograph import Header, Rendering, Sensor
from klarsicht.burst.files import dng, write_pictures
from klarsicht.burst.files.reading import read
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.pictures.tiff_tags import Entry, Tags
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIZE = (40, 52)
HEIGHT, WIDTH = SIZE
Y, X = np.mgrid[:HEIGHT, :WIDTH]
FALLOFF = [[[1 + 0.1 * v + 0.2 * h] for h in range(4)] for v in range(3)]
BULGE = (0.96, 0.05, -0.01, 0.0, 0.003, -0.002)
SPREAD = [(0.961, 0.05, -0.01, 0, 0, 0), (0.96, 0.05, -0.01, 0, 0, 0), (0.958, 0.05, -0.01, 0, 0, 0)]


def bayer_maps(*scales, size=SIZE):
    """Four GainMaps, one for each place of the cell, row by row."""
    cell = [(0, 0), (0, 1), (1, 0), (1, 1)]
    return [
        gain_map((y, x, *size), [[[scale * g[0]] for g in row] for row in FALLOFF], pitch=(2, 2))
        for (y, x), scale in zip(cell, scales, strict=True)
    ]


def spooled(planes, path):
    light = np.concatenate([planes, np.ones_like(planes[:1])])[None].astype(np.float32)
    spool = FrameStore(path, light.shape)
    spool.allocate()
    spool.write_frame(0, light[0])
    return spool


def renderer(path, light, pattern="RGGB", **lists):
    """Of planes (4, h, w) or interpolated colours (3, H, W) of a sensor with such lists, and no colours of its own."""
    data = {LISTS[int(name[1])]: Entry(7, len(data), data) for name, data in lists.items()}
    lens = read_corrections(Tags(data, {}, {}), SIZE, "a.dng")
    assert not any("damaged" in note for note in lens.notes)
    sensor = Sensor(pattern, (0.0,) * 4, 65535.0)
    colour = "mosaic" if len(light) == 4 else "rgb"
    header = Header(path / "a.dng", colour, SIZE, 65535, sensor=sensor, lens=lens, rendering=Rendering())
    return Renderer(spooled(light, path / "s"), header)


def whole(room):
    return room.linear_window(Window(0, HEIGHT, 0, WIDTH))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_sample_of_a_mosaic_has_the_gain_of_its_place(tmp_path, pattern):
    """Samples are the light over their gain, pixel by pixel: the light comes back at every sample."""
    maps = bayer_maps(1.0, 1.3, 1.2, 0.9)
    light = np.random.default_rng(0).uniform(0.1, 0.4, (3, *SIZE)).astype(np.float32)
    gains = np.array(
        [[np.prod([gain_by_map(m, y, x, 0, *SIZE) for m in maps]) for x in range(WIDTH)] for y in range(HEIGHT)]
    )
    planes = sample_mosaic(light / gains.astype(np.float32), pattern)
    got = whole(renderer(tmp_path, planes, pattern, l2=packed(*maps)))
    np.testing.assert_allclose(sample_mosaic(got, pattern), sample_mosaic(light, pattern), rtol=1e-5)


@pytest.mark.parametrize("pattern", ["GRBG", X_TRANS])
def test_interpolated_colours_have_the_gain_of_their_samples(tmp_path, pattern):
    """Of a smooth map, the mean over the samples of a colour around a pixel is the map, but at its corners and the
    picture's border; a Bayer map of each place, its own for red and blue and the mean of both for green."""
    scales = (1.0, 1.0, 1.0, 1.0) if len(pattern) == 36 else (1.1, 1.4, 0.7, 1.3)  # of GRBG: green, red, blue, green
    of_colour = {"R": scales[1], "G": (scales[0] + scales[3]) / 2, "B": scales[2]}
    light = np.full((3, *SIZE), 0.2, np.float32)
    got = whole(renderer(tmp_path, light, pattern, l2=packed(*bayer_maps(*scales))))
    smooth = gain_map((0, 0, *SIZE), FALLOFF)
    map_gains = np.array([[gain_by_map(smooth, y, x, 0, *SIZE) for x in range(WIDTH)] for y in range(HEIGHT)])
    wanted = 0.2 * np.stack([of_colour[c] * map_gains for c in "RGB"])
    np.testing.assert_allclose(got, wanted, rtol=0.03)
    np.testing.assert_allclose(got[:, 2:-2, 2:-2], wanted[:, 2:-2, 2:-2], rtol=0.012)
    assert np.abs(got / wanted - 1)[:, 2:-2, 2:-2].mean() < 1e-3


def literal(light, opcodes):
    """Colours (3, H, W) through a list, with another reading between pixels: splines of the fifth order."""
    for opcode in opcodes:
        out = np.empty_like(light)
        for c in range(3):
            if opcode[0] == 1:
                where = np.array([[source_of(opcode, y, x, c, *SIZE) for x in range(WIDTH)] for y in range(HEIGHT)])
                out[c] = map_coordinates(light[c], np.moveaxis(where, -1, 0), order=5, mode="nearest")
                continue
            gain = partial(gain_by_map, opcode, plane=c) if opcode[0] == 9 else partial(gain_by_vignette, opcode)
            gains = [[gain(row=y, column=x, height=HEIGHT, width=WIDTH) for x in range(WIDTH)] for y in range(HEIGHT)]
            out[c] = light[c] * np.array(gains)
        light = out
    return light


VIGNETTE = vignette((0.3, 0.2, 0.1, 0.0, 0.0), (0.45, 0.55))
BLUE_MAP = gain_map((4, 6, 40, 50), [[[1.5], [2.0]], [[1.2], [0.8]]], planes=(2, 1))


@pytest.mark.parametrize(
    "opcodes",
    [[VIGNETTE], [warp([BULGE])], [warp(SPREAD)], [VIGNETTE, warp(SPREAD)], [warp([BULGE]), BLUE_MAP, VIGNETTE]],
)
def test_the_list_for_colours_is_applied_in_its_order(tmp_path, opcodes, monkeypatch):
    """Light that splines of both orders read alike; in windows as at once."""
    light = np.stack([0.3 + 0.1 * np.sin(X / (4 + c) + Y / 7) for c in range(3)]).astype(np.float32)
    room = renderer(tmp_path, light, l3=packed(*opcodes))
    got = whole(room)
    np.testing.assert_allclose(got, literal(light, opcodes), atol=6e-4)
    monkeypatch.setattr("klarsicht.burst.files.corrected_light.WARP_SIDE", 16)
    np.testing.assert_allclose(room.linear_window(Window(5, 31, 9, 47)), got[:, 5:31, 9:47], atol=1e-6)


def test_a_thumbnail_shows_what_the_whole_picture_shows(tmp_path):
    """But for half a pixel by which the samples of red and blue lie beside the middle of their cell."""
    light = np.stack([0.3 + 0.1 * np.sin(X / 9 + Y / (11 + c)) for c in range(3)]).astype(np.float32)
    lists = {"l2": packed(*bayer_maps(1, 1.2, 1.2, 1.5)), "l3": packed(warp([BULGE]), VIGNETTE)}
    for kind in (light, sample_mosaic(light)):
        (tmp_path / str(len(kind))).mkdir()
        room = renderer(tmp_path / str(len(kind)), kind, **lists)
        means = whole(room).reshape(3, HEIGHT // 2, 2, WIDTH // 2, 2).mean((2, 4))
        got = np.moveaxis(room.thumbnail(26, developed=False), -1, 0)
        assert got.shape == means.shape
        of_samples = len(kind) == 4
        for c in range(3):
            tolerance = 0.05 if of_samples and c != 1 else 0.01
            np.testing.assert_allclose(got[c, 1:-1, 1:-1], means[c, 1:-1, 1:-1], rtol=tolerance)


def test_the_trust_is_shown_where_its_picture_is(tmp_path):
    """A picture that is its own map of trust."""
    trust = (0.5 + 0.4 * np.sin(X / 6 + Y / 8)).astype(np.float32)
    room = renderer(tmp_path, np.repeat(trust[None], 3, 0), l2=packed(*bayer_maps(2, 2, 2, 2)), l3=packed(warp(SPREAD)))
    room.spool.write_frame(0, np.repeat(trust[None], 4, 0))
    wanted = literal(np.repeat(trust[None], 3, 0), [warp(SPREAD)])[1]
    np.testing.assert_allclose(room.trust_map(WIDTH), wanted, atol=1e-3)


def test_white_stays_white_and_nothing_else_is_cut_off(tmp_path):
    """White under a gain below 1, light of .8 under a gain of 2, and the DNG's codes of both."""
    light = np.full((3, *SIZE), 0.8, np.float32)
    light[:, :, :26] = 1.0
    halves = [gain_map((0, 0, HEIGHT, 26), [[[0.7]]]), gain_map((0, 26, HEIGHT, WIDTH), [[[2.0]]])]
    room = renderer(tmp_path, light, l2=packed(*halves))
    got = whole(room)
    assert (got[:, :, :24] == 1).all()
    np.testing.assert_allclose(got[:, :, 28:], 1.6, rtol=1e-6)
    dng.write(room.spool, room.header, [NoiseLevel(1e-3, 1e-4)] * 3, tmp_path / "out.dng")
    with tifffile.TiffFile(tmp_path / "out.dng") as file:
        codes, white = file.asarray(), file.pages[0].tags[50717].value[0]
        assert 51009 not in file.pages[0].tags
    np.testing.assert_allclose(codes / white, np.moveaxis(got, 0, -1), atol=1 / white)
    assert codes.max() >= 65534 and (codes[:, :24] >= white).all()


def test_absurd_gains_leave_white_its_codes(tmp_path):
    light = np.full((3, *SIZE), 0.5, np.float32)
    room = renderer(tmp_path, light, l2=packed(gain_map((0, 0, 8, 8), [[[900.0]]])))
    dng.write(room.spool, room.header, [NoiseLevel(1e-3, 1e-4)] * 3, tmp_path / "out.dng")
    with tifffile.TiffFile(tmp_path / "out.dng") as file:
        codes, white = file.asarray(), file.pages[0].tags[50717].value[0]
    assert white == 4096 and codes[0, 0, 0] == 65535 and codes[20, 20, 0] == 2048


def test_the_noise_of_the_dng_is_that_of_corrected_light(tmp_path):
    """Noise of known variance under a map: the tag's variance at the mean light is its mean variance afterwards."""
    rng, level = np.random.default_rng(0), NoiseLevel(0.02, 1e-3)
    light = level.sample(np.full((3, *SIZE), 0.3, np.float32), rng)
    maps, fix = packed(*bayer_maps(1, 1.5, 1.5, 2)), packed(VIGNETTE)
    (clean := tmp_path / "clean").mkdir()
    truth = whole(renderer(clean, np.full((3, *SIZE), 0.3, np.float32), l2=maps, l3=fix))
    room = renderer(tmp_path, light, l2=maps, l3=fix)
    measured = np.square(whole(room) - truth).mean((1, 2))
    dng.write(room.spool, room.header, [level] * 3, tmp_path / "out.dng")
    with tifffile.TiffFile(tmp_path / "out.dng") as file:
        pairs = np.reshape(file.pages[0].tags[51041].value, (3, 2))
    stated = pairs[:, 0] * truth.mean((1, 2)) + pairs[:, 1]
    np.testing.assert_allclose(stated, measured, rtol=0.1)


@pytest.mark.parametrize("pattern", ["RGGB", X_TRANS])
def test_vignetting_is_right_in_a_dng_that_is_read_and_in_all_that_is_written(dng_of, tmp_path, pattern):
    """A grey scene behind a lens whose corners have two thirds of the light: grey to a hundredth in DNG, TIFF, preview
    and thumbnail, but for X-Trans at the very border, which is interpolated from cells inside."""
    gains = [[[1.5], [1.2], [1.5]], [[1.1], [1.0], [1.1]], [[1.5], [1.2], [1.5]]]
    inside = (slice(2, -2), slice(2, -2))
    smooth = gain_map((0, 0, 96, 126), gains)
    fall = np.array([[gain_by_map(smooth, y, x, 0, 96, 126) for x in range(126)] for y in range(96)])
    maps = [gain_map((y, x, 96, 126), gains, pitch=(2, 2)) for y in (0, 1) for x in (0, 1)]
    counts = np.rint(600 + 0.4 / fall * (16383 - 600))
    photograph = read(dng_of(tmp_path / "in.dng", counts, pattern, extra=[tag(2, packed(*maps))]))
    light, header = photograph.light, photograph.header
    room = Renderer(spooled(light, tmp_path / "s"), header)
    np.testing.assert_allclose(room.linear_window(Window(2, 94, 2, 124)), 0.4, rtol=0.01)
    write_pictures.write_tiff(room, tmp_path / "out.tif")
    write_pictures.write_preview(room, tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as preview:
        assert np.ptp(np.asarray(preview)[inside], axis=(0, 1)).max() <= 3
    shown = tifffile.imread(tmp_path / "out.tif")[inside].astype(float)
    assert np.ptp(shown, axis=(0, 1)).max() < 0.01 * shown.max()
    assert np.ptp(room.thumbnail(16), axis=(0, 1)).max() < 0.01
    dng.write(room.spool, header, [NoiseLevel(1e-3, 1e-4)] * len(light), tmp_path / "out.dng")
    with tifffile.TiffFile(tmp_path / "out.dng") as file:
        codes, tags = file.asarray() / np.max(file.pages[0].tags[50717].value), file.pages[0].tags
        if pattern == X_TRANS:
            assert 51009 not in tags
            np.testing.assert_allclose(codes[inside], 0.4, rtol=0.01)
        else:
            assert bytes(tags[51009].value) == packed(*maps) and codes[0, 0] < 0.3
            assert tuple(tags[50707].value) == (1, 3, 0, 0)


@pytest.fixture
def dng_of():
    pytest.importorskip("rawpy")
    from tests.burst.conftest import write_dng

    return write_dng


def test_places_count_from_the_active_area(dng_of, tmp_path):
    """A border of 4 rows and 6 columns that is masked: the map's rows and columns begin inside it."""
    active = (50829, 4, 4, (4, 6, 100, 132), True)
    inner = gain_map((2, 3, 40, 50), [[[1.8]]])
    counts = np.full((100, 140), 4000)
    header = read(
        dng_of(tmp_path / "in.dng", counts, extra=[active, tag(2, packed(inner)), tag(1, packed(inner))])
    ).header
    assert header.size == (96, 126) == header.lens.size
    room = Renderer(spooled(np.full((4, 48, 63), 0.2, np.float32), tmp_path / "s"), header)
    gains = to_mosaic(room.sample_gains(Window(0, 48, 0, 63)), header.sensor.pattern)
    wanted = np.ones((96, 126))
    wanted[2:40, 3:50] = 1.8
    np.testing.assert_allclose(gains, wanted)
    assert header.lens.notes == ("OpcodeList1 (GainMap) is left out: it is for pixels as the camera stored them",)


def test_stale_lists_of_a_picture_that_is_no_raw_file_are_not_handed_on(tmp_path):
    data = packed(gain_map((0, 0, 9, 9), [[[2.0]]]))
    header = Header(
        tmp_path / "a.tif", "rgb", SIZE, 65535, "srgb", tags=Tags({51022: Entry(7, len(data), data)}, {}, {})
    )
    room = Renderer(spooled(np.full((3, *SIZE), 0.2, np.float32), tmp_path / "s"), header)
    dng.write(room.spool, header, [NoiseLevel(1e-3, 1e-4)] * 3, tmp_path / "out.dng")
    with tifffile.TiffFile(tmp_path / "out.dng") as file:
        assert 51022 not in file.pages[0].tags and (file.asarray() == round(0.2 * 65535)).all()
