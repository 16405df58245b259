"""Offsets of whole rows and columns of a sensor that all frames share, estimated over a burst whose camera moved.

Where frame k shows at row y + s what the reference shows at y, the mean of their difference along the row is b(y) -
b(y + s), whatever the scene: b follows by least squares over all frames. An offset is sure where what one half of the
picture and every second frame say predicts, by its ranks, what the other half and the other frames show; nothing is
changed elsewhere. Frames on a tripod say nothing of b: the scene moves with it.

What is sure is fitted once more, to the differences of all pairs of frames, as two frames may be further apart than
either is from the reference; and with a factor on the light of each frame, as exposures that differ by a hundredth
look like slow offsets.

n counts rows, or columns, and m the other frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.stats import rankdata

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEAST_OTHERS = 2  # frames beside the reference: what one says is held against the other
LEAST_AGREEING = 0.5  # share of a frame's tiles
LEAST_LINES = 2  # pixels between two frames, without which offsets move with the scene
FAR_APART = 4.0  # deviations of a difference, beyond which it is no noise
BRIGHTEST_COUNTED = 0.95  # of white, from which a pixel does not count
SURE_AGREEMENT = 6.0  # deviations of a rank correlation without offsets
PLANE_AGREEMENT = 3.0  # the same of a plane beside one that is sure
USUAL_OFFSET = 0.25  # deviation of offsets over that of the noise, before they are measured: it decides what is smooth
FITTED_OFFSET = 0.7  # the same of offsets that are sure
EXPOSURE_ERROR = 0.05  # deviation of a frame's exposure from the one it was normalised by

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Differences:
    """Means of the difference of the first frame and each other along lines: sums and numbers of pixels, and sums of
    their light in the first, (C, 2, m, n), by plane and half of the line. shifts: (m,), by how many lines the other
    frame is shifted."""

    sums: Values
    counts: Values
    light: Values
    shifts: npt.NDArray[np.int64]

    def fit(self, plane: int, half: int, frames: slice, noise: float) -> Values:
        """Fit the offsets (n,) of a plane to one half of its lines and some frames. noise: deviation of a pixel."""
        n = self.sums.shape[-1]
        normal, right = sparse.eye(n, format="csc") / (USUAL_OFFSET * noise) ** 2, np.zeros(n)
        for mean, weight, shift in zip(*self._line_means(plane, half, frames, noise), strict=True):
            A = difference_matrix(n, shift)
            normal = normal + A.T @ sparse.diags(weight) @ A
            right += A.T @ (weight * mean)
        return np.asarray(splu(normal.tocsc()).solve(right))

    def agreement(self, offsets: Values, plane: int, half: int, frames: slice) -> float:
        """Compute the rank correlation of offsets with what a half and some frames show, in deviations without any."""
        means, weights, shifts = self._line_means(plane, half, frames, 1.0)
        predictions = [difference_matrix(len(offsets), shift) @ offsets for shift in shifts]
        pairs = [
            _rank_correlation(mean[weight > 0], prediction[weight > 0])
            for mean, weight, prediction in zip(means, weights, predictions, strict=True)
        ]
        return float(np.mean(pairs)) * float(np.median([(weight > 0).sum() for weight in weights])) ** 0.5

    def _line_means(
        self, plane: int, half: int, frames: slice, noise: float
    ) -> tuple[Values, Values, npt.NDArray[np.int64]]:
        """Return means (m, n), their weights, which are the inverse of their variances, and shifts of some frames."""
        counts = self.counts[plane, half, frames]
        means = self.sums[plane, half, frames] / np.maximum(counts, 1)
        return means, counts / (2 * noise**2), self.shifts[frames]


def difference_matrix(n: int, shift: int) -> sparse.csr_matrix:
    """Build the matrix of b(y) - b(y + shift), (n, n), with rows of zeros where y + shift is beyond the frame."""
    y = np.arange(max(0, -shift), min(n, n - shift))
    rows, columns = np.r_[y, y], np.r_[y, y + shift]
    return sparse.csr_matrix((np.r_[np.ones(len(y)), -np.ones(len(y))], (rows, columns)), (n, n))


def _rank_correlation(one: Values, other: Values) -> float:
    """Compute Spearman's correlation; 0 where one of them is constant."""
    a, b = (rankdata(x) - (len(x) + 1) / 2 for x in (one, other))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def measure_differences(
    spool: FrameStore, frames: Sequence[int], shifts: npt.NDArray[np.int64], noise: Sequence[NoiseLevel]
) -> tuple[Differences, Differences]:
    """Measure the differences of rows and of columns. frames: the first and the others. shifts: (m + 1, 2), of whole
    frames, which show at p + shift what the first shows at p. noise: of each plane."""
    C, H, W = spool.shape[1:]
    m = len(frames) - 1
    rows, columns = (np.zeros((3, C, 2, m, side)) for side in (H, W))
    read2, shot = (np.array([one(level) for level in noise], np.float32)[:, None, None] for one in (_read2, _shot))
    for window in spool.strip_windows():
        first = spool.read_window(frames[0], window)
        limit = FAR_APART**2 * 2 * (read2 + shot * np.maximum(first, 0))
        for k in range(m):
            dy, dx = shifts[k + 1].tolist()
            there = window.translate(dy, dx)
            difference = first - spool.read_window(frames[k + 1], there)
            usable = (np.square(difference) < limit) & (first < BRIGHTEST_COUNTED)
            inside = there.clip_to(spool.size).translate(-dy, -dx).slices_in(window)
            mask = np.zeros(window.size, bool)
            mask[inside] = True
            usable &= mask
            difference *= usable
            for number, values in enumerate((difference, usable, first * usable)):
                for half, part in enumerate(np.array_split(values, 2, axis=2)):
                    rows[number, :, half, k, window.y0 : window.y1] = part.sum(2)
                middle = min(max(H // 2 - window.y0, 0), window.size[0])
                for half, part in enumerate((values[:, :middle], values[:, middle:])):
                    columns[number, :, half, k] += part.sum(1)
    by_axis = ((rows, shifts[1:, 0]), (columns, shifts[1:, 1]))
    down, across = (Differences(one[0], one[1], one[2], along) for one, along in by_axis)
    return down, across


def _read2(level: NoiseLevel) -> float:
    return level.read**2


def _shot(level: NoiseLevel) -> float:
    return level.shot


def find_sure_planes(differences: Differences, noise: Sequence[float]) -> list[int]:
    """Find the planes whose offsets are sure; where one is, the others need less. noise: deviation of a pixel of each
    plane."""
    m = differences.sums.shape[2]
    if m < LEAST_OTHERS or np.abs(differences.shifts).max() < LEAST_LINES:
        return []
    every_second = (slice(0, None, 2), slice(1, None, 2))

    def agreement(plane: int, half: int) -> float:
        offsets = differences.fit(plane, half, every_second[half], noise[plane])
        return differences.agreement(offsets, plane, 1 - half, every_second[1 - half])

    agreements = [min(agreement(k, half) for half in (0, 1)) for k in range(len(noise))]
    least = PLANE_AGREEMENT if max(agreements) >= SURE_AGREEMENT else SURE_AGREEMENT
    return [k for k, found in enumerate(agreements) if found >= least]


def fit_offsets(pairs: Sequence[Differences], planes: Sequence[int], noise: Sequence[float]) -> Values:
    """Fit the offsets (C, n) of some planes, 0 of others, to both halves of their lines, shrunk by what these have in
    common. pairs: differences of each frame and those after it."""
    out = np.zeros((len(noise), pairs[0].sums.shape[-1]))
    for plane in planes:
        a, b = (fit_by_pairs(pairs, plane, half, noise[plane]) for half in (0, 1))
        common, apart = max(float(np.mean(a * b)), 0.0), float(np.mean(np.square(a - b))) / 4
        out[plane] = (a + b) / 2 * common / (common + apart)
    return out


def fit_by_pairs(pairs: Sequence[Differences], plane: int, half: int, noise: float) -> Values:
    """Fit the offsets (n,) of a plane to one half of its lines, with a factor on the light of each frame. Each of N
    frames is in N - 1 pairs, so that a pair counts 2 / N times."""
    n, N = pairs[0].sums.shape[-1], len(pairs) + 1
    priors = np.r_[np.full(n, (FITTED_OFFSET * noise) ** -2), np.full(N, EXPOSURE_ERROR**-2)]
    normal, right = sparse.diags(priors, format="csc"), np.zeros(n + N)
    for first, differences in enumerate(pairs):
        for k, shift in enumerate(differences.shifts):
            count = differences.counts[plane, half, k]
            mean, light = (x[plane, half, k] / np.maximum(count, 1) for x in (differences.sums, differences.light))
            exposures = np.zeros((n, N))
            exposures[:, first], exposures[:, first + 1 + k] = light, -light
            A = sparse.hstack([difference_matrix(n, shift), sparse.csr_matrix(exposures)]).tocsr()
            weight = count / (N * noise**2)
            normal = normal + A.T @ sparse.diags(weight) @ A
            right += A.T @ (weight * mean)
    return np.asarray(splu(normal.tocsc()).solve(right))[:n]


def measure_offsets(
    spool: FrameStore, frames: Sequence[int], shifts: npt.NDArray[np.int64], noise: Sequence[NoiseLevel]
) -> tuple[Values, Values]:
    """Measure the offsets of rows (C, H) and columns (C, W), 0 where they are not sure; arguments as of
    measure_differences. All pairs of frames are read where some are."""
    light = max(spool.mean(frames[0]), 0.0)
    deviations = [float(level.deviation(light)) for level in noise]
    first = measure_differences(spool, frames, shifts, noise)
    sure = [find_sure_planes(one, deviations) for one in first]
    if not any(sure):
        return np.zeros((len(noise), spool.size[0])), np.zeros((len(noise), spool.size[1]))
    later = range(1, len(frames) - 1)
    pairs = [first, *(measure_differences(spool, frames[k:], shifts[k:] - shifts[k], noise) for k in later)]
    rows, columns = (
        fit_offsets(each, planes, deviations) for each, planes in zip(zip(*pairs, strict=True), sure, strict=True)
    )
    return rows, columns


@dataclass(frozen=True, eq=False)
class OffsetFrames(FrameStore):
    """Frames of another store without the offsets of rows (C, H) and columns (C, W)."""

    source: FrameStore
    rows: Planes
    columns: Planes

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        light = self.source.read_inner_window(frame, inside)
        light -= self.rows[:, inside.y0 : inside.y1, None]
        light -= self.columns[:, None, inside.x0 : inside.x1]
        return light

    def read_neighbourhoods(self, frame: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        y, x = self.locate_neighbours(places)
        c = places[:, 0, None, None]
        return self.source.read_neighbourhoods(frame, places) - self.rows[c, y] - self.columns[c, x]


def find_offsets(
    burst: LoadedBurst, placement: Placement, order: Sequence[int], noise: Sequence[NoiseLevel]
) -> tuple[Planes, Planes] | None:
    """Find the sure offsets of the rows (C, H) and columns (C, W) of planes of a mosaic; None where none are, of other
    colours, and of brackets. placement: of the frames in their order, the reference first."""
    if burst.header.colour != "mosaic" or burst.is_bracket:
        return None
    used_numbers = [k for k in range(len(order)) if k == 0 or placement.agreement_share(k) >= LEAST_AGREEING]
    shifts = np.rint(np.median(placement.fine[used_numbers], (1, 2))).astype(np.int64)
    if len(used_numbers) <= LEAST_OTHERS or np.abs(shifts).max() < LEAST_LINES:
        return None
    both = measure_offsets(burst.spool, [order[k] for k in used_numbers], shifts, noise)
    rows, columns = (one.astype(np.float32) for one in both)
    return (rows, columns) if rows.any() or columns.any() else None


def remove_offsets(burst: LoadedBurst, offsets: tuple[Planes, Planes]) -> LoadedBurst:
    """Take the offsets of rows and columns off all frames of a burst."""
    spool = burst.spool
    return replace(burst, spool=OffsetFrames(spool.path, spool.shape, spool, *offsets))
