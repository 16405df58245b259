"""Tiles of a DNG, decoded by another implementation of lossless JPEG (liblj92), and cut by slices of numpy; whole files
by tifffile and Pillow."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from klarsicht.burst.data.bayer import to_mosaic
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.photograph import Header
from klarsicht.burst.files import lossless_jpeg
from klarsicht.burst.files.dng import write
from klarsicht.burst.files.lossless_jpeg import cut_tiles, encode_tile
from klarsicht.burst.files.reading import read
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

codecs = pytest.importorskip("imagecodecs")


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_tile_is_decoded_to_its_samples_and_says_what_readers_need(samples):
    """darktable takes predictor 1 alone: the byte after the samples of the scan's head."""
    codes = np.random.default_rng(0).integers(0, 65536, (32, 48, samples)).astype(np.uint16)
    codes[:, :20] = 65535
    data = encode_tile(codes)
    frame, scan = data.index(b"\xff\xc3"), data.index(b"\xff\xda")
    assert struct.unpack_from(">BHHB", data, frame + 4) == (16, 32, 48, samples)
    assert data[scan + 5 + 2 * samples] == 1
    if samples == 1:
        np.testing.assert_array_equal(codecs.ljpeg_decode(data), codes[..., 0])
    np.testing.assert_array_equal(codecs.jpeg8_decode(data).reshape(codes.shape), codes)


def test_tiles_are_slices_of_the_picture_beyond_which_rows_go_on_and_then_end():
    picture = np.random.default_rng(1).integers(0, 65536, (70, 90, 3)).astype(np.uint16)
    wide = np.pad(np.pad(picture, ((0, 0), (0, 6), (0, 0)), "edge"), ((0, 26), (0, 0), (0, 0)))
    strips = [picture[:7], picture[7:50], picture[50:]]
    wanted = [wide[y : y + 32, x : x + 48] for y in (0, 32, 64) for x in (0, 48)]
    for got, one in zip(cut_tiles(strips, 32, 48), wanted, strict=True):
        np.testing.assert_array_equal(got, one)


@pytest.mark.parametrize("width", [70, 600])
def test_a_mosaic_is_read_back_by_tifffile_and_libraw_and_is_smaller(dng, tmp_path, width):
    rng, (y, x) = np.random.default_rng(2), np.mgrid[:300, :width]
    counts = np.rint(3000 + 10 * y + 2000 * (x % 2) + rng.normal(size=y.shape) * 20).astype(np.uint16)
    taken = read(dng(tmp_path / "in.dng", counts))
    written(taken.light, taken.header, tmp_path)
    stored, scale = tifffile.imread(tmp_path / "out.dng"), 65535 // 16383
    np.testing.assert_allclose(stored, scale * counts.astype(float), atol=1)
    np.testing.assert_allclose(read(tmp_path / "out.dng").light, taken.light, atol=1e-4)
    with tifffile.TiffFile(tmp_path / "out.dng") as file:
        assert sum(file.pages[0].databytecounts) < 0.75 * counts.nbytes


def written(light, header, folder):
    store = FrameStore(folder / "s", (1, len(light) + 1, *light.shape[1:]))
    store.allocate()
    store.write_frame(0, np.concatenate([light, light[:1]]))
    write(store, header, [NoiseLevel(1e-3, 1e-4)] * len(light), folder / "out.dng")
    return store


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_preview_is_the_developed_picture_as_it_is_stored(tmp_path, orientation):
    y, x = np.mgrid[:96, :160] / 160
    light = np.stack([0.2 + 0.5 * x, 0.3 + 0.4 * y, 0.6 - 0.3 * x]).astype(np.float32)
    header = Header(tmp_path / "a.png", "rgb", (96, 160), 255, "srgb", orientation=orientation)
    store = written(light, header, tmp_path)
    with tifffile.TiffFile(tmp_path / "out.dng") as file:
        (page,) = file.pages[0].pages
        assert page.tags[254].value == 1 and page.compression == 7
        file.filehandle.seek(page.dataoffsets[0])
        shown = np.asarray(Image.open(io.BytesIO(file.filehandle.read(page.databytecounts[0])))) / 255
    upright = Renderer(store, header).thumbnail(1024)
    assert np.abs(turn_upright(shown, orientation) - upright).max() < 0.05


def test_without_the_package_tiles_are_stored_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(lossless_jpeg, "find_spec", lambda name: None)
    light = np.random.default_rng(3).random((4, 40, 60)).astype(np.float32)
    counts = np.rint(to_mosaic(light) * 15783 + 600)
    codes = counts.reshape(80, -1, 2).astype(np.uint16)
    assert encode_tile(codes) == codes.astype("<u2").tobytes()
    header = Header(tmp_path / "a.png", "rgb", (40, 60), 255, "srgb")
    written(light[:3], header, tmp_path)
    stored = tifffile.imread(tmp_path / "out.dng")
    np.testing.assert_allclose(stored / 65535, np.moveaxis(light[:3], 0, -1), atol=1e-5)
