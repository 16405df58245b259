"""Pixels of the sensor that are stuck or too bright: found across a burst, and replaced in every frame.

A camera that moves shows other things at a pixel in every frame, but a hot pixel stays where it is. So a pixel is
taken for hot if, where the sensor has it,
  the mean and the median of the frames stand out from its neighbours of the same colour, by far more than their noise
  and than pixels around it do, and alone (a line or a star reaches other pixels and colours, too);
  the reference and nearly every other frame show it alike, give or take noise;
  and the frames that moved, laid over the reference, do not show it.
Where no frame moved nothing is taken for hot: then a star and a hot pixel look alike. Nor is it for one frame alone.

Axes: N frames, C channels (planes of a mosaic), H W pixels, K places (channel, row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

from klarsicht.burst.align import tiled
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.denoise.filters import of_mean
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.ground.disk import replacing
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

FAR = 6.0  # deviations: of the noise, and of what pixels around stand out
WITH_MEDIAN = 1.2  # times the variance of a pixel, of a pixel less the median of eight others
OF_MEDIANS = 1.25  # times the deviation of a mean of frames, of their median
SPREAD = 1.4826  # deviations of a normal number in a median of its size
AROUND = 3  # pixels to each side that are compared
ALIKE = 0.5  # of what a pixel stands out: neighbours that do as much are of its kind
COMPANY = 1  # such neighbours at most
MOST_FRAMES = 0.75  # that must show it: one may be black
SWAY, GIVE = 0.25, 3.0  # of its height, and deviations of noise, by which a single frame may show it otherwise
MOVED = 2  # pixels: less far a star still lies on itself
FILE = "hot.npz"

Places = npt.NDArray[np.int64]  # K 3
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MendedFrames(FrameStore):
    """A spool that is read with other values (N, K) at some places (K, 3), which are ordered by row."""

    places: Places
    values: Values

    @classmethod
    def of(cls, spool: FrameStore, places: Places) -> MendedFrames:
        """With the median of each place's neighbours, those left out that are to be replaced themselves."""
        ordered = places[np.lexsort((places[:, 2], places[:, 0], places[:, 1]))]
        known = neighbours_in(ordered, spool.shape[1:])
        values = [healthy_median(spool.surroundings(i, ordered), known) for i in range(spool.shape[0])]
        return cls(spool.path, spool.shape, ordered, np.stack(values))

    def part(self, frame: int, inside: Window) -> Planes:
        light = super().part(frame, inside)
        rows = self.places[:, 1]
        first, last = np.searchsorted(rows, [inside.y0, inside.y1])
        c, y, x = self.places[first:last].T
        here = (inside.x0 <= x) & (x < inside.x1)
        light[c[here], y[here] - inside.y0, x[here] - inside.x0] = self.values[frame, first:last][here]
        return light


