"""Classical burst denoising methods, the baselines of trained networks.

Every method takes a Burst and returns its clean reference (C, H, W), linear and of the same exposure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.align.alignment import align_whole_frames, stabilised_grey
from klarsicht.burst.data.burst import RGB_CHANNELS, Burst
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise, Spectrum
from klarsicht.burst.evaluation import hdrplus, phase_correlation
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Denoise = Callable[[Burst], Light]

NLM_FRAMES = 7
BM3D_WHITE = (3.0, 0.4)  # threshold and Wiener factor that the package bm3d takes where noise is white
NLM_STRENGTH = 1.0  # h of non-local means over the deviation of the noise


def single(burst: Burst) -> Light:
    """Return the reference unchanged."""
    return burst.reference


def mean(burst: Burst) -> Light:
    """Average the valid frames without alignment."""
    average: Light = burst.frames[burst.valid].mean(0)
    return average


def align_mean(burst: Burst) -> Light:
    """Average the frames aligned by phase correlation, to a fraction of a pixel."""
    return phase_correlation.aligned_mean(burst, phase_correlation.estimate_shifts(burst))


def align_whole_mean(burst: Burst) -> Light:
    """Average the frames aligned by phase correlation, by whole pixels."""
    return phase_correlation.aligned_mean(burst, np.rint(phase_correlation.estimate_shifts(burst)))


def register_mean(burst: Burst) -> Light:
    """Average the frames aligned globally by the networks' aligner, to a fraction of a pixel."""
    frames = torch.from_numpy(burst.frames[burst.valid])[None]
    light = stabilised_grey(frames, torch.tensor([burst.noise.read]), torch.tensor([burst.noise.shot]))
    shifts = np.zeros((len(burst.frames), 2))
    shifts[burst.valid] = align_whole_frames(light, torch.ones(light.shape[:2], dtype=torch.bool)).shifts[0].numpy()
    return phase_correlation.aligned_mean(burst, shifts)


def bm3d(burst: Burst) -> Light:
    """Denoise the reference alone by BM3D."""
    return denoise_bm3d(burst.reference, burst.noise, interpolated_noise(burst))


def align_mean_bm3d(burst: Burst) -> Light:
    """Denoise the mean of `align_mean` by BM3D."""
    return denoise_bm3d(align_mean(burst), burst.noise.average_frames(burst.count), interpolated_noise(burst))


def align_whole_mean_bm3d(burst: Burst) -> Light:
    """Denoise the mean of `align_whole_mean` by BM3D."""
    return denoise_bm3d(align_whole_mean(burst), burst.noise.average_frames(burst.count), interpolated_noise(burst))


def register_mean_bm3d(burst: Burst) -> Light:
    """Denoise the mean of `register_mean` by BM3D."""
    return denoise_bm3d(register_mean(burst), burst.noise.average_frames(burst.count), interpolated_noise(burst))


def hdr_plus(burst: Burst) -> Light:
    """Align and merge the burst by HDR+."""
    return hdrplus.align_and_merge(burst).image


def hdr_plus_bm3d(burst: Burst) -> Light:
    """Denoise the merge of HDR+ by BM3D, given the noise that the merge has left."""
    merged = hdrplus.align_and_merge(burst)
    return denoise_bm3d(merged.image, merged.noise, interpolated_noise(burst))


def nlm(burst: Burst) -> Light:
    """Denoise by multi-frame non-local means (Buades et al. 2005) of up to 7 aligned frames, the reference in the
    middle, in 8 bits of the stabilised range, as OpenCV requires."""
    shift = np.rint(phase_correlation.estimate_shifts(burst))
    aligned = [phase_correlation.shift_frame(burst.frames[i], shift[i])[0] for i in np.flatnonzero(burst.valid)]
    ordered = centre_reference(aligned[:NLM_FRAMES])
    stable = burst.noise.stabilise(np.stack(ordered))
    planes = [_nlm_plane(stable[:, c]) for c in range(stable.shape[1])]
    clean: Light = burst.noise.unstabilise(np.stack(planes)).astype(np.float32)
    return clean


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
    """Compute level and spectrum of each interpolated colour's noise from the level that is told, at the picture's mean
    light."""
    variances = [float(noise.variance(np.maximum(plane.mean(), 0))) for plane in image]
    spectra = interpolated.power_spectrum(variances, (image.shape[1], image.shape[2]))
    return [
        (noise.scale_variance(spectrum.mean() / variance), spectrum / spectrum.mean())
        for spectrum, variance in zip(spectra, variances, strict=True)
    ]


def _bm3d_plane(plane: Light, spectrum: Spectrum | None) -> npt.NDArray[np.float64]:
    """Denoise (H, W) with noise of that power spectrum, None: white, of deviation 1; the package requires values from 0
    to 1."""
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


@dataclass(frozen=True)
class Method:
    """A denoising method, and the optional package that it requires."""

    denoise: Denoise
    package: str = ""
    note: str = ""

    @property
    def absence_reason(self) -> str:
        """Reason why it cannot run here; empty if it can."""
        if not self.package or find_spec(self.package):
            return ""
        return f"the package {self.package} is not installed (pip install 'klarsicht[bench]'{self.note})"


NON_COMMERCIAL = "; its licence allows non-commercial use only"

CLASSICAL = {
    "single": Method(single),
    "mean": Method(mean),
    "align+mean": Method(align_mean),
    "align-whole+mean": Method(align_whole_mean),
    "bm3d": Method(bm3d, "bm3d", NON_COMMERCIAL),
    "align+mean+bm3d": Method(align_mean_bm3d, "bm3d", NON_COMMERCIAL),
    "align-whole+mean+bm3d": Method(align_whole_mean_bm3d, "bm3d", NON_COMMERCIAL),
    "register+mean": Method(register_mean),
    "register+mean+bm3d": Method(register_mean_bm3d, "bm3d", NON_COMMERCIAL),
    "hdr+": Method(hdr_plus),
    "hdr++bm3d": Method(hdr_plus_bm3d, "bm3d", NON_COMMERCIAL),
    "nlm": Method(nlm, "cv2"),
}
