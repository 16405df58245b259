"""Noise of colours that are interpolated from a mosaic: its covariances, its power spectrum, and draws of it.

The white noise of samples becomes noise that neighbouring pixels share (cokriging.noise_covariance). Its level is told
as that of white noise, as strong at low frequencies as that of interpolated green (cokriging.white_variance); a pixel
has less. The colours are interpolated in the strength in which a grey surface has equal samples, so that samples of
colour k count with the camera's gains, g_k / g_c, in colour c.

Axes: H W pixels, L lags along each side, the lag 0 in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.cokriging import (
    SAMPLES_RADIUS,
    Covariance,
    cell_side,
    interpolate_mosaic,
    noise_covariance,
    take_samples,
    white_variance,
)
from klarsicht.burst.data.photograph import Header, Planes

NOISE_LAGS = 2 * SAMPLES_RADIUS  # pixels up to which interpolated noise is correlated, along each side

Spectrum = npt.NDArray[np.float64]  # ... H W


@dataclass(frozen=True)
class InterpolatedNoise:
    """Noise of colours that are interpolated from a mosaic, made of white noise. cell: of the mosaic (cokriging).
    gains: of R, G and B, with which a grey surface has equal samples."""

    cell: str
    gains: tuple[float, float, float]

    @classmethod
    def of(cls, header: Header) -> InterpolatedNoise | None:
        """Return the noise of frames with such a header, None where their noise is white."""
        if not header.is_interpolated:
            return None
        assert header.sensor is not None
        return cls(header.sensor.pattern, header.rendering.gains)

    def __call__(self, noise: Planes, y0: int = 0, x0: int = 0) -> Planes:
        """Convert white noise (3, H, W), as strong as noise of interpolated frames is told to be, to the noise of
        samples behind the mosaic, interpolated; the first pixel is (y0, x0)."""
        return self.interpolate_samples(noise / np.float32(white_variance(self.cell) ** 0.5), y0, x0)

    def interpolate_samples(self, light: Planes, y0: int = 0, x0: int = 0) -> Planes:
        """Take the samples of colours (3, H, W), and interpolate colours from them again; the first pixel is (y0,
        x0)."""
        cell = self.cell_at(y0, x0)
        return interpolate_mosaic(take_samples(light, cell), cell, self.gains)

    def cell_at(self, y0: int, x0: int) -> str:
        """Return the cell of the mosaic from pixel (y0, x0) on."""
        colours = np.array(list(self.cell)).reshape((cell_side(self.cell),) * 2)
        return "".join(np.roll(colours, (-y0, -x0), (0, 1)).ravel())

    @cached_property
    def covariance(self) -> Covariance:
        """Covariances (3, 3, L, L) of a colour c with itself, by the noise of samples of colour k, told to be of
        variance 1."""
        g = np.array(self.gains)
        factors = np.square(g / g[:, None]) / white_variance(self.cell)
        scaled: Covariance = noise_covariance(self.cell) * factors[..., None, None]
        return scaled

    def power_spectrum(self, told: Sequence[float], size: tuple[int, int]) -> Spectrum:
        """Compute the power spectrum (3, H, W) of noise whose told variances are uniform, in the layout of numpy.fft:
        its mean is the variance of a pixel."""
        H, W = size
        rows, columns = (np.eye(side)[np.arange(-NOISE_LAGS, NOISE_LAGS + 1) % side] for side in (H, W))
        folded = np.einsum("ckij,k,iy,jx->cyx", self.covariance, np.array(told), rows, columns, optimize=True)
        power: Spectrum = np.maximum(np.fft.fft2(folded).real, 0)
        return power
