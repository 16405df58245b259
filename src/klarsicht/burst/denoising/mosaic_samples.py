"""Samples of an X-Trans mosaic whose colours were interpolated: outliers among their nearest samples of the same
colour, and the interpolation of a burst with some samples replaced.

Interpolation keeps each sample as it was measured, so that the mosaic can be read from the interpolated frames. The
test of outliers is that of Bayer planes (`hot_pixels`), with these differences: neighbours are the eight nearest
samples of the same colour; excesses around are those of the 49 nearest, itself included, as many as 7 x 7 of a plane;
and the pixels that are looked at for similar ones are 7 x 7 of all colours, where planes have 3 x 3 cells of 2 x 2.

n counts places (colour, row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit

from klarsicht.burst.data.cokriging import (
    SAMPLES_RADIUS,
    cell_side,
    colour_numbers,
    interpolate_mosaic,
    repeat_cells,
    take_samples,
)
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

FAR = 6.0  # deviations: of the noise, and of the excess of pixels around
WITH_MEDIAN = 1.2  # variance of a pixel less the median of eight others, over that of a pixel
SPREAD = 1.4826  # deviation of a normal variable over the median of its magnitude
AROUND = 3  # pixels to each side that are compared
ALIKE = 0.5  # of the excess of a pixel: neighbours with as much are similar
COMPANY = 1  # similar neighbours at most
CORRECTED_FRAMES = "corrected.f32"

Places = npt.NDArray[np.int64]  # n 3
Values = npt.NDArray[np.float32]


@cache
def nearest_samples(cell: str, count: int) -> npt.NDArray[np.int64]:
    """List the offsets (side, side, count, 2) of the nearest samples of the same colour at each place of a cell: first
    the sample itself; of equally distant ones those above, then those to the left."""
    side, colours = cell_side(cell), colour_numbers(cell)
    reach = np.arange(-2 * side, 2 * side + 1)
    around = np.stack(np.meshgrid(reach, reach, indexing="ij"), -1).reshape(-1, 2)
    around = around[np.argsort(np.square(around).sum(1), kind="stable")]
    out = np.empty((side, side, count, 2), np.int64)
    for place in np.ndindex(side, side):
        there = (np.array(place) + around) % side
        out[place] = around[colours[there[:, 0], there[:, 1]] == colours[place]][:count]
    return out


@dataclass(frozen=True)
class SampleFrames(FrameStore):
    """Frame store of interpolated colours, of which only the samples are read. cell: letters of the mosaic."""

    cell: str

    @classmethod
    def of(cls, burst: LoadedBurst) -> SampleFrames:
        assert burst.header.sensor is not None
        return cls(burst.spool.path, burst.spool.shape, burst.header.sensor.pattern)

    def locate_neighbours(self, places: Places) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows and the columns (n, 3, 3) of the eight nearest samples of the same colour, around the places
        in the middle; beyond the border the mosaic is repeated from whole cells inside."""
        (H, W), side = self.size, cell_side(self.cell)
        y, x = places[:, 1], places[:, 2]
        offsets = nearest_samples(self.cell, 9)[y % side, x % side][:, [1, 2, 3, 4, 0, 5, 6, 7, 8]]
        rows, columns = repeat_cells(y[:, None] + offsets[..., 0], H, side), x[:, None] + offsets[..., 1]
        return rows.reshape(-1, 3, 3), repeat_cells(columns, W, side).reshape(-1, 3, 3)

    def read_neighbourhoods(self, frame: int, places: Places) -> Values:
        """Read n places and the eight nearest samples of the same colour around each, (n, 3, 3)."""
        mapped = np.memmap(self.path, np.dtype("<f4"), "r", shape=self.shape)
        return np.array(mapped[frame, places[:, 0, None, None], *self.locate_neighbours(places)])

    def mark_listed_neighbours(self, places: Places) -> npt.NDArray[np.bool_]:
        """Mark which of the places and of their neighbours are among the places, (n, 3, 3)."""
        rows, columns = self.locate_neighbours(places)
        return np.isin(rows * self.size[1] + columns, places[:, 1] * self.size[1] + places[:, 2])

    def read_mosaic(self, frame: int, y0: int, y1: int, margin: int) -> Values:
        """Read the samples of rows y0 to y1, of full width, and of a margin around them, repeated from whole cells."""
        (H, W), side = self.size, cell_side(self.cell)
        rows = repeat_cells(np.arange(y0 - margin, y1 + margin), H, side)
        columns = repeat_cells(np.arange(-margin, W + margin), W, side)
        first = int(rows.min())
        mosaic = take_samples(self.read_window(frame, Window(first, int(rows.max()) + 1, 0, W)), self.cell, first)
        return mosaic[(rows - first)[:, None], columns]

    def detect_outliers(self, frames: Sequence[int], noise: Sequence[NoiseLevel]) -> Places:
        """Detect isolated outliers in the mean of the frames, (n, 3); noise: one level of samples for each colour."""
        side, colours = cell_side(self.cell), colour_numbers(self.cell)
        near, far = nearest_samples(self.cell, 9), nearest_samples(self.cell, (2 * AROUND + 1) ** 2)
        inner = int(np.abs(near).max())
        margin = inner + int(np.abs(far).max())
        read, shot = (np.array([getattr(level, k) for level in noise], np.float32) for k in ("read", "shot"))
        places, strips = [np.zeros((0, 3), np.int64)], self.strip_windows(side)
        for band in track(strips, len(strips), "hot pixels"):
            mean = self.read_mosaic(frames[0], band.y0, band.y1, margin)
            for frame in frames[1:]:
                mean += self.read_mosaic(frame, band.y0, band.y1, margin)
            mean /= len(frames)
            height, corner = np.zeros_like(mean), -margin % side  # of the cell, at the margin's first row and column
            _sample_excess(mean, near, corner, inner, height)
            here = _isolated_samples(mean, height, colours, far, corner, margin, read, shot)
            y, x = (np.argwhere(here) - margin + [band.y0, 0]).T
            places.append(np.stack([colours[y % side, x % side], y, x], 1))
        return np.concatenate(places)


