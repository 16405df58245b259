"""Exposure brackets: alignment of frames of other exposures, their exact exposures, and where they are clipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.denoising.interpolated_frames import align_loaded_frames
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.burst.merging.exposure_weights import ClippedFrames
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

BRIGHTEST = 0.9  # of white: light of pixels that are compared, and of all around them
NEIGHBOURHOOD = 5  # pixels: side of the window around one
COMPARED_SIDE = 512  # pixels: largest side of the windows in which exposures are compared
COMPARED_WINDOWS = 3  # along each side of the picture
LEAST_TILES = 8  # that tell an exposure


@dataclass(frozen=True)
class CutFrames(FrameStore):
    """Frames of another store, cut off at a white."""

    source: FrameStore
    white: float

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        return np.minimum(self.source.read_inner_window(frame, inside), np.float32(self.white))


@dataclass(frozen=True)
class ScaledFrames(FrameStore):
    """Frames of another store, each times a factor."""

    source: FrameStore
    factors: tuple[float, ...]

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        return self.source.read_inner_window(frame, inside) * np.float32(self.factors[frame])

    def read_neighbourhoods(self, frame: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.source.read_neighbourhoods(frame, places) * np.float32(self.factors[frame])


def align_by_pairs(burst: LoadedBurst, level: NoiseLevel) -> Placement:
    """Align each frame of a bracket with the reference alone, both cut off at the lower of their whites, so that both
    show the same, and on the scale of the noisier. level: the mean of the noise over the channels, at gain 1."""
    first, *others = burst.order
    gains, spool, pairs = [frame.gain for frame in burst.frames], burst.spool, []
    for other in others:
        lower, upper = sorted((gains[first], gains[other]))
        cut = replace(burst, spool=CutFrames(spool.path, spool.shape, spool, lower))
        pairs.append(align_loaded_frames(cut, level, [upper] * len(gains), [first, other]))
    parts = [pairs[0].select([0]), *(pair.select([1]) for pair in pairs)]
    return Placement(**{name: np.concatenate([getattr(one, name) for one in parts]) for name in vars(parts[0])})


def measure_exposures(burst: LoadedBurst, placement: Placement, order: Sequence[int]) -> tuple[float, ...]:
    """Measure the factors that the frames of a bracket still lack to match the reference: the median ratio of light in
    tiles where they agree and neither is near its white. Before alignment, cells of moved frames do not show the
    same."""
    spool, (H, W) = burst.spool, burst.spool.size
    height, width = (min(COMPARED_SIDE, side) for side in (H, W))
    corners = (
        sorted({int(p) // STEP * STEP for p in np.linspace(0, side - part, COMPARED_WINDOWS)})
        for side, part in ((H, height), (W, width))
    )
    rows, columns = corners
    ratios: list[list[npt.NDArray[np.float32]]] = [[] for _ in order]
    for window in (Window(y, y + height, x, x + width).clip_to((H, W)) for y in rows for x in columns):
        frames = placement.read_aligned(spool, order, window)
        agreement = placement.agreement(window, (H, W))
        for k in range(1, len(order)):
            white = min(burst.frames[order[0]].gain, burst.frames[order[k]].gain)
            ratios[k].append(tile_ratios(frames[0], frames[k], agreement[k], BRIGHTEST * white))
    factors = np.ones(len(burst.frames))
    for k, i in enumerate(order):
        found = np.concatenate(ratios[k]) if ratios[k] else np.zeros(0)
        if len(found) >= LEAST_TILES:
            factors[i] = np.median(found)
    return tuple(factors.tolist())


def scale_frames(burst: LoadedBurst, factors: tuple[float, ...]) -> LoadedBurst:
    """Multiply the frames of a burst by factors."""
    spool, pairs = burst.spool, zip(burst.frames, factors, strict=True)
    frames = tuple(replace(frame, gain=frame.gain * factor) for frame, factor in pairs)
    return replace(burst, spool=ScaledFrames(spool.path, spool.shape, spool, factors), frames=frames)


def tile_ratios(
    first: Planes, other: Planes, agreement: npt.NDArray[np.float32], brightest: float
) -> npt.NDArray[np.float32]:
    """Compute the ratios of light of two aligned frames in tiles of STEP pixels, channel by channel, over pixels that
    agree and around which nothing is brighter than `brightest` in either."""
    around = (0, NEIGHBOURHOOD, NEIGHBOURHOOD)
    brightest_near = np.maximum(*(maximum_filter(x, around, mode="nearest") for x in (first, other)))
    mask = (brightest_near < brightest) & (agreement >= 1)
    Y, X = (side // STEP for side in first.shape[1:])

    def sums(values: Planes) -> npt.NDArray[np.float32]:
        inside = values[:, : Y * STEP, : X * STEP].reshape(-1, Y, STEP, X, STEP)
        return inside.sum((2, 4))

    count, a, b = sums(mask.astype(np.float32)), sums(first * mask), sums(other * mask)
    enough = (count >= STEP**2 / 4) & (a > 0) & (b > 0)
    return a[enough] / b[enough]


def find_clipped(burst: LoadedBurst) -> ClippedFrames:
    """Return masks of the clipped pixels of a bracket's frames."""
    whites = tuple(frame.gain * (1 - 1e-6) for frame in burst.frames)
    return ClippedFrames(burst.spool.path, burst.spool.shape, burst.spool, whites)
