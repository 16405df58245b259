"""Detection of hot or stuck pixels of the sensor across a burst, and their replacement in every frame.

A moving camera shows another part of the scene at a pixel in every frame, but a hot pixel keeps its position. So a
pixel is detected as hot if, at its position on the sensor,
  the mean and the median of the frames differ from its neighbours of the same colour by far more than their noise and
  than pixels around it do, and it is isolated (a line or a star reaches other pixels and colours, too);
  the reference and nearly every other frame show about the same difference, up to noise;
  and the frames that moved, aligned with the reference, do not show it, nor do its neighbours in a mosaic show the
  image of a point (the shifts of frames of hardly any texture can be wrong).
Where no frame moved, pixels are detected only in mosaics, and only those whose neighbours of other colours show that
they cannot be the image of a star (`point_images`). None is detected in a single frame.
Of X-Trans frames the samples are tested (`mosaic_samples`), and colours are interpolated once more.

n counts places (channel, row, column); channels are the planes of a mosaic, or the colours of an interpolated one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

from klarsicht.burst.align import tiled
from klarsicht.burst.data.cokriging import grey_variance, white_variance
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.denoising.interpolated_frames import HalvedFrames
from klarsicht.burst.denoising.mosaic_samples import (
    ALIKE,
    AROUND,
    COMPANY,
    FAR,
    SPREAD,
    WITH_MEDIAN,
    SampleFrames,
    interpolate_replaced,
)
from klarsicht.burst.denoising.point_images import EdgeNeighbours
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.burst.merging.filters import mean_noise
from klarsicht.ground.machine.disk import replace_atomically, translate_read_errors
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

OF_MEDIANS = 1.25  # deviation of the median of frames, over that of their mean
MOST_FRAMES = 0.75  # share of frames that must show it: one may be black
SWAY, GIVE = 0.25, 3.0  # tolerance of a single frame: share of the height, and deviations of noise
MOVED = 2  # pixels: by less a star still overlaps itself
FILE = "hot.npz"

Places = npt.NDArray[np.int64]  # n 3
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CorrectedFrames(FrameStore):
    """Frame store that is read with other values (N, n) at some places (n, 3), which are ordered by row."""

    places: Places
    values: Values

    @classmethod
    def of(cls, spool: FrameStore, places: Places) -> CorrectedFrames:
        """Replace each place by the median of its neighbours, without those that are replaced themselves."""
        ordered = places[np.lexsort((places[:, 2], places[:, 0], places[:, 1]))]
        known = mark_listed_neighbours(ordered, spool.shape[1:])
        values = [neighbour_median(spool.read_neighbourhoods(i, ordered), known) for i in range(spool.shape[0])]
        return cls(spool.path, spool.shape, ordered, np.stack(values))

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        light = super().read_inner_window(frame, inside)
        rows = self.places[:, 1]
        first, last = np.searchsorted(rows, [inside.y0, inside.y1])
        c, y, x = self.places[first:last].T
        here = (inside.x0 <= x) & (x < inside.x1)
        light[c[here], y[here] - inside.y0, x[here] - inside.x0] = self.values[frame, first:last][here]
        return light


def mark_listed_neighbours(places: Places, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Mark which pixels around each of the places are among them, (n, 3, 3)."""
    c, y, x = places.T[:, :, None, None]
    around = np.arange(-1, 2)
    C, H, W = shape
    rows, columns = np.clip(y + around[:, None], 0, H - 1), np.clip(x + around, 0, W - 1)
    number = np.ravel_multi_index((c, rows, columns), (C, H, W))
    return np.isin(number, np.ravel_multi_index(tuple(places.T), (C, H, W)))


def neighbour_median(surroundings: Values, hot: npt.NDArray[np.bool_]) -> Values:
    """Compute the median of the neighbours that are not hot, (n,); of all, where all are hot."""
    usable = np.where(hot & ~hot.all((1, 2), keepdims=True), np.nan, surroundings)
    median: Values = np.nanmedian(usable.reshape(len(usable), 9), 1).astype(np.float32)
    return median


