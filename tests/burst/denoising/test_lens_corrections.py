"""A burst whose files prescribe corrections of the lens, through the command: a grey wall, which all outputs must show
as grey."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.burst.opcodes import gain_by_map, gain_map, packed, tag, vignette

from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames, is_filtered_as_rgb
from klarsicht.burst.files import reading
from klarsicht.burst.files.loading import load_frames
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.noise import sources
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIZE, LIGHT, LEVEL = (96, 128), 0.4, NoiseLevel(0.004, 2e-4)
BLACK, WHITE = 600, 16383
FALLOFF = [[[2.0], [1.2], [2.0]], [[1.2], [1.0], [1.2]], [[2.0], [1.2], [2.0]]]
MAPS = packed(*(gain_map((y, x, *SIZE), FALLOFF, pitch=(2, 2)) for y in (0, 1) for x in (0, 1)))
UNKNOWN = packed((4711, 0, b"what only its maker knows"))
PLANES, COLOURS = DenoiseSettings(threads=1, bayer="planes"), DenoiseSettings(threads=1, bayer="rgb")


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """The mean of the frames."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)


@pytest.fixture
def burst_of(dng, tmp_path):
    """Three frames with such opcode lists, by their number."""

    def write(lists):
        smooth = gain_map((0, 0, *SIZE), FALLOFF)
        gains = [[gain_by_map(smooth, y, x, 0, *SIZE) for x in range(SIZE[1])] for y in range(SIZE[0])]
        (folder := tmp_path / "burst").mkdir()
        for i in range(3):
            light = LEVEL.sample((LIGHT / np.array(gains)).astype(np.float32), np.random.default_rng(i))
            counts = np.clip(np.rint(light * (WHITE - BLACK) + BLACK), 0, WHITE)
            extra = [tag(number, data) for number, data in lists.items()]
            dng(folder / f"{i}.dng", counts, profile=(LEVEL.shot, LEVEL.read**2), extra=extra)
        return folder

    return write


def corner_over_middle(picture):
    """Of the dimmest corner, and the colour that has least."""
    corners = [
        picture[y, x].mean((0, 1)) for y in (slice(2, 14), slice(-14, -2)) for x in (slice(2, 14), slice(-14, -2))
    ]
    return (np.min(corners, 0) / picture[40:56, 56:72].mean((0, 1))).min()


def lines_and_tags(folder, out, settings):
    lines = list(denoise([folder], out, settings))
    with tifffile.TiffFile(out) as file:
        return lines, file.asarray().astype(float), {t.code: t.value for t in file.pages[0].tags}


def test_colours_are_corrected_once(burst_of, tmp_path):
    """The DNG is right and has no list, by which a converter would correct it again."""
    lines, picture, tags = lines_and_tags(burst_of({2: MAPS}), tmp_path / "out.dng", COLOURS)
    assert "lens corrections of the file, applied: 4 GainMap of OpcodeList2" in lines
    assert not {51008, 51009, 51022} & set(tags)
    assert corner_over_middle(picture) == pytest.approx(1, abs=0.02)
    assert np.median(picture) / tags[50717][0] == pytest.approx(LIGHT, rel=0.01)


def test_a_mosaic_keeps_its_list_and_is_as_the_camera_saw_it(burst_of, tmp_path):
    lines, mosaic, tags = lines_and_tags(burst_of({2: MAPS}), tmp_path / "out.dng", PLANES)
    said = "lens corrections of the file, left in the DNG of the mosaic, applied in pictures: 4 GainMap of OpcodeList2"
    assert said in lines
    assert tags[51009] == MAPS and corner_over_middle(mosaic[..., None]) < 0.7


@pytest.mark.parametrize("settings", [COLOURS, PLANES])
def test_pictures_are_corrected_whatever_was_merged(burst_of, tmp_path, settings):
    """TIFF, preview, and both sides of the page."""
    folder, out = burst_of({2: MAPS}), tmp_path / "out.tif"
    list(denoise([folder], out, settings, preview=tmp_path / "p.jpg"))
    assert corner_over_middle(tifffile.imread(out).astype(float)) > 0.985  # of codes under the curve of sRGB
    with Image.open(tmp_path / "p.jpg") as preview:
        assert corner_over_middle(np.asarray(preview, float)) > 0.985
    with denoise_frames(reading.list_frames([folder]), tmp_path / "again.tif", settings) as result:
        after = Renderer.from_header(result.spool, result.burst.header)
        before = after.for_other_frame(result.burst.spool, result.frame_numbers[0], 1.0)
        for side in (before, after):
            shown = side.thumbnail(64)
            assert shown[:4, :4].mean() == pytest.approx(shown[20:28, 28:36].mean(), rel=0.02)


def test_a_list_that_is_not_applied_keeps_bayer_frames_planes(burst_of, tmp_path, monkeypatch):
    """Where networks for both come along; a user who asks for RGB is told what is left out."""
    folder = burst_of({2: UNKNOWN})
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: tmp_path)
    loaded = load_frames(reading.list_frames([folder]), tmp_path)
    noise = sources.find_noise(loaded, None, None)
    assert not is_filtered_as_rgb(loaded, noise, DenoiseSettings())
    assert is_filtered_as_rgb(loaded, noise, COLOURS)
    lens = loaded.header.lens
    kept = "OpcodeList2 (opcode 4711) is not applied: Bayer frames are merged as planes, and a DNG keeps the list"
    assert lens.lines(mosaic=True) == (kept,)
    assert lens.lines(mosaic=False) == ("OpcodeList2 (opcode 4711) is not applied: it is left out",)
    (alone := tmp_path / "alone").mkdir()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    plain = load_frames(reading.list_frames([burst_of({3: packed(vignette((0.1, 0, 0, 0, 0)))})]), alone)
    assert is_filtered_as_rgb(plain, noise, DenoiseSettings())


def test_a_damaged_list_costs_a_line_and_nothing_else(burst_of, tmp_path):
    lines, picture, tags = lines_and_tags(burst_of({2: MAPS[:-3], 3: b""}), tmp_path / "out.dng", COLOURS)
    damaged = [line for line in lines if "damaged and left out" in line]
    assert len(damaged) == 2 and damaged[0].startswith("OpcodeList2 of ")
    assert not {51008, 51009, 51022} & set(tags) and corner_over_middle(picture) < 0.7
