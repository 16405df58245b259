"""How close a denoised photograph is to the clean one, as a viewer sees both: PSNR and SSIM.

Images are linear (C, H, W), 1 the white level, at exposure w; what is compared are the pictures `seen`.
"""

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

CUT = 8  # pixels on each side, where a kernel or an aligned frame may have nothing to see
WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # SSIM's constants, for a range of 1


@dataclass(frozen=True)
class Quality:
    """psnr in dB, ssim in [-1, 1]; on_path and off_path: PSNR where something moved and elsewhere, else None."""

    psnr: float
    ssim: float
    on_path: float | None = None
    off_path: float | None = None


def quality(image: Light, truth: Light, w: float, path: Mask) -> Quality:
    """Of a linear image (C, H, W) beside the truth, both at exposure w; path (H, W): what a moving thing touched.

    Raises InputError for shapes that differ, an image too small for SSIM, and values that are not finite.
    """
    _check(image, truth)
    a, b = seen(image, w), seen(truth, w)
    moving: Mask = inner(path)
    apart = (psnr(a[:, moving], b[:, moving]), psnr(a[:, ~moving], b[:, ~moving])) if moving.any() else (None, None)
    return Quality(psnr(a, b), ssim(a, b), *apart)


def seen(image: Light, w: float) -> Picture:
    """clip(G(x / w), 0, 1) without the border of 8 pixels (the protocol of arXiv 1712.02327)."""
    picture: Picture = np.clip(tone_curve(inner(image).astype(np.float64) / float(w)), 0, 1)
    return picture


def inner(image: Values) -> Values:
    """(..., H, W) without its border."""
    return image[..., CUT:-CUT, CUT:-CUT]


def psnr(a: Picture, b: Picture) -> float:
    """-10 log10 mean (a - b)^2, for a range of 1; infinite for equal pictures."""
    error = float(np.mean(np.square(a - b))) if a.size else float("nan")
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(a: Picture, b: Picture) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11, sigma 1.5: the mean over channels and pixels,
    pictures mirrored at their edges (as torchmetrics does)."""
    mean_a, mean_b = smoothed(a), smoothed(b)
    var_a, var_b = smoothed(a * a) - mean_a**2, smoothed(b * b) - mean_b**2
    cov = smoothed(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + LUMINANCE) / (mean_a**2 + mean_b**2 + LUMINANCE)
    structure = (2 * cov + CONTRAST) / (var_a + var_b + CONTRAST)
    return float(np.mean(luminance * structure))


def smoothed(x: Picture) -> Picture:
    """Gaussian means of (C, H, W)."""
    r = WINDOW // 2
    taps = np.exp(-(np.arange(-r, r + 1) ** 2) / (2 * SIGMA**2))
    taps /= taps.sum()
    means: Picture = correlate1d(correlate1d(x, taps, 1, mode="mirror"), taps, 2, mode="mirror")
    return means


def _check(image: Light, truth: Light) -> None:
    need = 2 * CUT + WINDOW // 2 + 1
    if image.shape != truth.shape or min(image.shape[-2:]) < need:
        rule = f"image and truth {truth.shape} must have one shape, of at least {need} x {need} pixels"
        raise InputError("image to compare", got=image.shape, rule=rule)
    if not np.isfinite(image).all():
        raise InputError("image to compare", got="values that are not finite", rule="every pixel must be a number")