def replace_hot_pixels(burst: LoadedBurst, noise: Sequence[NoiseLevel], folder: Path) -> tuple[LoadedBurst, int]:
    """Replace the hot pixels of a burst, and count them. noise: of each plane, of a frame of gain 1. The places are
    cached in the folder."""
    cache_file = folder / FILE
    if cache_file.exists():
        with translate_read_errors(cache_file), np.load(cache_file) as arrays:
            places = arrays["places"]
    else:
        places = find_hot_pixels(burst, noise)
        with replace_atomically(cache_file) as file:
            np.savez(file, places=places)
    return (replace(burst, spool=correct_frames(burst, places)) if len(places) else burst), len(places)


def correct_frames(burst: LoadedBurst, places: Places) -> FrameStore:
    """Replace each place by the median of its neighbours; behind X-Trans the frames are interpolated again, into a
    file beside that of the burst."""
    spool = burst.spool
    if not burst.header.is_interpolated:
        return CorrectedFrames.of(spool, places)
    samples = SampleFrames.of(burst)
    known = samples.mark_listed_neighbours(places)
    values = [neighbour_median(samples.read_neighbourhoods(i, places), known) for i in range(spool.shape[0])]
    return interpolate_replaced(burst, places, np.stack(values))


def measure_shifts(burst: LoadedBurst, corrected: FrameStore, noise: Sequence[NoiseLevel]) -> npt.NDArray[np.int64]:
    """Measure the shifts (N, 2) of whole corrected frames in the burst's order. noise: of samples."""
    sensor, scale = burst.header.sensor, 1
    if burst.header.is_interpolated:
        assert sensor is not None
        corrected, scale = HalvedFrames.of(corrected), 2
        noise = [level.scale_variance(grey_variance(sensor.pattern) / 4) for level in noise]
    means = [mean_noise([level.scale_by_gain(frame.gain) for level in noise]) for frame in burst.frames]
    shifts = tiled.whole_shifts(corrected, means, burst.order).shifts[0].round().long().numpy()
    return np.asarray(scale * shifts, np.int64)


def find_hot_pixels(burst: LoadedBurst, noise: Sequence[NoiseLevel]) -> Places:
    """Find the hot pixels of a burst, (n, 3). noise: of each plane, or of each interpolated colour."""
    order, spool = burst.order, burst.spool
    if len(order) < 2:
        return np.zeros((0, 3), np.int64)
    if behind := burst.header.sensor if burst.header.is_interpolated else None:
        spool = SampleFrames.of(burst)
        noise = [level.scale_variance(1 / white_variance(behind.pattern)) for level in noise]
    levels = [[level.scale_by_gain(burst.frames[i].gain) for level in noise] for i in order]
    means = [mean_noise(plane) for plane in zip(*levels, strict=True)]
    places: Places = (
        spool.detect_outliers(order, means) if isinstance(spool, SampleFrames) else detect_outliers(spool, order, means)
    )
    frames = [
        PixelExcess.measure(spool.read_neighbourhoods(i, places), places, own)
        for i, own in zip(order, levels, strict=True)
    ]
    height = np.median([frame.height for frame in frames], 0)
    shows = np.abs(height) > FAR * OF_MEDIANS * frames[0].deviation / len(frames) ** 0.5
    shows &= frames[0].matches(height)
    shows &= np.mean([frame.matches(height) for frame in frames], 0) >= MOST_FRAMES
    places, height, light = places[shows], height[shows], frames[0].light[shows]
    if len(places):
        shifts = measure_shifts(burst, correct_frames(burst, places), noise)
        least = 2 * MOVED if behind else MOVED
        is_moving = np.abs(shifts).max() >= least
        fixed = find_sensor_fixed(burst.spool, places, light, height, order, shifts, least)
        if sensor := burst.header.sensor:
            white = min(burst.frames[i].gain for i in order)
            beside = EdgeNeighbours.measure(spool, order, sensor.pattern, places, means, white)
            fixed = fixed & ~beside.show_points(height) if is_moving else beside.exclude_points(height)
        places = places[fixed]
    return places


