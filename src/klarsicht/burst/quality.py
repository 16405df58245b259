"""PSNR and SSIM of a denoised photograph against the clean one, both linear (C, H, W), 1 the white level, at exposure
w, compared after `tone_mapped`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from klarsicht.burst.synthesis.scenes import Light
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.tone import Values, tone_curve

Picture = npt.NDArray[np.float64]  # C H W in [0, 1]
Mask = npt.NDArray[np.bool_]

CUT_BORDER = 8  # pixels on each side, where kernels and aligned frames may lack data
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # of SSIM's Gaussian
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # SSIM's constants, for a range of 1


@dataclass(frozen=True)
class Quality:
    """Quality: psnr in dB, ssim in [-1, 1]; on_path and off_path: PSNR where something moved and elsewhere, or None."""

    psnr: float
    ssim: float
    on_path: float | None = None
    off_path: float | None = None


def measure_quality(image: Light, truth: Light, w: float, path: Mask) -> Quality:
    """Compute the quality of a linear image (C, H, W) against the truth, both at exposure w; path (H, W): pixels that a
    moving object covered. Raises InputError for other shapes, or too small, and values that are not finite."""
    _check(image, truth)
    a, b = tone_mapped(image, w), tone_mapped(truth, w)
    moving: Mask = crop_border(path)
    apart = (psnr(a[:, moving], b[:, moving]), psnr(a[:, ~moving], b[:, ~moving])) if moving.any() else (None, None)
    return Quality(psnr(a, b), ssim(a, b), *apart)


def tone_mapped(image: Light, w: float) -> Picture:
    """Compute clip(G(x / w), 0, 1), G the tone curve, without the border of 8 pixels (arXiv 1712.02327)."""
    return np.clip(tone_curve(crop_border(image).astype(np.float64) / float(w)), 0, 1)


def crop_border(image: Values) -> Values:
    """Remove the border of CUT_BORDER pixels from (..., H, W)."""
    return image[..., CUT_BORDER:-CUT_BORDER, CUT_BORDER:-CUT_BORDER]


def psnr(a: Picture, b: Picture) -> float:
    """Compute the peak signal-to-noise ratio -10 log10 mean (a - b)^2; infinite for equal pictures."""
    error = float(np.mean(np.square(a - b))) if a.size else float("nan")
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(a: Picture, b: Picture) -> float:
    """Compute the structural similarity (Wang et al. 2004) with a Gaussian window of 11, sigma 1.5, averaged over
    channels and pixels, with pictures mirrored at their edges."""
    mean_a, mean_b = gaussian_mean(a), gaussian_mean(b)
    var_a, var_b = gaussian_mean(a * a) - mean_a**2, gaussian_mean(b * b) - mean_b**2
    cov = gaussian_mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + LUMINANCE) / (mean_a**2 + mean_b**2 + LUMINANCE)
    structure = (2 * cov + CONTRAST) / (var_a + var_b + CONTRAST)
    return float(np.mean(luminance * structure))


def gaussian_mean(x: Picture) -> Picture:
    """Compute Gaussian-weighted local means of (C, H, W)."""
    r = SSIM_WINDOW // 2
    taps = np.exp(-(np.arange(-r, r + 1) ** 2) / (2 * SSIM_SIGMA**2))
    taps /= taps.sum()
    return correlate1d(correlate1d(x, taps, 1, mode="mirror"), taps, 2, mode="mirror")


def _check(image: Light, truth: Light) -> None:
    """Raise InputError for shapes that differ, an image too small for SSIM, or values that are not finite."""
    need = 2 * CUT_BORDER + SSIM_WINDOW // 2 + 1
    if image.shape != truth.shape or min(image.shape[-2:]) < need:
        rule = f"image and truth {truth.shape} must have one shape, of at least {need} x {need} pixels"
        raise InputError("image to compare", got=image.shape, rule=rule)
    if not np.isfinite(image).all():
        raise InputError("image to compare", got="values that are not finite", rule="every pixel must be a number")
