"""Samples of an X-Trans mosaic whose colours were interpolated: outliers among their nearest samples of the same
colour, and the interpolation of a burst with some samples replaced.

Interpolation keeps each sample as it was measured, so that the mosaic can be read from the interpolated frames. The
test is that of planes (`hot_pixels`), with the eight nearest samples of the same colour as neighbours, the 49 nearest
as those around, and similar ones sought among 7 x 7 pixels of all colours.

n counts places (colour, row, column).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data import cokriging
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising.outliers import AROUND, Neighbours, Places, Values, square_offsets
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.ground.progress import track

CORRECTED_FRAMES = "corrected.f32"


@cache
def nearest_samples(cell: str, count: int) -> npt.NDArray[np.int64]:
    """List the offsets (side, side, count, 2) of the nearest samples of the same colour at each place of a cell: first
    the sample itself; of equally distant ones those above, then those to the left."""
    side, colours = cokriging.cell_side(cell), cokriging.colour_numbers(cell)
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
        return cls(burst.spool.path, burst.spool.shape, burst.header.cell)

    def locate_neighbours(self, places: Places) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows and the columns (n, 3, 3) of the eight nearest samples of the same colour around the places;
        beyond the border the mosaic is repeated from whole cells inside."""
        (H, W), side = self.size, cokriging.cell_side(self.cell)
        y, x = places[:, 1], places[:, 2]
        offsets = nearest_samples(self.cell, 9)[y % side, x % side][:, [1, 2, 3, 4, 0, 5, 6, 7, 8]]
        rows, columns = cokriging.repeat_cells(y[:, None] + offsets[..., 0], H, side), x[:, None] + offsets[..., 1]
        return rows.reshape(-1, 3, 3), cokriging.repeat_cells(columns, W, side).reshape(-1, 3, 3)

    def read_samples(self, frame: int, window: Window) -> Values:
        """Read the samples (h, w) of a window; beyond the border they are repeated from whole cells."""
        (H, W), side = self.size, cokriging.cell_side(self.cell)
        rows = cokriging.repeat_cells(np.arange(window.y0, window.y1), H, side)
        columns = cokriging.repeat_cells(np.arange(window.x0, window.x1), W, side)
        first = int(rows.min())
        mosaic = cokriging.take_samples(
            self.read_window(frame, Window(first, int(rows.max()) + 1, 0, W)), self.cell, first
        )
        return mosaic[(rows - first)[:, None], columns]

    def read_sample_planes(self, frame: int, window: Window) -> Values:
        """Read the samples of a window as one plane, (1, h, w)."""
        return self.read_samples(frame, window)[None]

    @property
    def neighbours(self) -> Neighbours:
        """The neighbours of each sample: the nearest of its colour, and 7 x 7 pixels of all colours."""
        nearest = [nearest_samples(self.cell, count) for count in (9, (2 * AROUND + 1) ** 2)]
        near, far = (np.pad(offsets, [(0, 0)] * 3 + [(1, 0)])[None] for offsets in nearest)
        side = cokriging.cell_side(self.cell)
        beside = np.tile(square_offsets(AROUND), (1, side, side, 1, 1))
        return Neighbours(cokriging.colour_numbers(self.cell)[None], near, far, beside)


def interpolate_replaced(burst: LoadedBurst, places: Places, values: Values) -> FrameStore:
    """Interpolate the frames of an X-Trans burst again where samples are replaced by others (N, n), into a store beside
    that of the burst; strips without any are copied."""
    samples, header = SampleFrames.of(burst), burst.header
    spool, side = (
        FrameStore(burst.spool.path.with_name(CORRECTED_FRAMES), burst.spool.shape),
        cokriging.cell_side(samples.cell),
    )
    height = spool.size[0]
    spool.allocate()
    around = -(-cokriging.SAMPLES_RADIUS // side) * side
    for i, frame in enumerate(track(burst.frames, len(burst.frames), "interpolating")):
        for band in spool.strip_windows(side):
            light = burst.spool.read_window(i, band)
            y0, y1 = max(band.y0 - around, 0), min(band.y1 + around, height)
            here = (y0 <= places[:, 1]) & (places[:, 1] < y1)
            if here.any():
                mosaic = samples.read_samples(i, Window(y0, y1, 0, spool.size[1]))
                mosaic[places[here, 1] - y0, places[here, 2]] = values[i, here]
                wide = cokriging.interpolate_mosaic(mosaic, samples.cell, header.rendering.gains, frame.gain)
                light = wide[:, band.y0 - y0 : band.y1 - y0]
            spool.write_window(i, band, light)
    return spool