@dataclass(frozen=True, eq=False)
class PixelExcess:
    """Excess of n pixels of one frame over their neighbours: height, the neighbours' light, and the deviation of the
    height, each (n,)."""

    height: Values
    light: Values
    deviation: Values

    @classmethod
    def measure(cls, surroundings: Values, places: Places, noise: Sequence[NoiseLevel]) -> PixelExcess:
        """Measure the excess at places (n, 3) in their neighbourhoods (n, 3, 3)."""
        pixels = surroundings.reshape(-1, 9)
        light = np.median(np.delete(pixels, 4, 1), 1)
        deviation = np.select([places[:, 0] == c for c in range(len(noise))], [n.deviation(light) for n in noise], 0)
        return cls(pixels[:, 4] - light, light, deviation * WITH_MEDIAN**0.5)

    def matches(self, height: Values) -> npt.NDArray[np.bool_]:
        """Test whether the excess is about a given height, up to noise, (n,)."""
        about: npt.NDArray[np.bool_] = np.abs(self.height - height) <= SWAY * np.abs(height) + GIVE * self.deviation
        return about


def find_sensor_fixed(
    spool: FrameStore,
    places: Places,
    light: Values,
    height: Values,
    order: Sequence[int],
    shifts: npt.NDArray[np.int64],
    least: int = MOVED,
) -> npt.NDArray[np.bool_]:
    """Find outliers of the reference that are fixed to the sensor, (n,): those absent, within a pixel, from the mean of
    the aligned frames that moved by at least so many pixels."""
    total, count = np.zeros((len(places), 3, 3), np.float32), np.zeros(len(places), np.float32)
    for frame, shift in zip(order, shifts, strict=True):
        if np.abs(shift).max() >= least:
            there = places + np.array([0, *shift])
            inside = ((there[:, 1:] >= 1) & (there[:, 1:] < np.array(spool.size) - 1)).all(1)
            total[inside] += spool.read_neighbourhoods(frame, there[inside])
            count += inside
    aligned_excess = total / np.maximum(count, 1)[:, None, None] - light[:, None, None]
    highest = (aligned_excess * np.sign(height)[:, None, None]).max((1, 2))
    missing: npt.NDArray[np.bool_] = (count > 0) & (highest < ALIKE * np.abs(height))
    return missing


def detect_outliers(spool: FrameStore, frames: Sequence[int], noise: Sequence[NoiseLevel]) -> Places:
    """Detect isolated outliers in the mean of the frames, (n, 3); noise: one level for each plane."""
    margin, places = AROUND + 1, [np.zeros((0, 3), np.int64)]
    read, shot = (np.array([getattr(level, k) for level in noise], np.float32) for k in ("read", "shot"))
    for band in track(spool.strip_windows(), len(spool.strip_windows()), "hot pixels"):
        window = band.grow(margin)
        mean = np.zeros((spool.shape[1], *window.size), np.float32)
        for frame in frames:
            mean += spool.read_window(frame, window)
        mean /= len(frames)
        height = np.zeros_like(mean)
        _median_excess(mean, height)
        here = np.argwhere(_isolated_outliers(mean, height, read, shot))
        places.append(here + np.array([0, window.y0, window.x0]))
    return np.concatenate(places)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _median_excess(light: Values, out: Values) -> None:
    """Subtract from each pixel the median of the eight around it, (C, H, W); the outermost stay 0."""
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
def _isolated_outliers(light: Values, height: Values, read: Values, shot: Values) -> npt.NDArray[np.bool_]:
    """Mark pixels whose excess is far above the noise and the excesses around, and isolated, (C, H, W)."""
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