def neighbours_in(places: Places, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(K, 3, 3): which pixels around each of the places are among them."""
    c, y, x = places.T[:, :, None, None]
    around = np.arange(-1, 2)
    C, H, W = shape
    rows, columns = np.clip(y + around[:, None], 0, H - 1), np.clip(x + around, 0, W - 1)
    number = np.ravel_multi_index((c, rows, columns), (C, H, W))
    return np.isin(number, np.ravel_multi_index(tuple(places.T), (C, H, W)))


def healthy_median(surroundings: Values, sick: npt.NDArray[np.bool_]) -> Values:
    """(K,): of the neighbours; where all are sick, of all."""
    usable = np.where(sick & ~sick.all((1, 2), keepdims=True), np.nan, surroundings)
    median: Values = np.nanmedian(usable.reshape(len(usable), 9), 1).astype(np.float32)
    return median


def mended(wound: LoadedBurst, noise: Sequence[NoiseLevel], folder: Path) -> tuple[LoadedBurst, int]:
    """The roll with hot pixels replaced, and how many they are. noise: of each plane, of a frame of gain 1. Kept in the
    folder."""
    kept = folder / FILE
    if kept.exists():
        with np.load(kept) as arrays:
            places = arrays["places"]
    else:
        places = found(wound, noise)
        with replacing(kept) as file:
            np.savez(file, places=places)
    return (replace(wound, spool=MendedFrames.of(wound.spool, places)) if len(places) else wound), len(places)


def found(wound: LoadedBurst, noise: Sequence[NoiseLevel]) -> Places:
    """(K, 3): the hot pixels of a burst."""
    order, spool = wound.order, wound.spool
    if len(order) < 2:
        return np.zeros((0, 3), np.int64)
    levels = [[level.amplified(wound.frames[i].gain) for level in noise] for i in order]
    places: Places = standing_out(spool, order, [of_mean(plane) for plane in zip(*levels, strict=True)])
    frames = [PixelExcess.at(spool.surroundings(i, places), places, own) for i, own in zip(order, levels, strict=True)]
    height = np.median([frame.height for frame in frames], 0)
    shows = np.abs(height) > FAR * OF_MEDIANS * frames[0].deviation / len(frames) ** 0.5
    shows &= frames[0].shows(height)
    shows &= np.mean([frame.shows(height) for frame in frames], 0) >= MOST_FRAMES
    places, height, light = places[shows], height[shows], frames[0].light[shows]
    if len(places):
        means = [of_mean([level.amplified(frame.gain) for level in noise]) for frame in wound.frames]
        shifts = tiled.whole_shifts(MendedFrames.of(spool, places), means, order).shifts[0].round().long().numpy()
        places = places[gone(spool, places, light, height, order, shifts)]
    return places


@dataclass(frozen=True, eq=False)
class PixelExcess:
    """What one frame shows at K places: height over the neighbours, their light, the deviation of the height: (K,)."""

    height: Values
    light: Values
    deviation: Values

    @classmethod
    def at(cls, surroundings: Values, places: Places, noise: Sequence[NoiseLevel]) -> PixelExcess:
        pixels = surroundings.reshape(-1, 9)
        light = np.median(np.delete(pixels, 4, 1), 1)
        deviation = np.select([places[:, 0] == c for c in range(len(noise))], [n.deviation(light) for n in noise], 0)
        return cls(pixels[:, 4] - light, light, deviation * WITH_MEDIAN**0.5)

    def shows(self, height: Values) -> npt.NDArray[np.bool_]:
        """(K,): whether it is of about such a height, give or take noise."""
        about: npt.NDArray[np.bool_] = np.abs(self.height - height) <= SWAY * np.abs(height) + GIVE * self.deviation
        return about


def gone(
    spool: FrameStore,
    places: Places,
    light: Values,
    height: Values,
    order: Sequence[int],
    shifts: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """(K,): where what stands out in the reference is not there, within a pixel, in the mean of frames that moved."""
    total, count = np.zeros((len(places), 3, 3), np.float32), np.zeros(len(places), np.float32)
    for frame, shift in zip(order, shifts, strict=True):
        if np.abs(shift).max() >= MOVED:
            there = places + np.array([0, *shift])
            inside = ((there[:, 1:] >= 1) & (there[:, 1:] < np.array(spool.size) - 1)).all(1)
            total[inside] += spool.surroundings(frame, there[inside])
            count += inside
    seen = total / np.maximum(count, 1)[:, None, None] - light[:, None, None]
    highest = (seen * np.sign(height)[:, None, None]).max((1, 2))
    missing: npt.NDArray[np.bool_] = (count > 0) & (highest < ALIKE * np.abs(height))
    return missing


def standing_out(spool: FrameStore, frames: Sequence[int], noise: Sequence[NoiseLevel]) -> Places:
    """(K, 3): where the mean of the frames, whose noise is given for each plane, stands out as nothing around it."""
    margin, places = AROUND + 1, [np.zeros((0, 3), np.int64)]
    read, shot = (np.array([getattr(level, k) for level in noise], np.float32) for k in ("read", "shot"))
    for band in track(spool.bands(), len(spool.bands()), "hot pixels"):
        window = band.grown(margin)
        mean = np.zeros((spool.shape[1], *window.size), np.float32)
        for frame in frames:
            mean += spool.window(frame, window)
        mean /= len(frames)
        height = np.zeros_like(mean)
        _heights(mean, height)
        here = np.argwhere(_alone(mean, height, read, shot))
        places.append(here + np.array([0, window.y0, window.x0]))
    return np.concatenate(places)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _heights(light: Values, out: Values) -> None:
    """(C, H, W): each pixel less the median of the eight around it; the outermost stay 0."""
    C, H, W = light.shape
    around = np.empty(8, np.float32)
    for c in range(C):
        for y in range(1, H - 1):
            for x in range(1, W - 1):
                n = 0
                for i in range(-1, 2):
                    for j in range(-1, 2):
                        if i or j:
                            v, k = light[c, y + i, x + j], n
                            while k > 0 and around[k - 1] > v:
                                around[k] = around[k - 1]
                                k -= 1
                            around[k] = v
                            n += 1
                out[c, y, x] = light[c, y, x] - (around[3] + around[4]) / 2


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _alone(light: Values, height: Values, read: Values, shot: Values) -> npt.NDArray[np.bool_]:
    """(C, H, W): far over the noise, far over the heights around, and with no company."""
    C, H, W = light.shape
    out = np.zeros((C, H, W), np.bool_)
    side = 2 * AROUND + 1
    sizes = np.empty(side * side, np.float32)
    for c in range(C):
        for y in range(AROUND + 1, H - AROUND - 1):
            for x in range(AROUND + 1, W - AROUND - 1):
                h = height[c, y, x]
                under = max(np.float32(0), light[c, y, x] - h)
                if h * h <= FAR**2 * WITH_MEDIAN * (read[c] ** 2 + shot[c] * under):
                    continue
                for i in range(side):
                    for j in range(side):
                        sizes[i * side + j] = abs(height[c, y + i - AROUND, x + j - AROUND])
                company = -1  # itself
                for k in range(C):
                    for i in range(-1, 2):
                        for j in range(-1, 2):
                            if height[k, y + i, x + j] * np.sign(h) >= ALIKE * abs(h):
                                company += 1
                out[c, y, x] = company <= COMPANY and abs(h) > FAR * SPREAD * np.median(sizes)
    return out
