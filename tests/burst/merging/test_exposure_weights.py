"""Exposure brackets, held to the weighted mean of least variance, whose weights and variance are closed forms."""

import numpy as np
import pytest

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.held_out import check_held_out
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import reading
from klarsicht.burst.merging.exposure_weights import EXPOSURE_MARGIN, weigh_by_exposure
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.01, 1e-3)
BLACK, WHITE = 600, 16383
TIMES = (0.25, 1.0, 4.0)  # exposures beside the reference's
SIZE = (192, 256)


def bracket(light, times, seed, level=LEVEL, channels=3):
    """Frames of constant light, clipped at their own white and scaled to the reference's exposure."""
    rng = np.random.default_rng(seed)
    truth = [np.full((channels, 96, 96), light * t, np.float32) for t in times]
    return np.stack([np.minimum(level.sample(x, rng), 1) / np.float32(t) for x, t in zip(truth, times, strict=True)])


def closed_form(light, times, level=LEVEL):
    """Variances of y / t, where y has the variance read^2 + shot t light."""
    return np.array([(level.read**2 + level.shot * t * light) / t**2 for t in times])


def weighed(frames, times, level=LEVEL):
    levels = [[level.scale_by_gain(1 / t)] * frames.shape[1] for t in times]
    everywhere = np.ones((len(frames), *frames.shape[2:]), np.float32)
    whites = np.array([1 / t for t in times], np.float32)
    clipped = (frames >= whites[:, None, None, None]).astype(np.float32)
    weights = weigh_by_exposure(frames, everywhere, levels, whites.tolist(), clipped)
    return weights / weights.sum(0)


@pytest.mark.parametrize("light", [0.005, 0.05, 0.2])
def test_weights_are_inverse_variances_and_the_mean_has_the_least_variance(light):
    times = (1.0, 0.25, 4.0)
    frames = bracket(light, times, 0)
    v = closed_form(light, times)
    share = weighed(frames, times)
    np.testing.assert_allclose(share.mean((1, 2, 3)), (1 / v) / (1 / v).sum(), atol=0.01)
    merged = (share * frames).sum(0)
    assert merged.mean() == pytest.approx(light, abs=4 * (1 / (1 / v).sum() / merged.size) ** 0.5)
    assert merged.var() == pytest.approx(1 / (1 / v).sum(), rel=0.05)


@pytest.mark.parametrize("light", [0.5, 0.24, 0.26])
def test_what_is_clipped_is_left_out_without_a_bias(light):
    """At .5 the long exposure is white; at .24 and .26 part of its pixels are, and the mean is right to a hundredth."""
    times = (1.0, 0.25, 4.0)
    frames = bracket(light, times, 1)
    share = weighed(frames, times)
    merged = (share * frames).sum(0)
    assert merged.mean() == pytest.approx(light, rel=0.01)
    if light == 0.5:
        v = closed_form(light, times[:2])
        assert share[2].max() == 0
        np.testing.assert_allclose(share[:2].mean((1, 2, 3)), (1 / v) / (1 / v).sum(), atol=0.01)


def test_where_all_are_white_the_reference_stays():
    share = weighed(np.full((3, 1, 32, 32), 8, np.float32), (1.0, 0.25, 4.0))
    np.testing.assert_array_equal(share[:, 0, 0, 0], [1, 0, 0])


def test_a_channel_that_is_white_costs_the_others_nothing():
    """Green is white in the long exposure, red is not: its mean has the least variance of all three frames."""
    times = (1.0, 0.25, 4.0)
    frames = np.concatenate([bracket(light, times, 5, channels=1) for light in (0.05, 0.5)], 1)
    merged = (weighed(frames, times) * frames).sum(0)
    assert merged[0].var() == pytest.approx(1 / (1 / closed_form(0.05, times)).sum(), rel=0.05)
    assert merged[1].mean() == pytest.approx(0.5, rel=0.01)


def test_dark_lines_between_bright_ones_keep_the_long_exposure():
    """Lines three pixels wide, whose surroundings are white in the long exposure: with windows of five pixels left out
    around a white one they had the noise of the short ones, 2.8 times as much."""
    times, rng = (1.0, 0.25, 4.0), np.random.default_rng(6)
    light = np.tile(np.float32([0.5, 0.5, 0.5, 0.02, 0.02, 0.02]), (96, 16))[None]
    frames = np.stack([np.minimum(LEVEL.sample(light * np.float32(t), rng), 1) / np.float32(t) for t in times])
    merged = (weighed(frames, times) * frames).sum(0)
    middle = np.square(merged - light)[0, :, 4::6].mean()
    of_all, of_short = (1 / (1 / closed_form(0.02, some)).sum() for some in (times, times[:2]))
    assert middle < 2 * of_all < 0.5 * of_short
    assert abs((merged - light)[0, :, 1::6].mean()) < 0.005


