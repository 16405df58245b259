"""PSNR and SSIM beside torchmetrics and closed forms, and what cannot be compared."""

import math

import numpy as np
import pytest

from klarsicht.burst.quality import Quality, measure_quality, psnr, ssim, tone_mapped
from klarsicht.ground.errors import InputError

NOWHERE = np.zeros((48, 64), bool)


def pictures(channels=1):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64] / 10
    a = np.stack([0.5 + 0.4 * np.sin(x + c) * np.cos(y) for c in range(channels)])
    return a, np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_as_torchmetrics(channels):
    torch, image = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.functional.image")
    a, b = pictures(channels)
    ta, tb = torch.from_numpy(a)[None], torch.from_numpy(b)[None]
    assert psnr(a, b) == pytest.approx(float(image.peak_signal_noise_ratio(ta, tb, data_range=1.0)), abs=1e-5)
    expected = image.structural_similarity_index_measure(ta, tb, data_range=1.0)
    assert ssim(a, b) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("deviation", [0.01, 0.05])
def test_psnr_of_known_noise(deviation):
    noise = np.random.default_rng(1).normal(0, deviation, (1, 400, 400))
    assert psnr(0.5 + noise, np.full_like(noise, 0.5)) == pytest.approx(-20 * math.log10(deviation), abs=0.05)


def test_ssim_of_two_flat_pictures_is_their_luminance():
    a, b = np.full((1, 20, 20), 0.2), np.full((1, 20, 20), 0.6)
    assert ssim(a, b) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))


def test_what_is_seen_is_the_srgb_curve_without_the_border():
    """Values of the sRGB standard: linear .2140 is shown as .5, and .0030 as 12.92 x to three digits."""
    image = np.full((1, 20, 22), 0.5, np.float32) * 0.2140
    assert tone_mapped(image, 0.5).shape == (1, 4, 6)
    assert tone_mapped(image, 0.5) == pytest.approx(0.5, abs=1e-3)
    assert tone_mapped(image * 100, 1.0) == pytest.approx(1) and tone_mapped(-image, 1.0) == pytest.approx(0)
    assert tone_mapped(np.full((1, 20, 20), 0.0015, np.float32), 0.5) == pytest.approx(0.003 * 12.92, rel=0.02)


def test_exposure_cancels():
    a, b = (x.astype(np.float32) for x in pictures())
    one, scaled = measure_quality(a, b, 1.0, NOWHERE), measure_quality(a / 4, b / 4, 0.25, NOWHERE)
    assert one.psnr == pytest.approx(scaled.psnr) and one.ssim == pytest.approx(scaled.ssim)


def test_path_and_rest_apart():
    """An error of .1 on the path alone, in the picture's own scale."""
    truth = np.full((1, 48, 64), ((0.5 + 0.0557170) / 1.0557170) ** 2.4, np.float32)
    path = NOWHERE.copy()
    path[20:30, 20:40] = True
    off = truth.copy()
    off[:, path] = ((0.6 + 0.0557170) / 1.0557170) ** 2.4
    found = measure_quality(off, truth, 1.0, path)
    assert found.on_path == pytest.approx(20, abs=0.02) and found.off_path == math.inf
    assert found.psnr == pytest.approx(20 - 10 * math.log10(200 / (32 * 48)), abs=0.02)


def test_no_path_no_score_of_it():
    a = pictures()[0].astype(np.float32)
    assert measure_quality(a, a, 1.0, NOWHERE) == Quality(math.inf, 1.0)


def test_a_path_that_lies_in_the_border_is_none():
    path = NOWHERE.copy()
    path[:4] = True
    assert measure_quality(*(x.astype(np.float32) for x in pictures()), 1.0, path).on_path is None


@pytest.mark.parametrize(
    ("image", "truth", "told"),
    [
        (np.zeros((1, 40, 40)), np.zeros((1, 40, 41)), "one shape"),
        (np.zeros((1, 20, 40)), np.zeros((1, 20, 40)), "at least 22"),
        (np.full((1, 40, 40), np.nan), np.zeros((1, 40, 40)), "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(image, truth, told):
    with pytest.raises(InputError, match=told):
        measure_quality(image.astype(np.float32), truth.astype(np.float32), 1.0, np.zeros(image.shape[1:], bool))
