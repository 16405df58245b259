"""Spectra of noise and of scenes with a known spectrum, and the weights that follow from them."""

import numpy as np
import pytest
import torch

from klarsicht.burst.align.matched_filter import (
    BORDER_SHARE,
    HIGHEST,
    LOWEST,
    RINGS,
    Spectrum,
    aliased_share,
    apply_matched_filter,
    estimate_spectrum,
)

FREQUENCIES = np.geomspace(LOWEST, HIGHEST, RINGS)


def rng(seed=0):
    return np.random.default_rng(seed)


def white(n=8, size=128, seed=0, deviation=1.0):
    return torch.from_numpy(deviation * rng(seed).standard_normal((1, n, size, size)).astype(np.float32))


def scene(amplitude, size=256, seed=1):
    """A periodic Gaussian scene of power amplitude / f^2, the mean of |F|^2 / (H W)."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    f[0, 0] = np.inf
    waves = np.fft.rfft2(rng(seed).standard_normal((size, size))) * np.sqrt(amplitude) / f
    return torch.from_numpy(np.fft.irfft2(waves, s=(size, size)).astype(np.float32))


def everyone(frames):
    return torch.ones(frames.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("deviation", [0.9, 1.0, 1.06])
def test_noise_alone_is_noise(deviation):
    frames = white(deviation=deviation)
    spectrum = estimate_spectrum(frames, everyone(frames))
    assert spectrum.noise.item() == pytest.approx(deviation**2, rel=0.03)
    assert spectrum.signal[0, 8:].max() < 0.15


def test_a_known_spectrum_is_measured():
    amplitude = 0.002
    frames = scene(amplitude) + white(size=256)
    spectrum = estimate_spectrum(frames, everyone(frames))
    middle = slice(7, 17)
    np.testing.assert_allclose(spectrum.signal[0, middle], amplitude / FREQUENCIES[middle] ** 2, rtol=0.35)


def test_missing_frames_do_not_count():
    frames = white()
    some = everyone(frames)
    some[0, 5:] = False
    spoiled = frames.clone()
    spoiled[0, 5:] = 100 * torch.rand(3, 128, 128)
    np.testing.assert_allclose(estimate_spectrum(spoiled, some).signal, estimate_spectrum(frames, some).signal)


def test_weights_are_those_of_hannan_and_thomson():
    """By the inverse of the 2 x 2 covariance of both frames at one frequency; what is not shared is noise."""
    S = torch.tensor([[0.01, 1.0, 50.0]])
    for n in (1.0, 0.2):
        ours = Spectrum(S, torch.ones(1)).weight(torch.tensor([n]))[0]
        for s, w in zip(S[0].tolist(), ours.tolist(), strict=True):
            covariance = np.array([[s + n + BORDER_SHARE * s, s], [s, s + 1 + BORDER_SHARE * s]])
            assert w == pytest.approx(-np.linalg.inv(covariance)[0, 1], rel=1e-5)


def test_aliased_power_is_that_of_a_sampled_scene():
    """Lines of power 1 / f^2 up to the frequency 1, of which every second value is kept: half of the fine grid's power
    at 1 - f is added to half of that at f, by the discrete transform of both."""
    length, rng = 4096, np.random.default_rng(0)
    f = np.fft.rfftfreq(2 * length) * 2
    f[0] = np.inf
    fine = np.fft.irfft(np.fft.rfft(rng.standard_normal((2000, 2 * length))) / f)
    seen = np.square(np.abs(np.fft.rfft(fine[:, ::2]))).mean(0)
    own = np.square(np.abs(np.fft.rfft(fine))).mean(0)[: length // 2 + 1] / 4
    share = aliased_share(torch.device("cpu"))
    for k in range(12, RINGS):
        place = round(min(FREQUENCIES[k], 0.499) * length)
        near = slice(place - 20, min(place + 21, length // 2))
        assert 1 - own[near].mean() / seen[near].mean() == pytest.approx(share[k].item(), abs=0.02)


def test_filtered_noise_has_the_stated_variance():
    f = torch.from_numpy(FREQUENCIES.astype(np.float32))
    spectrum = Spectrum((0.002 / f**2)[None], torch.tensor([1.1]))
    n = torch.tensor([0.5])
    filtered = apply_matched_filter(white(n=16, size=256, deviation=1.1**0.5), spectrum, n)[0, :, 16:-16, 16:-16]
    variance, pixels = spectrum.residual_noise(n)
    assert filtered.var().item() == pytest.approx(variance.item(), rel=0.05)
    tiles = filtered.unfold(1, 32, 32).unfold(2, 32, 32).square().mean((-2, -1))
    assert (tiles.std() / tiles.mean()).item() == pytest.approx((2 * pixels.item() / 32**2) ** 0.5, rel=0.25)


def test_filtering_is_linear_and_blind_to_brightness():
    frames = white(n=2, size=40)
    spectrum = estimate_spectrum(frames, everyone(frames))
    n = torch.ones(1)
    once = apply_matched_filter(frames, spectrum, n)
    np.testing.assert_allclose(apply_matched_filter(3 * frames + 5, spectrum, n), 3 * once, atol=1e-4)
    assert once.shape == frames.shape
    odd = apply_matched_filter(frames[..., :39, :37], spectrum, n)
    assert odd.shape == (1, 2, 39, 37)
