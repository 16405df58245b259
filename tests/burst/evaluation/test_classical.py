"""Peers: a burst of equal frames without noise comes back, order of frames, packages that are absent."""

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.data.burst import Burst
from klarsicht.burst.evaluation import classical
from klarsicht.burst.evaluation.classical import CLASSICAL, absence_reason, centre_reference, denoise_bm3d
from klarsicht.burst.synthesis.synthesis import interpolate_frames
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.01, 0.002)


def frame(channels=1):
    rgb = (data.astronaut()[100:164, 180:260] / 255).astype(np.float32) ** 2.2
    return np.moveaxis(rgb, -1, 0)[:channels]


@pytest.mark.parametrize("row", ["single", "mean", "align+mean", "hdr+"])
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_frames_are_the_image(row, channels):
    burst = Burst(np.stack([frame(channels)] * 4), LEVEL)
    np.testing.assert_allclose(CLASSICAL[row](burst), frame(channels), atol=1e-6)


@pytest.mark.parametrize("row", ["mean", "align+mean", "hdr+"])
def test_missing_frames_do_not_count(row):
    noisy = LEVEL.sample(np.stack([frame()] * 3), np.random.default_rng(0))
    filled = Burst(np.concatenate([noisy, np.zeros_like(noisy[:2])]), LEVEL, np.arange(5) < 3)
    np.testing.assert_allclose(CLASSICAL[row](filled), CLASSICAL[row](Burst(noisy, LEVEL)), atol=1e-6)


@pytest.mark.parametrize(("count", "order"), [(7, [1, 2, 3, 0, 4, 5, 6]), (4, [1, 0, 2]), (2, [0]), (1, [0])])
def test_the_reference_goes_to_the_middle(count, order):
    assert centre_reference(list(range(count))) == order


@pytest.mark.parametrize("count", [1, 4, 8])
def test_non_local_means_removes_noise_and_keeps_brightness(count):
    pytest.importorskip("cv2")
    flat = np.full((count, 1, 48, 48), 0.3, np.float32)
    clean = classical.nlm(Burst(LEVEL.sample(flat, np.random.default_rng(0)), LEVEL))
    assert clean.std() < LEVEL.deviation(0.3) / 3
    assert clean.mean() == pytest.approx(0.3, rel=0.02)


def test_block_matching_has_no_bias_in_the_dark():
    """Light of three electrons, where the algebraic inverse is a tenth too dark."""
    pytest.importorskip("bm3d")
    level = NoiseLevel(0.01, 0.01)
    noisy = level.sample(np.full((1, 48, 48), 0.03, np.float32), np.random.default_rng(0))
    clean = denoise_bm3d(noisy, level)
    assert clean.mean() == pytest.approx(noisy.mean(), rel=0.04)
    assert clean.std() < level.deviation(0.03) / 5
    algebraic = (level.stabilise(noisy).mean() * level.shot / 2) ** 2 / level.shot - 3 / 8 * level.shot - 1e-4 / 0.01
    assert algebraic < 0.95 * noisy.mean()


def test_block_matching_after_the_merge_is_told_what_is_left(monkeypatch):
    told = []
    monkeypatch.setattr(classical, "denoise_bm3d", lambda image, noise, interpolated: told.append(noise) or image)
    burst = Burst(np.stack([frame()] * 4), LEVEL)
    for row in ("bm3d", "align+mean+bm3d", "hdr++bm3d"):
        CLASSICAL[row](burst)
    np.testing.assert_allclose([n.read / LEVEL.read for n in told], [1, 0.5, 0.5])


@pytest.fixture(scope="module")
def flat_mosaic():
    """Grey light of .3, red half and blue two thirds of it, behind RGGB, interpolated: one frame of 96 x 96 pixels."""
    light = np.float32([0.15, 0.3, 0.2])[:, None, None] * np.ones((1, 96, 96), np.float32)
    noisy, balance = LEVEL.sample(light, np.random.default_rng(0)), (2.0, 1.0, 1.5)
    frames = interpolate_frames(noisy[None], "RGGB", balance)
    return light, Burst(frames, LEVEL.scale_variance(2), colour_filter="RGGB", balance=balance)


def test_block_matching_is_told_the_noise_of_interpolated_pixels_and_its_spectrum(flat_mosaic):
    light, burst = flat_mosaic
    noise = classical.interpolated_noise(burst)
    for c, (level, spectrum) in enumerate(classical.correlated_channels(burst.reference, burst.noise, noise)):
        seen = burst.reference[c] - light[c]
        assert level.variance(light[c, 0, 0]) == pytest.approx(seen.var(), rel=0.06)
        periodogram = np.abs(np.fft.fft2(seen)) ** 2 / seen.size / seen.var()
        low = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96)) < 0.15
        low[0, 0] = False
        assert spectrum[low].mean() == pytest.approx(periodogram[low].mean(), rel=0.2)
        assert spectrum[low].mean() > 1.3
    assert classical.interpolated_noise(Burst(burst.frames, LEVEL)) is None


@pytest.mark.nightly
def test_block_matching_takes_the_noise_of_interpolated_colours_off(flat_mosaic):
    pytest.importorskip("bm3d")
    light, burst = flat_mosaic
    clean = CLASSICAL["bm3d"](burst)
    assert np.square(clean - light).mean() < np.square(burst.reference - light).mean() / 20
    np.testing.assert_allclose(clean.mean((1, 2)), light.mean((1, 2)), rtol=0.01)


def test_absent_packages_are_named(monkeypatch):
    assert absence_reason("single") == absence_reason("hdr+") == ""
    monkeypatch.setattr(classical, "find_spec", lambda name: None)
    for row in ("bm3d", "hdr++bm3d"):
        assert "bm3d" in absence_reason(row) and "non-commercial" in absence_reason(row)
    assert "cv2" in absence_reason("nlm")
