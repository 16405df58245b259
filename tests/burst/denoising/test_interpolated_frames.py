"""Bayer bursts filtered as RGB: the interpolation of stored frames against that of a whole mosaic, what is chosen, and
the linear DNG that comes out."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage import data

from klarsicht.burst.data.bayer import PATTERNS, to_planes
from klarsicht.burst.data.cokriging import interpolate_mosaic
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header, Rendering, Sensor
from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.interpolated_frames import HalvedFrames, interpolate_burst
from klarsicht.burst.denoising.pipeline import MOST_NOISE_MEASURED, DenoiseSettings, denoise_frames
from klarsicht.burst.files.loading import Frame, LoadedBurst
from klarsicht.burst.merging import filter_choice, merge_tile
from klarsicht.burst.merging.filter_choice import MOST_NOISE_RGB, choose_bayer_colour
from klarsicht.burst.network.checkpoints import save_network
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 2e-3)
BLACK, WHITE = 600, 16383
GAINS = (2.0, 1.0, 1.5)
SHAKE = [(0, 0), (2, -4), (-6, 8), (4, 4), (-2, 0)]


def stored(mosaics, gains, pattern, folder):
    planes = to_planes(mosaics, pattern)
    spool = FrameStore(folder / "frames.f32", planes.shape)
    spool.allocate()
    for i, one in enumerate(planes):
        spool.write_frame(i, one)
    header = Header(
        Path("a"),
        "mosaic",
        mosaics.shape[1:],
        WHITE,
        sensor=Sensor(pattern, (0.0,) * 4, 1.0),
        rendering=Rendering(GAINS),
    )
    frames = tuple(Frame(str(i), gain, 1.0) for i, gain in enumerate(gains))
    return LoadedBurst((header,) * len(gains), spool, frames, 0)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("window", [(0, 36, 0, 40), (7, 24, 3, 40), (13, 14, 21, 22)])
def test_windows_are_those_of_the_interpolation_of_the_whole_mosaic(tmp_path, pattern, window):
    """Also where frames are clipped: each at white times its own gain."""
    mosaics = np.random.default_rng(0).random((2, 36, 40)).astype(np.float32) * 1.2
    mosaics[1] *= 0.8
    found = interpolate_burst(stored(mosaics, (1.0, 0.8), pattern, tmp_path))
    y0, y1, x0, x1 = window
    assert found.header.cell and found.spool.shape == (2, 3, 36, 40)
    for i, gain in enumerate((1.0, 0.8)):
        whole = interpolate_mosaic(mosaics[i], pattern, GAINS, gain)
        np.testing.assert_allclose(found.spool.read_window(i, Window(*window)), whole[:, y0:y1, x0:x1], atol=1e-6)
        assert whole.max() == np.float32(gain)


def test_the_way_is_the_one_asked_for_or_the_networks_or_that_of_the_noise(tmp_path, monkeypatch):
    files = {colour: tmp_path / f"{colour}.safetensors" for colour in ("grey", "rgb", "mosaic")}
    for colour, file in files.items():
        save_network(build_network(NetworkSettings(colour=colour, width=0.25), seed=0), file, {})
    for noise in (0.001, 1.0):
        assert choose_bayer_colour("planes", None, noise) == "mosaic"
        assert choose_bayer_colour("rgb", None, noise) == "rgb"
        of_files = {colour: choose_bayer_colour(None, str(file), noise) for colour, file in files.items()}
        assert of_files == {"grey": "mosaic", "rgb": "rgb", "mosaic": "mosaic"}
    assert choose_bayer_colour(None, None, MOST_NOISE_RGB) == "rgb"
    assert choose_bayer_colour(None, None, MOST_NOISE_RGB * 1.01) == "mosaic"
    monkeypatch.setattr(filter_choice.pretrained, "find_weights", lambda colour: None)
    assert choose_bayer_colour(None, None, 0.001) == "mosaic"
    with pytest.raises(UsageError, match=r"unknown way to filter Bayer frames.*'plane'.*Did you mean planes"):
        choose_bayer_colour("plane", None, 0.1)


@pytest.mark.parametrize("size", [(40, 52), (39, 51)])
def test_halved_frames_are_means_of_four_pixels(tmp_path, size):
    light = np.random.default_rng(0).random((2, 3, *size)).astype(np.float32)
    spool = FrameStore(tmp_path / "s", light.shape)
    spool.allocate()
    for i in range(2):
        spool.write_frame(i, light[i])
    halved = HalvedFrames.of(spool)
    wide = np.pad(light[1], ((0, 0), (0, size[0] % 2), (0, size[1] % 2)), mode="edge")
    means = (wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2]) / 4
    assert halved.size == (20, 26)
    np.testing.assert_allclose(halved.read_window(1, Window(0, 20, 0, 26)), means, atol=1e-6)
    np.testing.assert_allclose(
        halved.read_window(1, Window(-2, 6, 20, 26)), means[:, [0, 0, *range(6)], 20:], atol=1e-6
    )


@pytest.fixture(scope="module")
def colours():
    """A photograph as light in the colours of a camera whose red is half and whose blue two thirds of green."""
    light = (data.astronaut()[60:300, 100:360] / 255.0) ** 2.2 * 0.8
    return (np.moveaxis(light, -1, 0) / np.reshape(GAINS, (3, 1, 1))).astype(np.float32)


def shaken(dng, colours, folder, change=lambda seen: seen):
    """Raw frames of 192 x 208 pixels of a shaken camera, behind GRBG."""
    folder.mkdir()
    letters = np.array([[1, 0], [2, 1]])
    for i, (dy, dx) in enumerate(SHAKE):
        seen = colours[:, 16 + dy : 208 + dy, 16 + dx : 224 + dx]
        there = letters[np.arange(192)[:, None] % 2, np.arange(208) % 2]
        mosaic = change(np.take_along_axis(seen, there[None], 0)[0])
        noisy = LEVEL.sample(mosaic, np.random.default_rng(i)) * (WHITE - BLACK) + BLACK
        neutral = (50728, 5, 3, (1, 2, 1, 1, 2, 3), True)
        dng(
            folder / f"{i}.dng", np.clip(np.rint(noisy), 0, WHITE), "GRBG", extra=(neutral,), profile=(LEVEL.shot, 4e-4)
        )
    return folder


@pytest.mark.parametrize("bayer", ["rgb", "planes"])
def test_a_fast_result_is_cleaner_and_keeps_what_moves(dng, colours, tmp_path, bayer):
    """A patch that jumps from frame to frame is as in the reference, and not a ghost; no network is read."""

    places = iter(range(0, 200, 40))

    def jump(mosaic):
        x = next(places)
        mosaic[96:128, x : x + 24] = 0.9 * mosaic.max()
        return mosaic

    burst = shaken(dng, colours, tmp_path / "burst", jump)
    settings = DenoiseSettings(reference="0.dng", threads=1, fast=True, bayer=bayer)
    with denoise_frames(sorted(burst.iterdir()), tmp_path / "out.dng", settings) as result:
        assert "filter: merging by frequency (no network)" in result.lines
        H, W = result.spool.size
        light = result.spool.read_window(0, Window(0, H, 0, W))[:-1]
        first = result.burst.spool.read_window(0, Window(0, H, 0, W))
        left = result.residual_levels
    s = 192 // H
    truth = colours[:, 16:208, 16:224] if bayer == "rgb" else to_planes(mosaic_of(colours)[None], "GRBG")[0]
    error, before = (np.square(x - truth)[:, 8 // s : 88 // s, 8 // s : -8 // s].mean() for x in (light, first))
    assert error < 0.5 * before
    assert left[1].deviation(0.2) < 0.8 * NoiseLevel(0.02, 2e-3).deviation(0.2) * (1.42 if s == 1 else 1)
    patch = (slice(None), slice(100 // s, 124 // s), slice(4 // s, 20 // s))
    assert abs((light - first)[patch].mean()) < 0.02


def mosaic_of(colours):
    """The samples of GRBG without noise."""
    letters = np.array([[1, 0], [2, 1]])[np.arange(192)[:, None] % 2, np.arange(208) % 2]
    return np.take_along_axis(colours[:, 16:208, 16:224], letters[None], 0)[0]


def test_a_bayer_burst_as_rgb_becomes_a_cleaner_linear_dng(dng, colours, tmp_path, monkeypatch):
    """Red, green and blue are known; the mean of five frames has a fifth of the noise, and what is told to be left
    is as strong at low frequencies. Planes make a mosaic again."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    burst = shaken(dng, colours, tmp_path / "burst")
    settings = {"reference": "0.dng", "threads": 1}
    lines = list(denoise([burst], tmp_path / "out", DenoiseSettings(bayer="rgb", **settings)))
    assert any("NoiseProfile of 0.dng, variance times 2" in line for line in lines)
    assert "Bayer frames: merged as RGB, which they became first" in lines
    file = tifffile.TiffFile(tmp_path / "out" / "photograph.dng").pages[0]
    assert file.tags[262].value == 34892 and 33422 not in file.tags  # linear raw, without a mosaic
    assert file.tags[50721].value == tifffile.TiffFile(burst / "0.dng").pages[0].tags[50721].value
    got, truth = np.moveaxis(file.asarray() / 65535, -1, 0), colours[:, 16:208, 16:224]
    first = interpolate_mosaic(
        np.asarray((tifffile.imread(burst / "0.dng") - 600.0) / (WHITE - BLACK), np.float32), "GRBG", GAINS
    )
    error, before = (np.square(x - truth)[:, 8:-8, 8:-8].mean() for x in (got, first))
    assert error < 0.5 * before
    smooth = (slice(None), slice(8, 40), slice(144, 192))
    noise = (got - truth)[smooth].reshape(3, 4, 8, 6, 8).mean((2, 4))
    told = np.reshape(file.tags[51041].value, (3, 2))
    assert 1 / 3 < noise[1].var() * 64 / (told[1] @ [truth[smooth][1].mean(), 1]) < 3
    lines = list(denoise([burst], tmp_path / "planes.dng", DenoiseSettings(bayer="planes", **settings)))
    assert "Bayer frames: merged as planes" in lines
    assert tifffile.TiffFile(tmp_path / "planes.dng").pages[0].tags[262].value == 32803  # a mosaic


