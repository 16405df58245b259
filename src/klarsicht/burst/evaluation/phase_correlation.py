"""Global alignment of frames by phase correlation, and their mean. Shifts are (y, x) in pixels: frame i shows at p +
shift what the reference shows at p."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import REFERENCE, Burst
from klarsicht.burst.synthesis.motion import Vectors
from klarsicht.burst.synthesis.scenes import Light

SEARCHED_SHIFT = 20  # pixels: longest shift that is searched
LOWPASS = 0.12  # cycles a pixel: deviation of the Gaussian that attenuates finer, noisier frequencies
MIRRORED = 16  # pixels mirrored around a frame before it is shifted by phase
FAINT = 1e-12

ShiftedFrame = tuple[Light, npt.NDArray[np.float64]]


def estimate_shifts(burst: Burst) -> Vectors:
    """Estimate shifts (N, 2) by phase correlation (Kuglin and Hines 1975) of stabilised frames, with a parabola through
    the peak; 0 for the reference and for frames that are not valid."""
    spectra = [_spectrum(frame) for frame in stabilised_grey(burst)]
    offsets = np.zeros((len(spectra), 2))
    for i in np.flatnonzero(burst.valid).tolist():
        if i != REFERENCE:
            offsets[i] = _peak(_correlation(spectra[REFERENCE], spectra[i], burst.size))
    return offsets


def stabilised_grey(burst: Burst) -> Light:
    """Average the channels of the variance-stabilised frames, (N, H, W)."""
    return burst.noise.stabilise(burst.frames).mean(1)


def aligned_mean(burst: Burst, shift: Vectors) -> Light:
    """Average, at each pixel, the valid frames that cover it, (C, H, W)."""
    total, count = np.zeros(burst.reference.shape), np.zeros(burst.size)
    for i in np.flatnonzero(burst.valid):
        shifted, inside = shift_frame(burst.frames[i], shift[i])
        total += shifted * inside
        count += inside
    return (total / count).astype(np.float32)


def shift_frame(frame: Light, shift: npt.NDArray[np.float64]) -> ShiftedFrame:
    """Sample the frame (C, H, W) at p + shift, and mark where that lies inside, (H, W) of 0 and 1. The whole-pixel part
    is an index shift, the rest is a change of phase, which leaves white noise white."""
    whole = np.rint(shift).astype(int)
    shifted = frame
    for axis, (step, side) in enumerate(zip(whole, frame.shape[-2:], strict=True), 1):
        shifted = shifted.take(np.clip(np.arange(side) + step, 0, side - 1), axis)
    inside = [_inside_mask(side, s) for side, s in zip(frame.shape[-2:], shift, strict=True)]
    rest = shift - whole
    return (_shift_fraction(shifted, rest) if rest.any() else shifted), np.outer(*inside)


def _inside_mask(side: int, shift: float) -> npt.NDArray[np.float64]:
    place = np.arange(side) + shift
    return ((place > -0.5 - 1e-9) & (place < side - 0.5 + 1e-9)).astype(float)


def _shift_fraction(frame: Light, rest: npt.NDArray[np.float64]) -> Light:
    """Compute x(p + rest) by the shift theorem."""
    wide = np.pad(frame, ((0, 0), (MIRRORED, MIRRORED), (MIRRORED, MIRRORED)), "symmetric")
    H, W = wide.shape[-2:]
    turns = np.fft.fftfreq(H)[:, None] * rest[0] + np.fft.rfftfreq(W) * rest[1]
    shifted = np.fft.irfft2(np.fft.rfft2(wide) * np.exp(2j * np.pi * turns), s=(H, W))
    return shifted[:, MIRRORED:-MIRRORED, MIRRORED:-MIRRORED].astype(np.float32)


def _spectrum(frame: Light) -> npt.NDArray[np.complex128]:
    window = np.outer(*(np.hanning(side) for side in frame.shape))
    return np.fft.rfft2((frame - frame.mean()) * window)


def _correlation(
    reference: npt.NDArray[np.complex128], other: npt.NDArray[np.complex128], size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Compute the phase correlation at every shift from -SEARCHED_SHIFT to SEARCHED_SHIFT (less in a small frame)."""
    H, W = size
    cross = reference.conj() * other
    square = np.fft.fftfreq(H)[:, None] ** 2 + np.fft.rfftfreq(W) ** 2
    phase = cross / (np.abs(cross) + FAINT) * np.exp(-square / (2 * LOWPASS**2))
    ry, rx = (min(SEARCHED_SHIFT, (side - 1) // 2) for side in size)
    return np.roll(np.fft.irfft2(phase, s=size), (ry, rx), (0, 1))[: 2 * ry + 1, : 2 * rx + 1]


def _peak(correlation: npt.NDArray[np.float64]) -> tuple[float, float]:
    y, x = (int(i) for i in np.unravel_index(correlation.argmax(), correlation.shape))
    centre = [side // 2 for side in correlation.shape]
    return y - centre[0] + _parabola_vertex(correlation[:, x], y), x - centre[1] + _parabola_vertex(correlation[y], x)


def _parabola_vertex(line: npt.NDArray[np.float64], i: int) -> float:
    """Compute the vertex of the parabola through three points, relative to i; 0 at the end of the line."""
    if not 0 < i < len(line) - 1:
        return 0.0
    before, here, after = line[i - 1 : i + 2].tolist()
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, (before - after) / (2 * bend)))
