"""Classical burst denoising methods, the baselines of trained networks.

A merge makes one picture (C, H, W) of a burst, linear and of the same exposure, and tells the noise that is left in it;
block matching may follow.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import RGB_CHANNELS, Burst
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise, Spectrum
from klarsicht.burst.evaluation import phase_correlation
from klarsicht.burst.evaluation.hdrplus import align_and_merge
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.ground.optional import install_command
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Denoise = Callable[[Burst], Light]
Merged = tuple[Light, NoiseLevel]

NLM_FRAMES = 7
NLM_STRENGTH = 1.0  # h of non-local means over the deviation of the noise
BM3D_WHITE = (3.0, 0.4)  # threshold and Wiener factor that the package bm3d takes where noise is white


def single(burst: Burst) -> Merged:
    """Return the reference unchanged."""
    return burst.reference, burst.noise


def mean(burst: Burst) -> Merged:
    """Average the valid frames without alignment."""
    return burst.frames[burst.valid].mean(0), burst.noise.average_frames(burst.count)


def align_mean(burst: Burst) -> Merged:
    """Average the frames aligned by phase correlation, to a fraction of a pixel."""
    average = phase_correlation.aligned_mean(burst, phase_correlation.estimate_shifts(burst))
    return average, burst.noise.average_frames(burst.count)


def nlm(burst: Burst) -> Light:
    """Denoise by multi-frame non-local means (Buades et al. 2005) of up to 7 aligned frames, the reference in the
    middle, in 8 bits of the stabilised range, as OpenCV requires."""
    shift = np.rint(phase_correlation.estimate_shifts(burst))
    aligned = [phase_correlation.shift_frame(burst.frames[i], shift[i])[0] for i in np.flatnonzero(burst.valid)]
    stable = burst.noise.stabilise(np.stack(centre_reference(aligned[:NLM_FRAMES])))
    planes = [_nlm_plane(stable[:, c]) for c in range(stable.shape[1])]
    return np.asarray(burst.noise.unstabilise(np.stack(planes)), np.float32)


def centre_reference(frames: list[Light]) -> list[Light]:
    """Return an odd number of frames, the first of them moved to the middle."""
    kept = frames[: len(frames) - 1 + len(frames) % 2]
    half = len(kept) // 2
    return [*kept[1 : half + 1], kept[0], *kept[half + 1 :]]


def interpolated_noise(burst: Burst) -> InterpolatedNoise | None:
    """Return the noise of interpolated colours; None where noise is white."""
    if burst.colour_filter is None or burst.reference.shape[0] != RGB_CHANNELS:
        return None
    return InterpolatedNoise(burst.colour_filter, burst.balance)


def denoise_bm3d(image: Light, noise: NoiseLevel, interpolated: InterpolatedNoise | None = None) -> Light:
    """Denoise by BM3D (Dabov et al. 2007) after variance stabilisation to deviation 1, with the unbiased inverse
    (Makitalo and Foi 2013). interpolated: the noise of colours that were; BM3D is then told its power spectrum
    (Makinen, Azzari and Foi 2020)."""
    known = white_channels(image, noise) if interpolated is None else correlated_channels(image, noise, interpolated)
    clean = [
        level.unstabilise(_bm3d_plane(level.stabilise(plane), spectrum))
        for plane, (level, spectrum) in zip(image, known, strict=True)
    ]
    return np.stack(clean).astype(np.float32)


ChannelNoise = tuple[NoiseLevel, Spectrum | None]
"""Noise of a channel: the level of its pixels, and its power spectrum (H, W) of mean 1, or None where it is white."""


def white_channels(image: Light, noise: NoiseLevel) -> list[ChannelNoise]:
    """Return white noise of that level for each channel."""
    return [(noise, None)] * len(image)


def correlated_channels(image: Light, noise: NoiseLevel, interpolated: InterpolatedNoise) -> list[ChannelNoise]:
    """Compute level and spectrum of each interpolated colour's noise from the told level, at the mean light."""
    variances = [float(noise.variance(np.maximum(plane.mean(), 0))) for plane in image]
    spectra = interpolated.power_spectrum(variances, (image.shape[1], image.shape[2]))
    return [
        (noise.scale_variance(spectrum.mean() / variance), spectrum / spectrum.mean())
        for spectrum, variance in zip(spectra, variances, strict=True)
    ]


def _bm3d_plane(plane: Light, spectrum: Spectrum | None) -> npt.NDArray[np.float64]:
    """Denoise (H, W), scaled to [0, 1] as the package requires, of noise of that spectrum or white of deviation 1."""
    import bm3d as package

    low, span = _range(plane)
    profile = package.BM3DProfile()
    if spectrum is not None:  # the package's estimates of these do not run with numpy 2.4
        profile.lambda_thr3d, profile.mu2 = BM3D_WHITE
    told = 1 / span if spectrum is None else spectrum * plane.size / span**2
    return np.asarray(package.bm3d((plane - low).astype(np.float64) / span, told, profile), np.float64) * span + low


def _nlm_plane(frames: Light) -> npt.NDArray[np.float64]:
    """Denoise n frames (n, H, W) with noise of deviation 1, the reference in the middle, to (H, W)."""
    import cv2

    low, span = _range(frames)
    step = 255 / span
    eight_bit = [np.rint((frame - low) * step).astype(np.uint8) for frame in frames]
    clean = cv2.fastNlMeansDenoisingMulti(eight_bit, len(frames) // 2, len(frames), h=NLM_STRENGTH * step)
    return np.asarray(clean, np.float64) / step + low


def _range(values: Light) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low, (high - low) or 1.0


def picture_of(merge: Callable[[Burst], Merged]) -> Denoise:
    """Build the method that a merge is by itself."""
    return lambda burst: merge(burst)[0]


def with_bm3d(merge: Callable[[Burst], Merged]) -> Denoise:
    """Build the method that denoises a merge by BM3D, given the noise that is left."""
    return lambda burst: denoise_bm3d(*merge(burst), interpolated_noise(burst))


def absence_reason(row: str) -> str:
    """Return the reason why a method cannot run here; empty if it can."""
    package, note = PACKAGES.get(row.split("+")[-1], ("", ""))
    if not package or find_spec(package):
        return ""
    return f"the package {package} is not installed ({install_command('bench')}{note})"


PACKAGES = {"bm3d": ("bm3d", "; its licence allows non-commercial use only"), "nlm": ("cv2", "")}
"""Optional packages, and what to know of them, by the last step of the methods that require them."""

CLASSICAL: dict[str, Denoise] = {
    "single": picture_of(single),
    "mean": picture_of(mean),
    "align+mean": picture_of(align_mean),
    "bm3d": with_bm3d(single),
    "align+mean+bm3d": with_bm3d(align_mean),
    "hdr+": picture_of(align_and_merge),
    "hdr++bm3d": with_bm3d(align_and_merge),
    "nlm": nlm,
}