def test_a_part_has_the_weights_of_the_whole():
    rng = np.random.default_rng(2)
    times = (1.0, 0.5, 2.0)
    light = np.kron(rng.random((12, 12)), np.ones((8, 8))).astype(np.float32)
    frames = np.stack([np.minimum(LEVEL.sample(light[None] * t, rng), 1) / np.float32(t) for t in times])
    part = (slice(None), slice(None), slice(20, 70), slice(30, 90))
    inside = (slice(None), slice(EXPOSURE_MARGIN, -EXPOSURE_MARGIN), slice(EXPOSURE_MARGIN, -EXPOSURE_MARGIN))
    whole = weighed(frames, times)[:, :, 20:70, 30:90]
    np.testing.assert_allclose(weighed(frames[part], times)[inside], whole[inside], atol=1e-5)


@pytest.fixture
def files(dng, tmp_path):
    """Three raw frames of one scene at a quarter, once and four times an exposure, as their tags say."""
    folder = tmp_path / "burst"
    folder.mkdir()
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    scene = (0.1 + 0.05 * np.sin(x / 9) * np.cos(y / 7) + 0.04 * ((x // 24 + y // 24) % 2)).astype(np.float32)
    scene[:48, :64] *= 3  # white in the long exposure
    for i, t in enumerate(TIMES):
        noisy = LEVEL.sample(scene * np.float32(t), np.random.default_rng(i))
        counts = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE)
        tag = [(33434, 5, 1, (round(1000 * t), 100_000), True)]
        dng(folder / f"{i}.dng", counts, extra=tag, profile=(LEVEL.shot, LEVEL.read**2))
    return folder, scene


def test_a_bracket_is_merged_by_exposure(files, tmp_path):
    """Oracle: the variance of the mean of least variance, and that of the reference alone."""
    folder, scene = files
    with denoise_frames(reading.list_frames([folder]), tmp_path / "o.dng", DenoiseSettings(threads=1)) as found:
        assert found.burst.frames[found.burst.reference].name == "1.dng"
        gains = [found.burst.frames[i].gain / found.burst.frames[1].gain for i in found.frame_numbers]
        assert sorted(gains) == pytest.approx([0.25, 1, 4], rel=0.03)
        (told,) = (line for line in found.lines if line.startswith("bracket: exposures +0.0,"))
        assert "+2.0" in told and "-2.0" in told
        assert not found.rejections
        H, W = found.spool.size
        got = found.spool.read_window(0, Window(0, H, 0, W))[:4]
    truth = np.stack([scene[a::2, b::2] for a in (0, 1) for b in (0, 1)])
    v = 1 / sum(1 / ((LEVEL.read**2 + LEVEL.shot * t * truth) / t**2) for t in TIMES)
    dark = np.zeros(truth.shape[1:], bool)
    dark[32:-8, 40:-8] = True
    error = np.square(got - truth)[:, dark].mean()
    assert error < 1.25 * v[:, dark].mean()
    alone = (LEVEL.read**2 + LEVEL.shot * truth)[:, dark].mean()
    assert error < 0.3 * alone
    assert abs((got - truth)[:, :20, :28].mean()) < 0.003  # where the long exposure is white


def test_a_bracket_takes_no_network_and_no_check(files, tmp_path):
    folder, _ = files
    with pytest.raises(UsageError, match=r"network.*swift-raw.*`checkpoint`"):
        list(denoise([folder], tmp_path / "o.dng", DenoiseSettings(checkpoint="swift-raw", threads=1)))
    with pytest.raises(InputError, match="bracket cannot be checked"):
        check_held_out([folder], DenoiseSettings(threads=1), tmp_path / "work")


def test_another_scene_at_another_exposure_is_dropped_by_name(files, dng, tmp_path):
    folder, scene = files
    upside_down = np.rint(scene[::-1] * (WHITE - BLACK) + BLACK)
    dng(folder / "3.dng", upside_down, extra=[(33434, 5, 1, (1, 1), True)], profile=(LEVEL.shot, LEVEL.read**2))
    with denoise_frames(reading.list_frames([folder]), tmp_path / "o.dng", DenoiseSettings(threads=1)) as found:
        assert len(found.rejections) == 1 and found.rejections[0].startswith("3.dng is -6.")
        assert "another scene" in found.rejections[0] and "\n" not in found.rejections[0]
        assert len(found.frame_numbers) == 3