def test_hot_pixels_are_replaced_before_colours_are_interpolated(dng, colours, tmp_path, monkeypatch):
    """Where they are, the result is as near to the light as elsewhere."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    rng = np.random.default_rng(7)
    places = np.stack([rng.integers(16, 176, 12), rng.integers(16, 192, 12)])

    def heated(mosaic):
        hot = mosaic.copy()
        hot[*places] = 0.9
        return hot

    burst = shaken(dng, np.full_like(colours, 0.2), tmp_path / "burst", heated)
    with denoise_frames(sorted(burst.iterdir()), tmp_path / "o.dng", DenoiseSettings(bayer="rgb", threads=1)) as found:
        got = found.spool.read_window(0, Window(0, 192, 0, 208))[:3]
    assert found.hot == 12
    assert np.abs(got[:, *places] - 0.2).max() < 0.1


@pytest.mark.parametrize(("light", "measured"), [(1.0, True), (0.05, False)])
def test_weak_noise_is_tested_where_it_was_measured(dng, colours, tmp_path, monkeypatch, light, measured):
    """By the noise that was drawn, whose variance interpolation doubles, over the mean light."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    seen, made = [], merge_tile.TileMerger
    monkeypatch.setattr(merge_tile, "TileMerger", lambda **known: seen.append(known["only_measured"]) or made(**known))
    mean = light * colours.mean()
    assert ((2 * LEVEL.variance(mean)) ** 0.5 / mean <= MOST_NOISE_MEASURED) == measured
    burst = shaken(dng, np.float32(light) * colours, tmp_path / "burst")
    settings = DenoiseSettings(bayer="rgb", reference="0.dng", threads=1)
    with denoise_frames(sorted(burst.iterdir()), tmp_path / "o.dng", settings):
        assert seen == [measured]


