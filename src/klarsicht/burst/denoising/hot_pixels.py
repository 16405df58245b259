"""Detection of hot or stuck pixels of the sensor across a burst, and their replacement in every frame.

A pixel is hot if, at its position on the sensor, the mean and the median of the frames differ from its neighbours of
the same colour by far more than their noise and than pixels around it do, and it is isolated; if the reference and
nearly every other frame show about the same difference; and if the frames that moved, aligned with the reference, do
not show it, nor do its neighbours in a mosaic show the image of a point. Where no frame moved, only pixels of mosaics
are hot, and only those that cannot be the image of a star (`point_images`). Of X-Trans frames the samples are tested
(`mosaic_samples`), and colours are interpolated once more.

n counts places (channel, row, column); channels are the planes of a mosaic, or the colours of an interpolated one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.align import tiled
from klarsicht.burst.data.cokriging import cell_side, grey_variance, white_variance
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.denoising.interpolated_frames import HalvedFrames
from klarsicht.burst.denoising.mosaic_samples import SampleFrames, interpolate_replaced
from klarsicht.burst.denoising.outliers import ALIKE, FAR, WITH_MEDIAN, Neighbours, Places, Values, detect_outliers
from klarsicht.burst.denoising.point_images import EdgeNeighbours
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.burst.merging.filters import mean_noise
from klarsicht.ground.machine.disk import replace_atomically, translate_read_errors
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

OF_MEDIANS = 1.25  # deviation of the median of frames, over that of their mean
MOST_FRAMES = 0.75  # share of frames that must show it: one may be black
SWAY, GIVE = 0.25, 3.0  # tolerance of a single frame: share of the height, and deviations of noise
MOVED = 2  # pixels: by less a star still overlaps itself
FILE = "hot.npz"


@dataclass(frozen=True, eq=False)
class CorrectedFrames(FrameStore):
    """Frame store that is read with other values (N, n) at some places (n, 3), which are ordered by row."""

    places: Places
    values: Values

    @classmethod
    def of(cls, spool: FrameStore, places: Places) -> CorrectedFrames:
        """Replace each place by the median of its neighbours, without those that are replaced themselves."""
        ordered = places[np.lexsort((places[:, 2], places[:, 0], places[:, 1]))]
        return cls(spool.path, spool.shape, ordered, neighbour_medians(spool, ordered))

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        light = super().read_inner_window(frame, inside)
        rows = self.places[:, 1]
        first, last = np.searchsorted(rows, [inside.y0, inside.y1])
        c, y, x = self.places[first:last].T
        here = (inside.x0 <= x) & (x < inside.x1)
        light[c[here], y[here] - inside.y0, x[here] - inside.x0] = self.values[frame, first:last][here]
        return light


def neighbour_medians(spool: FrameStore, places: Places) -> Values:
    """Compute the medians (N, n) of each place's neighbours that are not among the places; of all, where all are."""
    around = (places[:, 0, None, None], *spool.locate_neighbours(places))
    numbers = (np.ravel_multi_index(one, spool.shape[1:]) for one in (around, tuple(places.T)))
    hot = np.isin(*numbers)
    hot &= ~hot.all((1, 2), keepdims=True)
    usable = (np.where(hot, np.nan, spool.read_neighbourhoods(i, places)) for i in range(spool.shape[0]))
    return np.stack([np.nanmedian(one.reshape(-1, 9), 1).astype(np.float32) for one in usable])


def replace_hot_pixels(burst: LoadedBurst, noise: Sequence[NoiseLevel], folder: Path) -> tuple[LoadedBurst, int]:
    """Replace a burst's hot pixels, and those that dark frames show, cached in the folder, and count them. noise: of
    each plane, at gain 1."""
    cache_file = folder / FILE
    if cache_file.exists():
        with translate_read_errors(cache_file), np.load(cache_file) as arrays:
            places = arrays["places"]
    else:
        places = find_hot_pixels(burst, noise)
        if len(burst.hot):
            places = np.unique(np.concatenate([places, burst.hot]), axis=0)
        with replace_atomically(cache_file) as file:
            np.savez(file, places=places)
    return (replace(burst, spool=correct_frames(burst, places)) if len(places) else burst), len(places)


def correct_frames(burst: LoadedBurst, places: Places) -> FrameStore:
    """Replace each place by the median of its neighbours; X-Trans frames are interpolated again, into a file."""
    spool = burst.spool
    if not burst.header.cell:
        return CorrectedFrames.of(spool, places)
    return interpolate_replaced(burst, places, neighbour_medians(SampleFrames.of(burst), places))


def measure_shifts(burst: LoadedBurst, corrected: FrameStore, noise: Sequence[NoiseLevel]) -> npt.NDArray[np.int64]:
    """Measure the shifts (N, 2) of whole corrected frames in the burst's order. noise: of samples."""
    scale = 1
    if cell := burst.header.cell:
        corrected, scale = HalvedFrames.of(corrected), 2
        noise = [level.scale_variance(grey_variance(cell) / 4) for level in noise]
    means = [mean_noise([level.scale_by_gain(frame.gain) for level in noise]) for frame in burst.frames]
    shifts = tiled.whole_shifts(corrected, means, burst.order).shifts[0].round().long().numpy()
    return np.asarray(scale * shifts, np.int64)


def find_hot_pixels(burst: LoadedBurst, noise: Sequence[NoiseLevel]) -> Places:
    """Find the hot pixels of a burst, (n, 3). noise: of each plane, or of each interpolated colour."""
    order, spool = burst.order, burst.spool
    if len(order) < 2:
        return np.zeros((0, 3), np.int64)
    if cell := burst.header.cell:
        spool = SampleFrames.of(burst)
        noise = [level.scale_variance(1 / white_variance(cell)) for level in noise]
    levels = [[level.scale_by_gain(burst.frames[i].gain) for level in noise] for i in order]
    means = [mean_noise(plane) for plane in zip(*levels, strict=True)]
    if isinstance(spool, SampleFrames):
        read, neighbours, bands = spool.read_sample_planes, spool.neighbours, spool.strip_windows(cell_side(spool.cell))
    else:
        neighbours = Neighbours.of_planes(spool.shape[1], in_one_place=burst.header.colour != "mosaic")
        read, bands = spool.read_window, spool.strip_windows()
    places = detect_outliers(read, bands, order, neighbours, means)
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
        least = 2 * MOVED if cell else MOVED
        is_moving = np.abs(shifts).max() >= least
        fixed = find_sensor_fixed(burst.spool, places, light, height, order, shifts, least)
        if (sensor := burst.header.sensor) and sensor.pattern:
            white = min(burst.frames[i].gain for i in order)
            beside = EdgeNeighbours.measure(spool, order, sensor.pattern, places, means, white)
            fixed = fixed & ~beside.show_points(height) if is_moving else beside.exclude_points(height)
        places = places[fixed]
    return places


@dataclass(frozen=True, eq=False)
class PixelExcess:
    """Excess of a frame's pixels over their neighbours: height, neighbours' light, the height's deviation, (n,)."""

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
        return np.abs(self.height - height) <= SWAY * np.abs(height) + GIVE * self.deviation


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
    return (count > 0) & (highest < ALIKE * np.abs(height))
