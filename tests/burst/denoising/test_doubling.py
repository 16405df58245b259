"""`--double` from files to files: still, turned and X-Trans bursts, tags, corrections of the lens, refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.burst.opcodes import gain_map, packed, tag, warp

from klarsicht.burst.data.cokriging import MOSAICS, colour_numbers
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header, Sensor
from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.doubling import _double_tags, check_burst
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files.loading import Frame, LoadedBurst
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.resolution import doubled_resolution
from klarsicht.burst.resolution.doubled_resolution import DetailCorrector
from klarsicht.burst.resolution.enlarged_frames import enlarge
from klarsicht.ground.errors import UsageError
from klarsicht.ground.pictures import tiff_tags
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIZE, BLACK, WHITE = (96, 128), 600, 16383
LEVEL = NoiseLevel(0.004, 4e-4)
SHAKE = [(0, 0), (0.5, -2.3), (3.4, 1.5), (-1.6, 0.4)]
DOUBLE = DenoiseSettings(double=True, fast=True, threads=1, reference="1")


WAVES = np.random.default_rng(5)
LENGTHS, ANGLES, PHASES = WAVES.uniform(0.05, 2.3, 80), WAVES.uniform(0, 7, 80), WAVES.uniform(0, 7, 80)


def scene(y, x):
    """A random scene whose waves are as strong as those of photographs, down to the finest of the fine grid."""
    waves = zip(LENGTHS, ANGLES, PHASES, strict=True)
    return 0.4 + sum(0.012 / k**0.5 * np.cos(k * (np.cos(a) * y + np.sin(a) * x) + p) for k, a, p in waves)


def take_burst(folder, dng, shake=SHAKE, cell="RGGB", **tags):
    """Write DNGs of a scene behind a mosaic, each sample the mean of the four fine pixels that it covers."""
    folder.mkdir(exist_ok=True)
    side = round(len(cell) ** 0.5)
    s, z = np.indices(SIZE)
    balance = np.array([0.5, 1, 2 / 3])[colour_numbers(cell)[s % side, z % side]]
    for k, (dy, dx) in enumerate(shake):
        light = balance * np.mean([scene(s - dy + a, z - dx + b) for a in (-0.25, 0.25) for b in (-0.25, 0.25)], 0)
        noisy = LEVEL.sample(light.astype(np.float32), np.random.default_rng(k))
        counts = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE)
        dng(folder / f"{k}.dng", counts, cell, black=BLACK, white=WHITE, profile=LEVEL.profile, **tags)
    return sorted(folder.iterdir())


def whole(store):
    return store.read_window(0, Window(0, store.size[0], 0, store.size[1]))[:3]


def develop(frames, out, settings=DOUBLE, **more):
    lines = list(denoise(frames, out, settings, **more))
    return lines, tifffile.imread(out)


def test_shifted_frames_bring_the_result_nearer_to_the_truth_than_enlarging_it(tmp_path, dng):
    frames = take_burst(tmp_path / "burst", dng, SHAKE * 2)
    y, x = (np.arange(2 * side) / 2 - 0.25 for side in SIZE)
    truth = np.array([0.5, 1, 2 / 3])[:, None, None] * scene(y[:, None], x)
    with denoise_frames(frames, tmp_path / "out.dng", DOUBLE) as result:
        single = whole(result.single.spool)
        start = enlarge(np.pad(single, ((0, 0), (3, 3), (3, 3)), mode="edge"))
        errors = [np.square((light - truth)[:, 16:-16, 16:-16]).mean() for light in (start, whole(result.spool))]
        assert result.burst.header.size == result.spool.size == (192, 256)
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("shake", [[(0, 0)], [(0, 0)] * 3, [(0, 0), (2, -4), (-3, 1)]])
def test_frames_that_do_not_shift_by_parts_of_a_pixel_are_enlarged_unchanged(tmp_path, dng, shake):
    frames = take_burst(tmp_path / "burst", dng, shake)
    with denoise_frames(frames, tmp_path / "out.dng", DOUBLE) as result:
        single = whole(result.single.spool)
        np.testing.assert_array_equal(
            whole(result.spool), enlarge(np.pad(single, ((0, 0), (3, 3), (3, 3)), mode="edge"))
        )
        assert "enlarged alone" in result.lines[-1] and "256 x 192" in result.lines[-1]


def test_an_interrupted_doubling_goes_on_with_the_tiles_that_are_left(tmp_path, dng, monkeypatch):
    """Of twelve tiles five are kept, and the picture is that of a run in one go, to the bit."""
    monkeypatch.setattr(doubled_resolution, "CORE_SIDE", 64)
    frames = take_burst(tmp_path / "burst", dng)
    _, picture = develop(frames, tmp_path / "whole.tif")
    correct, seen = DetailCorrector.correct, []

    def stop_at_the_sixth(self, core):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(core)
        return correct(self, core)

    monkeypatch.setattr(DetailCorrector, "correct", stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        develop(frames, tmp_path / "out.tif")
    monkeypatch.setattr(DetailCorrector, "correct", lambda self, core: seen.append(core) or correct(self, core))
    resumed = develop(frames, tmp_path / "out.tif")[1]
    assert len(seen) == len(set(seen)) == 12
    np.testing.assert_array_equal(resumed, picture)


def test_a_turned_picture_is_the_upright_one_turned(tmp_path, dng):
    """Orientation 6: the stored picture is turned a quarter clockwise."""
    plain, turned = (
        develop(take_burst(tmp_path / f"o{number}", dng, orientation=number), tmp_path / f"{number}.tif")[1]
        for number in (1, 6)
    )
    assert turned.shape == (256, 192, 3) and turned.dtype == np.uint16
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


@pytest.mark.parametrize("cell", ["RGGB", "GBRG", MOSAICS["x-trans"]])
def test_mosaics_become_linear_dngs_of_four_times_the_pixels(tmp_path, dng, cell):
    rawpy = pytest.importorskip("rawpy")
    tags = [(50719, 4, 2, (4, 2), True), (50720, 4, 2, (120, 90), True)]
    frames = take_burst(tmp_path / "burst", dng, cell=cell, extra=tags)
    lines = list(denoise(frames, tmp_path / "out.dng", DOUBLE, preview=tmp_path / "p.jpg", page=tmp_path / "p.html"))
    assert any("shifted frames add detail" in line for line in lines)
    with rawpy.imread(str(tmp_path / "out.dng")) as raw:
        assert (raw.sizes.raw_height, raw.sizes.raw_width) == (192, 256)
        developed = raw.postprocess(no_auto_bright=True)
    assert developed.shape[-1] == 3 and developed.std() > 5
    read = tiff_tags.read(tmp_path / "out.dng").image
    assert read[50719].values == (8, 4) and read[50720].values == (240, 180)


def test_gains_and_warps_of_the_lens_apply_to_places_of_the_sensor(tmp_path, dng):
    """A gain map and a warp of the file change the doubled picture as its own light, read where the warp says, times
    the map's gain there: an even scene shows the gain alone."""
    gains = [[[gain]] * 3 for gain in np.linspace(0.6, 1.4, 5)]
    lists = {2: packed(gain_map((0, 0, *SIZE), gains)), 3: packed(warp([(0.97, 0, 0, 0, 0, 0)]))}
    frames = take_burst(tmp_path / "burst", dng, extra=[tag(*one) for one in lists.items()])
    with denoise_frames(frames, tmp_path / "out.dng", DOUBLE) as result:
        renderer = Renderer(result.spool, result.burst.header)
        plain, H = whole(result.single.spool), 192
        single = Renderer(result.single.spool, result.single.burst.header).linear_window(Window(0, 96, 0, 128))
        found = renderer.linear_window(Window(0, H, 0, 256))
    assert np.abs(single / plain - 1).max() > 0.3
    means = found.reshape(3, 96, 2, 128, 2).mean((2, 4))
    np.testing.assert_allclose(means[:, 8:-8, 8:-8].mean((0, 2)), single[:, 8:-8, 8:-8].mean((0, 2)), rtol=0.02)


