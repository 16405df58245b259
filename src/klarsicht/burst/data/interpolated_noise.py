"""Noise of colours that are interpolated from a mosaic: its covariances, its power spectrum, and draws of it.

Its level is told as that of white noise, as strong at low frequencies as that of interpolated green
(cokriging.white_variance). Samples of colour k count with the camera's gains, g_k / g_c, in colour c. L lags along each
side, the lag 0 in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data import cokriging
from klarsicht.burst.data.photograph import Header, Planes

NOISE_LAGS = 2 * cokriging.SAMPLES_RADIUS  # pixels up to which interpolated noise is correlated, along each side

Spectrum = npt.NDArray[np.float64]  # ... H W


@dataclass(frozen=True)
class InterpolatedNoise:
    """Noise interpolated from a mosaic's white noise. gains: with which a grey surface has equal samples."""

    cell: str
    gains: tuple[float, float, float]

    @classmethod
    def of(cls, header: Header) -> InterpolatedNoise | None:
        """Return the noise of frames with such a header, None where their noise is white."""
        return cls(header.cell, header.rendering.gains) if header.cell else None

    def __call__(self, noise: Planes, y0: int = 0, x0: int = 0) -> Planes:
        """Convert white noise (3, H, W) of the level that is told to noise of samples, interpolated."""
        return self.interpolate_samples(noise / np.float32(cokriging.white_variance(self.cell) ** 0.5), y0, x0)

    def interpolate_samples(self, light: Planes, y0: int = 0, x0: int = 0) -> Planes:
        """Take the samples of colours (3, H, W), the first pixel (y0, x0), and interpolate colours from them again."""
        cell = self.cell_at(y0, x0)
        return cokriging.interpolate_mosaic(cokriging.take_samples(light, cell), cell, self.gains)

    def cell_at(self, y0: int, x0: int) -> str:
        """Return the cell of the mosaic from pixel (y0, x0) on."""
        colours = np.array(list(self.cell)).reshape((cokriging.cell_side(self.cell),) * 2)
        return "".join(np.roll(colours, (-y0, -x0), (0, 1)).ravel())

    @cached_property
    def covariance(self) -> cokriging.Covariance:
        """Covariances (3, 3, L, L) of colour c with itself, by noise of samples of colour k, told of variance 1."""
        g = np.array(self.gains)
        factors = np.square(g / g[:, None]) / cokriging.white_variance(self.cell)
        return cokriging.noise_covariance(self.cell) * factors[..., None, None]

    def power_spectrum(self, told: Sequence[float], size: tuple[int, int]) -> Spectrum:
        """Compute the spectrum (3, H, W), as of numpy.fft, of noise of told variances; its mean is a pixel's."""
        H, W = size
        rows, columns = (np.eye(side)[np.arange(-NOISE_LAGS, NOISE_LAGS + 1) % side] for side in (H, W))
        folded = np.einsum("ckij,k,iy,jx->cyx", self.covariance, np.array(told), rows, columns, optimize=True)
        return np.maximum(np.fft.fft2(folded).real, 0)
