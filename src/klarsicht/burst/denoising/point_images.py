"""Test of whether an outlier of a mosaic may be the image of a point of the scene, for frames that coincide.

Optics spread the image of a point over several pixels: of a Gaussian one of deviation s, in the middle of a pixel, each
of the four that share an edge with it has (Q(.5/s) - Q(1.5/s)) / (1 - 2 Q(.5/s)) as much light, Q the tail of the
normal distribution; .23 for s = .5, .09 for .35. A hot pixel shows nothing in them. So it cannot be a point's image
where the mean excess of the four, and three deviations more, are below MOST_SPREAD of its own, which excludes s of .35
and more where other colours have a third of the light. It is one for sure where three of the four exceed that by three
of their deviations. Each excess is over the median of the eight nearest pixels of the same colour; its deviation is
that of the noise, or, if more, of means of opposite ones of these eight, in which a slope cancels out. Nothing is
excluded where one of the four is near white.

n counts places (channel, row, column), as in `hot_pixels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import PATTERNS, cell_offsets
from klarsicht.burst.data.cokriging import cell_side, colour_numbers
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.denoising.outliers import WITH_MEDIAN
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

MOST_SPREAD, SURE_DEVIATIONS, LEAST_LIT = 0.03, 3.0, 3
NEAR_WHITE = 0.9  # share of white
# deviation of a normal variable over the median distance of means of two from the median of four such, sixteen in all
OF_PAIRS = 2.8
BESIDE = np.array([(-1, 0), (0, -1), (0, 1), (1, 0)])

Places = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


def find_edge_neighbours(places: Places, pattern: str) -> Places:
    """Find the four pixels of the mosaic that share an edge with each place, (n, 4, 3), of a Bayer pattern's planes, or
    of the colours of X-Trans in full resolution."""
    c, y, x = places.T
    if pattern not in PATTERNS:
        side, colours = cell_side(pattern), colour_numbers(pattern)
        rows, columns = y[:, None] + BESIDE[:, 0], x[:, None] + BESIDE[:, 1]
        return np.stack([colours[rows % side, columns % side], rows, columns], -1)
    offsets = np.array(cell_offsets(pattern))
    plane = np.empty((2, 2), np.int64)
    plane[tuple(offsets.T)] = range(4)
    rows, columns = (2 * where[:, None] + offset[c][:, None] + edge for where, offset, edge in
                     zip((y, x), offsets.T, BESIDE.T, strict=True))  # fmt: skip
    return np.stack([plane[rows % 2, columns % 2], rows // 2, columns // 2], -1)


@dataclass(frozen=True, eq=False)
class EdgeNeighbours:
    """Four pixels around each place: their excess (n, 4), its deviation (n,), whether they can be judged (n,)."""

    excess: Values
    deviation: Values
    usable: npt.NDArray[np.bool_]

    @classmethod
    def measure(
        cls,
        frames: FrameStore,
        order: Sequence[int],
        pattern: str,
        places: Places,
        noise: Sequence[NoiseLevel],
        white: float,
    ) -> EdgeNeighbours:
        """Measure the neighbours of places. frames: planes, or samples of X-Trans; noise: of each channel in the mean
        of the frames of the order; white: the least white level among them."""
        beside = find_edge_neighbours(places, pattern)
        inside = ((beside[..., 1:] >= 0) & (beside[..., 1:] < np.array(frames.size))).all((1, 2))
        flat = np.clip(beside.reshape(-1, 3), 0, np.array([len(noise), *frames.size]) - 1)
        mean = np.zeros((len(flat), 3, 3), np.float32)
        for frame in order:
            mean += frames.read_neighbourhoods(frame, flat) / np.float32(len(order))
        pixels = mean.reshape(-1, 9)
        around = np.delete(pixels, 4, 1)
        light = np.median(around, 1)
        variances = np.select(
            [flat[:, 0] == c for c in range(len(noise))], [level.variance(light) for level in noise], 0
        )
        pairs = ((around[:, :4] + around[:, :3:-1]) / 2).reshape(-1, 4, 4)
        apart = np.abs(pairs - np.median(pairs, 2, keepdims=True)).reshape(-1, 16)
        seen = np.square(OF_PAIRS * np.median(apart, 1))
        deviation = np.sqrt(WITH_MEDIAN * np.maximum(variances.reshape(-1, 4).mean(1), seen))
        usable = inside & (pixels.max(1) < NEAR_WHITE * white).reshape(-1, 4).all(1)
        return cls((pixels[:, 4] - light).reshape(-1, 4), deviation, usable)

    def exclude_points(self, height: Values) -> npt.NDArray[np.bool_]:
        """Tell which places of so much excess (n,) cannot be images of points, (n,)."""
        spread = np.abs(self.excess.mean(1)) + SURE_DEVIATIONS * self.deviation / 2
        return self.usable & (spread < MOST_SPREAD * np.abs(height))

    def show_points(self, height: Values) -> npt.NDArray[np.bool_]:
        """Tell which places of so much excess (n,) are images of points for sure, (n,)."""
        least = MOST_SPREAD * np.abs(height) + SURE_DEVIATIONS * self.deviation
        return (self.excess * np.sign(height)[:, None] > least[:, None]).sum(1) >= LEAST_LIT