def test_sizes_of_exif_are_doubled():
    exif = {
        40962: tiff_tags.numbers(tiff_tags.SHORT, 6000),
        41486: tiff_tags.rationals(2500.5),
        34855: tiff_tags.numbers(tiff_tags.SHORT, 800),
    }
    found = _double_tags(tiff_tags.Tags({}, exif, {})).exif
    assert [found[tag].values for tag in (40962, 41486, 34855)] == [(12000,), (5001.0,), (800,)]


@pytest.mark.parametrize(
    ("more", "said"), [({"bayer": "planes"}, "bayer"), ({"strength": 0.5}, "strength"), ({}, "a picture")]
)
def test_what_cannot_be_doubled_is_refused_by_name(tmp_path, dng, more, said):
    frames = take_burst(tmp_path / "burst", dng)
    if not more:
        frames = []
        for k in range(2):
            tifffile.imwrite(tmp_path / f"{k}.tif", np.full((64, 64, 3), 100 + k, np.uint8))
            frames.append(tmp_path / f"{k}.tif")
    with pytest.raises(UsageError, match="double") as error:
        list(denoise(frames, tmp_path / "out.dng", DOUBLE.model_copy(update=more)))
    assert said in str(error.value)


def test_a_sensor_of_more_pixels_than_a_file_holds_doubled_is_refused():
    """Three values of two bytes, four times: 14000 x 13000 pixels are 4.4 GB."""
    header = Header(Path("a"), "mosaic", (13000, 14000), WHITE, sensor=Sensor("RGGB", (0.0,) * 4, WHITE))
    burst = LoadedBurst((header,), FrameStore(Path("f"), (1, 4, 6500, 7000)), (Frame("a", 1.0, 1.0),), 0)
    with pytest.raises(UsageError, match="182 megapixels"):
        check_burst(burst)
    check_burst(replace(burst, headers=(replace(header, size=(12000, 14000)),)))


def test_a_bracket_is_refused(tmp_path, dng):
    frames = take_burst(tmp_path / "burst", dng, SHAKE[:2], extra=[(33434, 5, 1, (1, 50), True)])
    half = np.clip((tifffile.imread(frames[1]).astype(float) - BLACK) / 2 + BLACK, 0, WHITE)
    times = [(33434, 5, 1, (1, 100), True)]
    dng(frames[1], half, black=BLACK, white=WHITE, profile=LEVEL.profile, extra=times)
    with pytest.raises(UsageError, match="bracket"):
        list(denoise(frames, tmp_path / "out.dng", DOUBLE))
