"""What is done with a burst without a network: the peers that a trained one is measured beside.

Every method takes a Burst and returns its clean reference (C, H, W), linear and of the same exposure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.align.alignment import guide, whole_frames
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.evaluate import hdrplus, phase_correlation
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Denoise = Callable[[Burst], Light]

NLM_FRAMES = 7
NLM_STRENGTH = 1.0  # h of non-local means over the deviation of the noise


def single(burst: Burst) -> Light:
    """The reference as it is."""
    return burst.reference


def mean(burst: Burst) -> Light:
    """Of the valid frames, wherever they look."""
    average: Light = burst.frames[burst.valid].mean(0)
    return average


def align_mean(burst: Burst) -> Light:
    """Of the frames laid over the reference, to a fraction of a pixel."""
    return phase_correlation.aligned_mean(burst, phase_correlation.shifts(burst))


def align_whole_mean(burst: Burst) -> Light:
    """Of the frames laid over the reference by whole pixels."""
    return phase_correlation.aligned_mean(burst, np.rint(phase_correlation.shifts(burst)))


def register_mean(burst: Burst) -> Light:
    """Of the frames laid over the reference as the aligner before a network has them as wholes, to a fraction of a
    pixel."""
    frames = torch.from_numpy(burst.frames[burst.valid])[None]
    light = guide(frames, torch.tensor([burst.noise.read]), torch.tensor([burst.noise.shot]))
    shifts = np.zeros((len(burst.frames), 2))
    shifts[burst.valid] = whole_frames(light, torch.ones(light.shape[:2], dtype=torch.bool)).shifts[0].numpy()
    return phase_correlation.aligned_mean(burst, shifts)


def bm3d(burst: Burst) -> Light:
    """The reference alone, by block matching."""
    return block_matched(burst.reference, burst.noise)


def align_mean_bm3d(burst: Burst) -> Light:
    return block_matched(align_mean(burst), burst.noise.averaged(burst.count))


def align_whole_mean_bm3d(burst: Burst) -> Light:
    return block_matched(align_whole_mean(burst), burst.noise.averaged(burst.count))


def register_mean_bm3d(burst: Burst) -> Light:
    return block_matched(register_mean(burst), burst.noise.averaged(burst.count))


def hdr_plus(burst: Burst) -> Light:
    return hdrplus.align_and_merge(burst).image


def hdr_plus_bm3d(burst: Burst) -> Light:
    """By block matching after the merge, told how much noise the merge has left."""
    merged = hdrplus.align_and_merge(burst)
    return block_matched(merged.image, merged.noise)


def nlm(burst: Burst) -> Light:
    """Multi-frame non-local means (Buades et al. 2005) of up to 7 aligned frames, the reference in the middle,
    in 8 bits of the stabilised range, as OpenCV wants it."""
    shift = np.rint(phase_correlation.shifts(burst))
    aligned = [phase_correlation.displaced(burst.frames[i], shift[i])[0] for i in np.flatnonzero(burst.valid)]
    ordered = around_reference(aligned[:NLM_FRAMES])
    stable = burst.noise.stabilise(np.stack(ordered))
    planes = [_nlm_plane(stable[:, c]) for c in range(stable.shape[1])]
    clean: Light = burst.noise.unstabilise(np.stack(planes)).astype(np.float32)
    return clean


def around_reference(frames: list[Light]) -> list[Light]:
    """An odd number of frames, the first of them moved to the middle."""
    kept = frames[: len(frames) - 1 + len(frames) % 2]
    half = len(kept) // 2
    return [*kept[1 : half + 1], kept[0], *kept[half + 1 :]]


def block_matched(image: Light, noise: NoiseLevel) -> Light:
    """BM3D (Dabov et al. 2007) where the noise has deviation 1, and back without bias (Makitalo and Foi 2013)."""
    stable = noise.stabilise(image)
    clean: Light = noise.unstabilise(np.stack([_bm3d_plane(plane) for plane in stable])).astype(np.float32)
    return clean


def _bm3d_plane(plane: Light) -> npt.NDArray[np.float64]:
    """(H, W) with noise of deviation 1; the package wants values from 0 to 1."""
    import bm3d as package

    low, span = _range(plane)
    return np.asarray(package.bm3d((plane - low).astype(np.float64) / span, 1 / span), np.float64) * span + low


def _nlm_plane(frames: Light) -> npt.NDArray[np.float64]:
    """(n, H, W) with noise of deviation 1, the reference in the middle, to (H, W)."""
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
    """A way to denoise, and the package that it wants beyond those that are always there."""

    denoise: Denoise
    package: str = ""
    note: str = ""

    @property
    def absent(self) -> str:
        """Why it cannot run here; empty if it can."""
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