def test_saturated_light_stays_white_and_is_not_doubted(dng, colours, tmp_path, monkeypatch):
    """A square of green far above white, red and blue below it: its corners have samples that are clipped and others
    that are not."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    light = np.full_like(colours, 0.2)
    light[:, 80:160, 90:150] = np.reshape([0.4, 2.0, 0.5], (3, 1, 1))
    burst = shaken(dng, light, tmp_path / "burst")
    settings = DenoiseSettings(bayer="rgb", reference="0.dng", threads=1)
    with denoise_frames(sorted(burst.iterdir()), tmp_path / "o.dng", settings) as found:
        got = found.spool.read_window(0, Window(0, 192, 0, 208))
    assert (got[1, 66:142, 76:132] == 1).all()
    outside = np.ones((192, 208), bool)
    outside[56:152, 66:142] = False
    assert np.abs(got[:3, outside] - 0.2).max() < 0.1 and got[3, outside].mean() > 0.95
    inner = got[[0, 2], 70:138, 80:128].mean((1, 2))
    np.testing.assert_allclose(inner, [0.4, 0.5], atol=0.01)


def test_brackets_are_merged_as_planes(dng, colours, tmp_path):
    folder = tmp_path / "burst"
    folder.mkdir()
    mosaic = np.random.default_rng(0).random((64, 64)).astype(np.float32) * 0.15 + 0.05
    for i, (seconds, factor) in enumerate([((1, 100), 1.0), ((1, 50), 2.0), ((1, 25), 4.0)]):
        exposure = (33434, 5, 1, seconds, True)
        dng(folder / f"{i}.dng", np.rint(mosaic * factor * 15783 + 600), extra=(exposure,))
    with pytest.raises(UsageError, match=r"Bayer frames; got rgb.*merged as planes.*`bayer`"):
        list(denoise([folder], tmp_path / "out.dng", DenoiseSettings(bayer="rgb", threads=1)))
