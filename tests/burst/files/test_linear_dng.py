"""Linear DNG files that tifffile wrote from codes that the test knows, and those that klarsicht writes."""

import numpy as np
import pytest
import tifffile
from tests.burst.conftest import MATRIX
from tests.burst.files.test_lossless_jpeg import written
from tests.burst.opcodes import gain_map, packed, tag

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.lens_corrections import LensCorrections
from klarsicht.burst.data.opcode_lists import RadialGain
from klarsicht.burst.data.photograph import Header, Sensor
from klarsicht.burst.files import dng
from klarsicht.burst.files.reading import read
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

pytest.importorskip("imagecodecs")
SIZE = (64, 96)
WHITE = 4095


def codes_of(seed=0):
    return np.random.default_rng(seed).integers(100, WHITE, (*SIZE, 3)).astype(np.uint16)


def write(path, codes, extra=(), white=WHITE, black=(64, 64, 64), **options):
    """A linear DNG of one directory, as phones write them."""
    matrix = [n for value in MATRIX for n in (round(value * 10000), 10000)]
    tags = [
        (271, 2, 0, "Example", True),
        (272, 2, 0, "Phone", True),
        (50706, 1, 4, bytes([1, 6, 0, 0]), True),
        (50714, 4, 3, black, True),
        *([] if white is None else [(50717, 4, 3, (white,) * 3, True)]),
        (50721, 10, 9, matrix, True),
        (50728, 5, 3, (1, 2, 1, 1, 2, 3), True),
        (50778, 3, 1, 21, True),
        (51041, 12, 6, (1e-4, 1e-6, 2e-4, 2e-6, 3e-4, 3e-6), True),
        *extra,
    ]
    options = {"tile": (32, 48), "metadata": None} | options
    tifffile.imwrite(path, codes, photometric=34892, planarconfig="contig", extratags=tags, **options)
    return path


@pytest.mark.parametrize("compression", [None, 7, 52546, 8])
def test_codes_come_back_under_each_compression(tmp_path, compression):
    """Uncompressed, lossless JPEG, JPEG XL (as ProRAW of 2024 has it) and deflate."""
    codes, options = codes_of(), {}
    if compression is not None:
        lossless = {7: {"lossless": True, "bitspersample": 16}, 52546: {"lossless": True}}.get(compression, {})
        options = {"compression": compression, "compressionargs": lossless}
    found = read(write(tmp_path / "a.dng", codes, **options))
    np.testing.assert_allclose(found.light, np.moveaxis((codes - 64.0) / (WHITE - 64), -1, 0), atol=1e-6)
    header = found.header
    assert header.colour == "rgb" and header.is_raw and header.cell == "" and header.camera == "Example Phone"
    assert header.profile == (NoiseLevel(1e-3, 1e-4), NoiseLevel(2e-6**0.5, 2e-4), NoiseLevel(3e-6**0.5, 3e-4))
    assert header.rendering.gains == pytest.approx((2, 1, 1.5))


def test_table_and_active_area_are_applied(tmp_path):
    table = (np.arange(256) ** 2 // 16).astype(np.uint16)
    codes = np.random.default_rng(1).integers(20, 256, (*SIZE, 3)).astype(np.uint16)
    extra = [(50712, 3, 256, tuple(table.tolist()), True), (50829, 4, 4, (2, 4, 60, 90), True)]
    found = read(write(tmp_path / "a.dng", codes, extra, white=int(table[-1]), black=(0, 0, 0)))
    assert found.header.size == (58, 86)
    np.testing.assert_allclose(found.light, np.moveaxis(table[codes][2:60, 4:90] / table[-1], -1, 0), atol=1e-6)


def test_a_gain_map_is_applied_to_colours(tmp_path):
    """Of OpcodeList2, which such a file has for its colours: gain 2 everywhere."""
    ones = [[[2.0] * 3] * 2] * 2
    two = gain_map((0, 0, *SIZE), ones, planes=(0, 3))
    path = write(tmp_path / "a.dng", codes_of() // 4, [tag(2, packed(two))])
    found, room = read(path), tmp_path / "room"
    room.mkdir()
    whole = Window(0, SIZE[0], 0, SIZE[1])
    spool = written(found.light, found.header, room)
    np.testing.assert_allclose(Renderer(spool, found.header).linear_window(whole), 2 * found.light, rtol=1e-5)


def test_what_klarsicht_writes_it_reads(tmp_path):
    light = np.random.default_rng(2).uniform(0, 1, (3, 40, 60)).astype(np.float32)
    written(light, Header(tmp_path / "a.png", "rgb", (40, 60), 255, "srgb"), tmp_path)
    found = read(tmp_path / "out.dng")
    np.testing.assert_allclose(found.light, light, atol=1e-4)
    assert found.header.profile == pytest.approx((NoiseLevel(1e-3, 1e-4),) * 3)


def test_light_that_gains_lifted_above_white_is_read_back(tmp_path):
    """A third of the picture is overexposed, and a lens brightens it towards its corners."""
    light = np.full((4, *SIZE), 0.3, np.float32)
    light[:3, : SIZE[0] // 3] = 1
    spool = FrameStore(tmp_path / "s.f32", (1, 4, *SIZE))
    spool.allocate()
    spool.write_frame(0, light)
    lens = LensCorrections(size=SIZE, on_colours=(RadialGain((0.8, 0, 0, 0, 0), (0.5, 0.5)),))
    sensor = Sensor("", (0.0, 0.0, 0.0), 65535.0)
    header = Header(path=tmp_path / "x.dng", colour="rgb", size=SIZE, levels=65535, sensor=sensor, lens=lens)
    dng.write(spool, header, [NoiseLevel(0.01, 0.001)] * 3, tmp_path / "own.dng")
    found = read(tmp_path / "own.dng").light
    assert found[:, 0, 0] == pytest.approx(1.8, rel=0.02) and found[:, 60, 48] == pytest.approx(0.3, rel=0.5)


def test_without_a_white_level_it_is_the_highest_code(tmp_path):
    codes = np.full((*SIZE, 3), 255, np.uint8)
    codes[:32] = 51
    light = read(write(tmp_path / "a.dng", codes, white=None, black=(0, 0, 0))).light
    assert light[:, 40].mean() == pytest.approx(1) and light[:, 0].mean() == pytest.approx(51 / 255)


def test_grey_and_unknown_compressions_are_one_line(tmp_path):
    path = write(tmp_path / "a.dng", codes_of())
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        entry = file.pages[0].tags[259]
    data[entry.valueoffset : entry.valueoffset + 2] = (34713).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.dng cannot be decoded; got .*lossless JPEG"):
        read(path)