def interpolate_replaced(burst: LoadedBurst, places: Places, values: Values) -> FrameStore:
    """Interpolate the frames of an X-Trans burst again where samples are replaced by others (N, n), into a store beside
    that of the burst; strips without any are copied."""
    samples, header = SampleFrames.of(burst), burst.header
    spool, side = FrameStore(burst.spool.path.with_name(CORRECTED_FRAMES), burst.spool.shape), cell_side(samples.cell)
    height = spool.size[0]
    spool.allocate()
    around = -(-SAMPLES_RADIUS // side) * side
    for i, frame in enumerate(track(burst.frames, len(burst.frames), "interpolating")):
        for band in spool.strip_windows(side):
            light = burst.spool.read_window(i, band)
            y0, y1 = max(band.y0 - around, 0), min(band.y1 + around, height)
            here = (y0 <= places[:, 1]) & (places[:, 1] < y1)
            if here.any():
                mosaic = samples.read_mosaic(i, y0, y1, 0)
                mosaic[places[here, 1] - y0, places[here, 2]] = values[i, here]
                wide = interpolate_mosaic(mosaic, samples.cell, header.rendering.gains, frame.gain)
                light = wide[:, band.y0 - y0 : band.y1 - y0]
            spool.write_window(i, band, light)
    return spool


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _sample_excess(light: Values, near: npt.NDArray[np.int64], corner: int, margin: int, out: Values) -> None:
    """Subtract from each sample the median of its eight neighbours, (H, W); near: the sample itself and their offsets
    at each place of a cell; corner: row and column of the cell at the first pixel; those in the margin stay 0."""
    H, W = light.shape
    side = len(near)
    around = np.empty(8, np.float32)
    for y in range(margin, H - margin):
        for x in range(margin, W - margin):
            offsets = near[(y + corner) % side, (x + corner) % side]
            for n in range(8):
                v, k = light[y + offsets[n + 1, 0], x + offsets[n + 1, 1]], n
                while k > 0 and around[k - 1] > v:
                    around[k] = around[k - 1]
                    k -= 1
                around[k] = v
            out[y, x] = light[y, x] - (around[3] + around[4]) / 2


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _isolated_samples(
    light: Values,
    height: Values,
    colours: npt.NDArray[np.int64],
    far: npt.NDArray[np.int64],
    corner: int,
    margin: int,
    read: Values,
    shot: Values,
) -> npt.NDArray[np.bool_]:
    """Mark samples whose excess is far above the noise and the excesses of the same colour around, and isolated, (H,
    W); none in the margin."""
    H, W = light.shape
    side, count = len(far), far.shape[2]
    out = np.zeros((H, W), np.bool_)
    sizes = np.empty(count, np.float32)
    for y in range(margin, H - margin):
        for x in range(margin, W - margin):
            h = height[y, x]
            cy, cx = (y + corner) % side, (x + corner) % side
            c = colours[cy, cx]
            under = max(np.float32(0), light[y, x] - h)
            if h * h <= FAR**2 * WITH_MEDIAN * (read[c] ** 2 + shot[c] * under):
                continue
            for n in range(count):
                sizes[n] = abs(height[y + far[cy, cx, n, 0], x + far[cy, cx, n, 1]])
            company = -1  # itself
            for i in range(-AROUND, AROUND + 1):
                for j in range(-AROUND, AROUND + 1):
                    if height[y + i, x + j] * np.sign(h) >= ALIKE * abs(h):
                        company += 1
            out[y, x] = company <= COMPANY and abs(h) > FAR * SPREAD * np.median(sizes)
    return out
