"""The matched filter for registering two noisy frames, from the power spectrum of the burst.

For a scene of power spectrum S, seen with white noise of variances n and 1, the log-likelihood ratio between a shift
and chance alignment is sum_f W(f) Re(A* B), W = S / (S (1 + n) + n) (Hannan and Thomson; Knapp and Carter 1976).
Filtering both frames with sqrt(W) makes it a plain correlation. Power of the scene that two frames do not share, as it
was aliased or lies near the border, counts as noise of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

RINGS = 24
LOWEST, HIGHEST = 1 / 256, 0.71  # cycles per pixel
MIRROR = 16  # pixels of mirrored border around a frame while it is filtered
MAX_NOISE = 1.2  # stabilised noise has variance 1 to 1.15; an excess is detail of the scene
LEAST_SIGNAL = 1e-3
BORDER_SHARE = 0.1  # of the scene's power is in one frame only, near its border


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Power spectrum of a burst. signal: (B, F), the scene's over the noise's, by ring. noise: (B,), its variance.
    own_share: power (F,), over the scene's, that each frame alone shows."""

    signal: Tensor
    noise: Tensor
    own_share: Tensor | float = BORDER_SHARE

    def weight(self, n: Tensor) -> Tensor:
        """Compute W (B, F) for a template of noise variance n (B,), relative to a frame's."""
        S, unshared = self.signal, self.own_share * self.signal
        one, other = 1 + unshared, n[:, None] + unshared
        return S / (S * (one + other) + one * other)

    def with_aliased(self) -> Spectrum:
        """Return the same spectrum, of which frames share what was aliased, too."""
        return replace(self, own_share=BORDER_SHARE)

    def coherence(self, n: Tensor) -> Tensor:
        """Compute the share (B,) of filtered power that is scene, between template and frame."""
        W, S = self.weight(n) * _ring_areas(self.signal), self.signal
        return (W * S).sum(1) / (W * (S + (1 + n[:, None]) / 2)).sum(1)

    def residual_noise(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the variance (B,) of noise after filtering, and the pixels (B,) per independent value of it."""
        W, areas = self.weight(n), _ring_areas(self.signal) / _ring_areas(self.signal).sum()
        mean = (W * areas).sum(1)
        return mean, (W.square() * areas).sum(1) / mean.square()


def aliased_share(device: torch.device) -> Tensor:
    """Compute the share (F,) of the power of a ring that is aliased, of a scene of power 1 / f^2: the frequency 1 - f
    looks like f."""
    f = torch.logspace(math.log10(LOWEST), math.log10(HIGHEST), RINGS, device=device).clamp(max=0.5)
    return f.square() / (f.square() + (1 - f).square())


def estimate_spectrum(frames: Tensor, valid: Tensor) -> Spectrum:
    """Estimate the mean spectrum of valid (B, N) stabilised frames (B, N, H, W); the highest rings tell the noise. What
    is aliased is not shared."""
    height, width = frames.shape[-2:]
    window = torch.hann_window(height, device=frames.device)[:, None] * torch.hann_window(width, device=frames.device)
    centred = frames - frames.mean((-2, -1), keepdim=True)
    power = torch.fft.rfft2(centred * window).abs().square() / window.square().sum()
    share = valid.float() / valid.sum(1, keepdim=True)
    rings, counts = _ring_means(torch.einsum("bn,bnij->bij", share, power))
    noise = rings[:, -6:].median(1).values.clamp(0.5, MAX_NOISE)
    excess = rings / noise[:, None] - 1
    doubt = 2 / (counts * valid.sum(1, keepdim=True)).sqrt()
    signal = torch.where(excess > doubt, excess, (doubt / 10).clamp(min=LEAST_SIGNAL))
    return Spectrum(signal, noise, BORDER_SHARE + (1 - BORDER_SHARE) * aliased_share(frames.device))


def apply_matched_filter(frames: Tensor, spectrum: Spectrum, n: Tensor) -> Tensor:
    """Filter frames (B, N, H, W) with sqrt(W), with mirrored borders, and remove their mean."""
    height, width = frames.shape[-2:]
    margin = min(MIRROR, height - 1, width - 1 - width % 2)
    wide = pad(
        frames / spectrum.noise.sqrt()[:, None, None, None], (margin, margin + width % 2, margin, margin), "reflect"
    )
    size = (wide.shape[-2], wide.shape[-1])
    lower, share = _ring_places(*size, frames.device)
    h = spectrum.weight(n).sqrt()
    gain = torch.lerp(h[:, lower], h[:, lower + 1], share)
    gain[:, 0, 0] = 0
    filtered = torch.fft.irfft2(torch.fft.rfft2(wide) * gain[:, None], s=size)
    cut: Tensor = filtered[..., margin : margin + height, margin : margin + width]
    return cut.contiguous()


def _ring_means(power: Tensor) -> tuple[Tensor, Tensor]:
    """Average spectra (B, h, w / 2 + 1) over rings, (B, F), and count values (F,); empty rings copy the next."""
    lower, share = _ring_places(power.shape[-2], 2 * (power.shape[-1] - 1), power.device)
    ring = (lower + (share > 0.5)).flatten()
    flat = power.flatten(1)
    sums = torch.zeros(len(flat), RINGS, device=power.device).index_add_(1, ring[1:], flat[:, 1:])
    counts = torch.bincount(ring[1:], minlength=RINGS).float()
    means = sums / counts.clamp(min=1)
    for k in range(RINGS - 2, -1, -1):
        if counts[k] == 0:
            means[:, k] = means[:, k + 1]
    return means, counts.clamp(min=1)


def _ring_areas(like: Tensor) -> Tensor:
    """Count the frequencies (F,) near each ring, on a grid of 256 x 256."""
    lower, share = _ring_places(256, 256, like.device)
    return torch.bincount((lower + (share > 0.5)).flatten(), minlength=RINGS).to(like)


@lru_cache(maxsize=16)
def _ring_places(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return, for every frequency (h, w / 2 + 1), the ring below it and the fraction, in log frequency, to the next."""
    fy, fx = torch.fft.fftfreq(height, device=device)[:, None], torch.fft.rfftfreq(width, device=device)
    f = torch.hypot(fy, fx).clamp(LOWEST, HIGHEST)
    place = (f / LOWEST).log() / math.log(HIGHEST / LOWEST) * (RINGS - 1)
    lower = place.floor().clamp(max=RINGS - 2)
    return lower.long(), place - lower
