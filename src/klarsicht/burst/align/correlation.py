"""Correlation of frames with a template at each shift: the best shift, and its posterior probability.

A shift d means that frame(p + d) shows the same as template(p). Both are filtered by `matched_filter`, which makes a
correlation a log-likelihood ratio. Any leading axes do; D = 2 reach + 1 shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn.functional import pad

TAPER = 0.12  # of a side, at both ends
NEWTON_STEPS = 2


@dataclass(frozen=True, eq=False)
class Correlation:
    """Scores (..., D, D) at shifts up to `reach`, log prior included; cross: the cross-spectrum, of that `size`."""

    scores: Tensor
    cross: Tensor
    size: tuple[int, int]

    def best_shift(self) -> Tensor:
        """Find the shift (..., 2) of the highest score, refined by Newton's method to the peak of the correlation."""
        d = best_shift(self.scores)
        for _ in range(NEWTON_STEPS):
            d = d + _newton_step(self.cross, d, self.size)
        return d

    @property
    def confidence(self) -> Tensor:
        """The posterior probability (...) that the true shift is within a pixel of the best one."""
        return confidence(self.scores)


def correlate(template: Tensor, frames: Tensor, reach: int, prior: Tensor) -> Correlation:
    """Compute sum_p t(p) f(p + d) for template and frames (..., H, W); prior (D, D) is added to the scores."""
    height, width = template.shape[-2:]
    size = (_fast_fft_length(height + reach), _fast_fft_length(width + reach))
    tapered = template * _taper(height, template.device)[:, None] * _taper(width, template.device)
    cross = torch.fft.rfft2(tapered, s=size).conj() * torch.fft.rfft2(frames, s=size)
    around = torch.fft.irfft2(cross, s=size).roll((reach, reach), (-2, -1))
    return Correlation(around[..., : 2 * reach + 1, : 2 * reach + 1] + prior, cross, size)


def correlate_tiles(template: Tensor, wide: Tensor, rho: Tensor) -> Tensor:
    """Compute scores (..., D, D), sum t f - rho / 2 f^2, of tiles (..., T, T) within frames larger by (D - 1) / 2 on
    every side; rho: the share of power that is scene. Without the second term, brighter content would fit better."""
    T, D = template.shape[-1], wide.shape[-1] - template.shape[-1] + 1
    size = (_fast_fft_length(wide.shape[-1]),) * 2
    cross = torch.fft.rfft2(template, s=size).conj() * torch.fft.rfft2(wide, s=size)
    table = pad(wide.square().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    rows = table[..., T:, :] - table[..., :D, :]
    return torch.fft.irfft2(cross, s=size)[..., :D, :D] - rho / 2 * (rows[..., T:] - rows[..., :D])


def shift_prior(reach: int, spread: float, strength: float, centre: Tensor) -> Tensor:
    """Compute a log prior (..., D, D) of shifts: -strength log(1 + |d - centre|^2 / spread^2), centre (..., 2)."""
    d = torch.arange(-reach, reach + 1, device=centre.device, dtype=torch.float32) - centre[..., None]
    y, x = d[..., 0, :], d[..., 1, :]
    return -strength * torch.log1p((y[..., :, None].square() + x[..., None, :].square()) / spread**2)


def best_shift(scores: Tensor) -> Tensor:
    """Find the shift (..., 2) of the highest score (..., D, D), refined by a parabola along each axis."""
    D = scores.shape[-1]
    flat = scores.flatten(-2)
    top = flat.argmax(-1)
    y, x = (top // D).clamp(1, D - 2), (top % D).clamp(1, D - 2)
    places = torch.stack([(y + dy) * D + x + dx for dy, dx in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))], -1)
    middle, above, below, left, right = flat.gather(-1, places).unbind(-1)
    at = torch.stack((y - D // 2, x - D // 2), -1)
    return at + torch.stack((_parabola_vertex(above, middle, below), _parabola_vertex(left, middle, right)), -1)


def confidence(scores: Tensor) -> Tensor:
    """Compute the share (...) of exp(scores) within a pixel of the best shift."""
    D = scores.shape[-1]
    flat = scores.flatten(-2)
    top, p = flat.argmax(-1), flat.softmax(-1).reshape(scores.shape)
    k = torch.arange(D, device=scores.device)
    near_y = (k - (top // D)[..., None]).abs() <= 1
    near_x = (k - (top % D)[..., None]).abs() <= 1
    return (p * near_y[..., :, None] * near_x[..., None, :]).sum((-2, -1))


def _newton_step(cross: Tensor, d: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute the Newton step (..., 2) of sum_f Re cross(f) e^(i f d); 0 where not concave or longer than a pixel."""
    wy = 2 * torch.pi * torch.fft.fftfreq(size[0], device=d.device)
    wx = 2 * torch.pi * torch.fft.rfftfreq(size[1], device=d.device)
    twice = torch.full_like(wx, 2.0)  # a half spectrum: all columns but the first and last count twice
    twice[0] = twice[-1] = 1
    along_x = _derivatives(wx, d[..., 1:]) * twice[:, None]
    sums = (_derivatives(wy, d[..., :1]).mT @ (cross @ along_x)).real  # (..., 3, 3), orders of derivative in y and x
    gy, gx, yy, xx, yx = sums[..., 1, 0], sums[..., 0, 1], sums[..., 2, 0], sums[..., 0, 2], sums[..., 1, 1]
    determinant = yy * xx - yx * yx
    step = -torch.stack((xx * gy - yx * gx, yy * gx - yx * gy), -1) / determinant[..., None]
    hill = (determinant > 0) & (yy < 0) & (step.abs() < 1).all(-1)
    return torch.where(hill[..., None], step, 0.0)


def _derivatives(w: Tensor, d: Tensor) -> Tensor:
    """Compute e^(i w d) and its first two derivatives by d, (..., F, 3), for frequencies w (F,) at d (..., 1)."""
    wave = torch.exp(1j * w * d)
    return torch.stack((wave, 1j * w * wave, -w.square() * wave), -1)


def _parabola_vertex(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    """Compute the offset of the maximum of a parabola through three scores, within half a pixel."""
    bend = before - 2 * middle + after
    return torch.where(bend < 0, ((before - after) / 2 / bend).clamp(-0.5, 0.5), 0.0)


def _taper(length: int, device: torch.device) -> Tensor:
    """Return a Tukey window (length,): 1, falling to 0 at both ends by half a cosine."""
    p = torch.arange(length, device=device) + 0.5
    rise = torch.minimum(p, length - p) / max(1.0, TAPER * length)
    return 0.5 - 0.5 * torch.cos(torch.pi * rise.clamp(max=1))


def _fast_fft_length(length: int) -> int:
    """Return the next even length with a fast Fourier transform."""
    return 2 * int(next_fast_len(-(-length // 2), real=True))
