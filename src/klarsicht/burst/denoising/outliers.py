"""Detection of isolated outliers in the mean of a burst's frames, by tables of neighbours: of planes, where all pixels
have the same ones, or of a mosaic's samples, where they depend on the place in its cell.

n counts places (channel, row, column), p the neighbours of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.ground.progress import track
from klarsicht.numerics.compiled.jit import compile_inlined, compile_with
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

FAR = 6.0  # deviations: of the noise, and of the excess of pixels around
WITH_MEDIAN = 1.2  # variance of a pixel less the median of eight others, over that of a pixel
SPREAD = 1.4826  # deviation of a normal variable over the median of its magnitude
AROUND = 3  # pixels to each side that are compared
ALIKE = 0.5  # of the excess of a pixel: neighbours with as much are similar
COMPANY = 1  # similar neighbours at most

# comparisons that sort eight numbers (Batcher 1968), of many places at once
SORTING = (
    *((0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (1, 2), (5, 6)),
    *((0, 4), (1, 5), (2, 6), (3, 7), (2, 4), (3, 5), (1, 2), (3, 4), (5, 6)),
)

Places = npt.NDArray[np.int64]  # n 3
Values = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.int64]  # C side side p 3: of channel, row and column


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Neighbours of the pixels (C, H, W) that are tested, at each place of a cell. channels: (C, side, side), the
    numbers of their channels. near: the pixel itself, and the eight whose median it is compared with. far: those whose
    excess is compared, itself included. beside: those of all channels among which it must be isolated."""

    channels: npt.NDArray[np.int64]
    near: Offsets
    far: Offsets
    beside: Offsets

    @classmethod
    def of_planes(cls, count: int, in_one_place: bool = False) -> Neighbours:
        """Return the neighbours in so many planes: 3 x 3 near, 7 x 7 far, 3 x 3 of every plane beside. in_one_place:
        whether planes are the colours of the same pixels, so that a hot one may show in all of them."""
        near, far = (square_offsets(radius)[None, None, None].repeat(count, 0) for radius in (1, AROUND))
        planes, square = np.arange(count), square_offsets(1)
        around = square[1:] if in_one_place else square
        beside = [[(square if k == c else around) + np.array([k - c, 0, 0]) for k in planes] for c in planes]
        return cls(planes[:, None, None], near, far, np.stack([np.concatenate(own) for own in beside])[:, None, None])

    @property
    def inner(self) -> int:
        """Pixels around one that its excess depends on."""
        return int(np.abs(self.near[..., 1:]).max())

    @property
    def margin(self) -> int:
        """Pixels around one that decide on it."""
        return self.inner + int(np.abs(self.far[..., 1:]).max())


def square_offsets(radius: int) -> npt.NDArray[np.int64]:
    """Return the offsets (p, 3) within one channel of a square, the middle first."""
    reach = np.arange(-radius, radius + 1)
    around = np.stack(np.meshgrid(0, reach, reach, indexing="ij"), -1).reshape(-1, 3)
    return around[np.argsort(np.square(around).sum(1), kind="stable")]


def detect_outliers(
    read: Callable[[int, Window], Planes],
    bands: Sequence[Window],
    frames: Sequence[int],
    neighbours: Neighbours,
    noise: Sequence[NoiseLevel],
) -> Places:
    """Detect isolated outliers in the mean of the frames, (n, 3). read: reads a window of a frame, which may reach
    beyond it. bands: cover a frame; rows begin where a cell does. noise: one level for each channel."""
    channels, inner, margin = neighbours.channels, neighbours.inner, neighbours.margin
    tables, side = (neighbours.near, neighbours.far, neighbours.beside), channels.shape[1]
    read_noise, shot = (np.array([getattr(level, k) for level in noise], np.float32) for k in ("read", "shot"))
    places = [np.zeros((0, 3), np.int64)]
    for band in track(bands, len(bands), "hot pixels"):
        window = band.grow(margin)
        mean = read(frames[0], window)
        for frame in frames[1:]:
            mean += read(frame, window)
        mean /= len(frames)
        found = _isolated_outliers(mean, -margin % side, inner, margin, channels, *tables, read_noise, shot)
        c, y, x = (np.argwhere(found) + np.array([0, window.y0, window.x0])).T
        places.append(np.stack([channels[c, y % side, x % side], y, x], 1))
    return np.concatenate(places)


@compile_with(set())
def _isolated_outliers(
    light: Values,
    corner: int,
    inner: int,
    margin: int,
    channels: npt.NDArray[np.int64],
    near: Offsets,
    far: Offsets,
    beside: Offsets,
    read: Values,
    shot: Values,
) -> npt.NDArray[np.bool_]:
    """Mark pixels whose excess over the median of the eight near ones is far above the noise and the excesses around,
    and isolated, (C, H, W); none in the margin. corner: row and column of the cell at the first pixel."""
    C, H, W = light.shape
    side = near.shape[1]
    height, out = np.zeros_like(light), np.zeros((C, H, W), np.bool_)
    around, sizes = np.empty((8, W), np.float32), np.empty(far.shape[3], np.float32)
    for c in range(C):
        for y in range(inner, H - inner):
            for first in range(inner, min(inner + side, W - inner)):
                offsets = near[c, (y + corner) % side, (first + corner) % side]
                for n in range(8):
                    v, u = y + offsets[n + 1, 1], offsets[n + 1, 2]
                    for x in range(first, W - inner, side):
                        around[n, x] = light[c, v, x + u]
            for m in range(len(SORTING)):
                i, j = SORTING[m]
                for x in range(inner, W - inner):
                    a, b = around[i, x], around[j, x]
                    around[i, x], around[j, x] = (a if a < b else b), (b if a < b else a)
            for x in range(inner, W - inner):
                height[c, y, x] = light[c, y, x] - (around[3, x] + around[4, x]) / 2
    for c in range(C):
        for y in range(margin, H - margin):
            for x in range(margin, W - margin):
                h, i, j = height[c, y, x], (y + corner) % side, (x + corner) % side
                channel, under = channels[c, i, j], max(np.float32(0), light[c, y, x] - h)
                if h * h <= FAR**2 * WITH_MEDIAN * (read[channel] ** 2 + shot[channel] * under):
                    continue
                for n in range(len(sizes)):
                    sizes[n] = abs(height[c, y + far[c, i, j, n, 1], x + far[c, i, j, n, 2]])
                company = -1  # itself
                for n in range(beside.shape[3]):
                    k, v, u = c + beside[c, i, j, n, 0], y + beside[c, i, j, n, 1], x + beside[c, i, j, n, 2]
                    if height[k, v, u] * np.sign(h) >= ALIKE * abs(h):
                        company += 1
                out[c, y, x] = company <= COMPANY and abs(h) > FAR * SPREAD * _median(sizes)
    return out


@compile_inlined
def _median(values: Values) -> float:
    """Sort values in place; return their median. Numba's own takes three seconds to compile."""
    n = len(values)
    for k in range(1, n):
        value, at = values[k], k
        while at > 0 and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value
    return float(values[(n - 1) // 2] + values[n // 2]) / 2
