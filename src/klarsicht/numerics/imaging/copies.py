"""Copies among many images: re-encoded, resized, cropped by up to a tenth of a side, mirrored, or turned by quarter
turns, found by grey thumbnails.

A copy is like a window of its original. All pairs are compared by the lowest frequencies of a discrete cosine
transform, at few windows; the pairs that are left by their details, the frequencies above, at the window that fits
best. A mirror changes signs of frequencies, a quarter turn exchanges the axes, too: so magnitudes bound the correlation
of all eight poses, and only pairs that reach it are compared in each. Aligned pictures, such as radiographs, share low
frequencies: their pairs are first compared by details at coarse windows, a hundred times cheaper. They share details,
too, without being copies: `chance_correlation` says how much."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Floats

SIDE = 32  # pixels of a thumbnail
LOW, HIGH = 8, 20  # frequencies along a side below which an image is compared first, and at all
GRADIENT = 2  # frequencies along a side that a gradient has
SIMILAR = 0.935  # least correlation of low frequencies of a pair that is looked at
COPY_CORRELATION = 0.85  # least correlation of details of copies
TURNED_CORRELATION = 0.9  # and of copies in another pose: the halves of a saucer mirror each other at 0.86
BINS = 85  # of the counted correlations of other pairs
FEWEST_PAIRS = 100  # by whose correlations chance is judged
MIN_DETAIL = 16.0  # norm of the details in grey levels, three times that of rounding: with less, nothing is proved
LIKELY = 0.6  # least correlation of details at coarse windows of a pair whose best window is looked for
COARSE_SIZES = (1.0, 0.94)  # sides of the windows of the first comparison, as shares
DETAIL_SIZES = (1.0, 0.97, 0.94, 0.91)  # and of the comparison of details at coarse windows
FINE_SIZES = (1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.88)
COARSE_PLACES, FINE_PLACES = (0.0, 0.5, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0)  # of windows, as shares of what is cut off
ROUNDS = 3  # of fitting the window along either axis
QUERIES, REFERENCES, REGISTERED = 128, 8192, 128  # rows of a block
UPRIGHT = 0  # pose of an image that lies as the other one does
ACROSS, DOWN, AXES = 1, 2, 4  # bits of a pose: mirrored from left to right, from top to bottom; axes exchanged before
POSES = 8
COUNTED = 4096  # pairs that are not likely, at most, whose best window is looked for: they say what chance is


@dataclass(frozen=True)
class Copies:
    """Pairs of copies: numbers of images, the smaller first, int (p, 2), the correlation of their details, float (p,),
    and the pose that lays the second on the first, int (p,). Of the other pairs that were compared by their details
    `others`, int (2, BINS), counts the correlations: of upright pairs, and of those in other poses."""

    pairs: NDArray[np.int64]
    correlation: NDArray[np.float64]
    poses: NDArray[np.int64]
    others: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))

    @classmethod
    def of(
        cls,
        pairs: NDArray[np.int64],
        correlation: NDArray[np.floating[Any]],
        poses: NDArray[np.int64] | None = None,
    ) -> Copies:
        """Sort pairs, and keep each in a pose once, with its largest correlation; without poses all are upright."""
        rows = np.reshape(pairs, (-1, 2))
        laid = np.full(len(rows), UPRIGHT) if poses is None else poses
        columns = np.column_stack([np.sort(rows, 1), np.where(rows[:, 0] > rows[:, 1], _undo(laid), laid)])
        rank = np.lexsort((-correlation, *columns.T[::-1]))
        columns, values = columns[rank], np.asarray(correlation, np.float64)[rank]
        new = np.ones(len(columns), bool)
        new[1:] = (columns[1:] != columns[:-1]).any(1)
        return cls(columns[new, :2], values[new], columns[new, 2])

    def select(self, some: NDArray[np.bool_] | NDArray[np.intp]) -> Copies:
        """Select pairs by a mask, bool (p,), or by their numbers."""
        return replace(self, pairs=self.pairs[some], correlation=self.correlation[some], poses=self.poses[some])

    def reach(self, bounds: tuple[float, float]) -> NDArray[np.bool_]:
        """Say which pairs correlate by at least their bound, that of upright pairs or that of other poses: bool
        (p,)."""
        return self.correlation >= np.where(self.poses == UPRIGHT, *bounds)

    def one_pose(self, bounds: tuple[float, float]) -> Copies:
        """Keep each pair once: in a pose in which it reaches its bound if there is one, then upright, then in the pose
        of the largest correlation."""
        below = ~self.reach(bounds)
        rank = np.lexsort((-self.correlation, self.poses != UPRIGHT, below, self.pairs[:, 1], self.pairs[:, 0]))
        return self.select(rank[np.unique(self.pairs[rank], axis=0, return_index=True)[1]])


def find_copies(thumbnails: NDArray[np.uint8], rows: range | None = None) -> Copies:
    """Find the copies of the images `rows`, by default all, among all thumbnails uint8 (n, SIDE, SIDE). A pair is found
    by the image of which the other one is a window, so all rows together find all pairs."""
    first, second, poses = find_candidates(thumbnails, range(len(thumbnails)) if rows is None else rows)
    parts, others = [], []
    for some in (poses == UPRIGHT, poses != UPRIGHT):
        copies, counts = compare_candidates(thumbnails, first[some], second[some], poses[some])
        parts.append((copies.pairs, copies.correlation, copies.poses))
        others.append(counts)
    return replace(Copies.of(*map(np.concatenate, zip(*parts, strict=True))), others=np.stack(others))


def compare_candidates(
    thumbnails: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64], poses: NDArray[np.int64]
) -> tuple[Copies, NDArray[np.int64]]:
    """Find copies among pairs in poses by their details, and count the correlations of the others, int (BINS,). Of
    pairs that are not likely ones, COUNTED that are spread evenly are looked at, and stand for the others in the
    counts."""
    few = len(first) <= COUNTED  # all of which are looked at
    likely = np.ones(len(first), bool) if few else correlate_coarsely(thumbnails, first, second, poses) >= LIKELY
    (unlikely,) = np.nonzero(~likely)
    counted = unlikely[np.linspace(0, len(unlikely), min(len(unlikely), COUNTED), endpoint=False).astype(np.intp)]
    weights = likely.astype(np.float64)
    weights[counted] = len(unlikely) / max(len(counted), 1)
    (looked_at,) = np.nonzero(weights)
    first, second, poses, weights = first[looked_at], second[looked_at], poses[looked_at], weights[looked_at]
    correlations = np.zeros(len(first), np.float64)
    for a in range(0, len(first), REGISTERED):
        some = slice(a, a + REGISTERED)
        correlations[some] = correlate_details(thumbnails[first[some]], lay(thumbnails[second[some]], poses[some]))
    kept = correlations >= np.where(poses == UPRIGHT, COPY_CORRELATION, TURNED_CORRELATION)
    no_copies = np.clip(correlations[~kept], 0, COPY_CORRELATION)
    others = np.histogram(no_copies, BINS, (0, COPY_CORRELATION), weights=weights[~kept])[0].round().astype(np.int64)
    return Copies.of(np.stack([first[kept], second[kept]], 1), correlations[kept], poses[kept]), others


def lay(images: NDArray[np.uint8], poses: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Lay images (p, SIDE, SIDE) in poses (p,): exchange their axes, then mirror them."""
    flags = [(poses & bit != 0)[:, None, None] for bit in (AXES, ACROSS, DOWN)]
    laid = np.where(flags[0], images.swapaxes(1, 2), images)
    laid = np.where(flags[1], laid[:, :, ::-1], laid)
    return np.where(flags[2], laid[:, ::-1], laid)


def chance_correlation(others: NDArray[np.int64], pairs: int | None = None) -> float:
    """Compute the correlation that one of n `pairs` that are no copies, by default of those counted, reaches by chance,
    at least COPY_CORRELATION, from counts (BINS,) of theirs: artanh (mu + sigma Phi^-1(1 - 1 / (n + 1))) of a normal
    distribution of z = artanh r, fitted to its median and upper decile (Fisher 1915)."""
    from scipy.special import ndtri

    total = int(others.sum())
    if total < FEWEST_PAIRS:
        return COPY_CORRELATION
    n = total if pairs is None else pairs
    edges = np.linspace(0, COPY_CORRELATION, BINS + 1)
    middle, decile = np.arctanh(np.interp((0.5, 0.9), np.cumsum([0, *others]) / total, edges))
    z = middle + (decile - middle) / ndtri(0.9) * ndtri(1 - 1 / (n + 1))
    return max(COPY_CORRELATION, float(np.tanh(z)))


def find_candidates(
    thumbnails: NDArray[np.uint8], rows: range
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find pairs of images of `rows` and of all in poses, three int arrays (p,), each once, where low frequencies of
    the second, laid in the pose, correlate with those of a window of the first."""
    n = len(thumbnails)
    reference = _low_frequencies(thumbnails, *([_window(0.0, 1.0)] * 2))
    sizes = np.abs(reference)
    own = thumbnails[rows.start : rows.stop]
    codes = [np.zeros(0, np.int64)]
    for vertical in _windows(COARSE_SIZES, COARSE_PLACES):
        for across in _windows(COARSE_SIZES, COARSE_PLACES):
            query = _low_frequencies(own, vertical, across)
            for axes in (0, AXES):
                for a in range(0, len(query), QUERIES):
                    laid = query[a : a + QUERIES, _laid_frequencies(axes)]
                    for b in range(0, n, REFERENCES):
                        (near,) = np.nonzero((np.abs(laid) @ sizes[b : b + REFERENCES].T > SIMILAR).any(0))
                        for pose in range(axes, axes + AXES) if len(near) else ():
                            i, j = np.nonzero((laid * _signs(pose)) @ reference[b + near].T > SIMILAR)
                            codes.append(((i + a + rows.start) * n + near[j] + b) * POSES + pose)
    code = np.unique(np.concatenate(codes))
    pair, poses = code // POSES, code % POSES
    i, j = pair // n, pair % n
    return i[i != j], j[i != j], poses[i != j]


def correlate_coarsely(
    thumbnails: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64], poses: NDArray[np.int64]
) -> Floats:
    """Correlate the details of each second image, laid in its pose, with those of the first one's coarse window that
    fits best: (p,). `first` and `second` are numbers of images, int (p,), in the order of the former."""
    images, counts = np.unique(first, return_counts=True)
    windows = np.stack([_cosines(HIGH) @ window for window in _windows(DETAIL_SIZES, COARSE_PLACES)])
    best, end = np.zeros(len(first), np.float32), 0
    for image, count in zip(images, counts, strict=True):
        begin, end = end, end + int(count)
        z = np.einsum("kay,yx,lbx->klab", windows, thumbnails[image].astype(np.float32), windows, optimize=True)
        laid = lay(thumbnails[second[begin:end]], poses[begin:end])
        others = _frequencies(laid.astype(np.float32), _cosines(HIGH), _cosines(HIGH))
        best[begin:end] = (_unit(_details(others)) @ _unit(_details(z.reshape(-1, HIGH, HIGH))).T).max(1)
    return best


def correlate_details(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Correlate the details (frequencies from LOW to HIGH) of images uint8 (p, SIDE, SIDE) with those of the best
    window of others: (p,), 0 where either has hardly any. The window maximises the correlation of all frequencies below
    HIGH but the mean, along one axis and the other in turn."""
    n, every = len(first), np.arange(len(first))
    windows, x = _fine_windows(), first.astype(np.float32)
    z = _frequencies(second.astype(np.float32), _cosines(HIGH), _cosines(HIGH))
    down = np.einsum("kay,nyx->nkax", windows, x, optimize=True)
    across = np.einsum("kbx,nyx->nkyb", windows, x, optimize=True)
    right = np.zeros(n, np.intp)
    for _ in range(ROUNDS):
        correlations = np.einsum("nkax,nbx->nkab", down, windows[right], optimize=True)
        lower = _correlation(correlations, z[:, None]).argmax(1)
        correlations = np.einsum("nay,nkyb->nkab", windows[lower], across, optimize=True)
        right = _correlation(correlations, z[:, None]).argmax(1)
    one, other = _details(correlations[every, right]), _details(z)
    enough = np.minimum(np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)) >= MIN_DETAIL
    dot = (one.astype(np.float64) * other).sum(1)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.where(enough, dot / np.maximum(norms, 1e-9), 0.0)


def _undo(poses: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the poses (p,) that take back others: mirrors change places where the axes are exchanged before them."""
    exchanged = (poses & AXES) | ((poses & ACROSS) << 1) | ((poses & DOWN) >> 1)
    return np.where(poses & AXES, exchanged, poses)


@cache
def _laid_frequencies(axes: int) -> NDArray[np.intp]:
    """Return where the frequencies below LOW without the mean lie, (LOW^2 - 1,), once axes are exchanged, or not."""
    places = np.arange(LOW * LOW).reshape(LOW, LOW)
    return (places.T if axes else places).ravel()[1:] - 1


@cache
def _signs(pose: int) -> NDArray[np.float32]:
    """Return the signs (LOW^2 - 1,) of those frequencies in a pose: odd ones along a mirrored axis change theirs."""
    odd = (-1.0) ** np.arange(LOW)
    signs = np.outer(odd if pose & DOWN else odd**2, odd if pose & ACROSS else odd**2)
    return (signs.T if pose & AXES else signs).ravel()[1:].astype(np.float32)


def _low_frequencies(thumbnails: NDArray[np.uint8], vertical: Floats, across: Floats) -> NDArray[np.float32]:
    """Compute the frequencies below LOW of a window without the mean, as unit vectors (n, LOW^2 - 1)."""
    D, parts = _cosines(LOW), []
    for a in range(0, len(thumbnails), REFERENCES):
        z = _frequencies(thumbnails[a : a + REFERENCES].astype(np.float32), D @ vertical, D @ across)
        parts.append(_unit(z.reshape(len(z), -1)[:, 1:]))
    return np.concatenate([np.zeros((0, LOW * LOW - 1), np.float32), *parts]).astype(np.float32)


def _frequencies(x: Floats, down: Floats, across: Floats) -> Floats:
    """Transform images (n, SIDE, SIDE) along both axes to (n, a, b), and drop the mean."""
    z = np.asarray(down @ x @ across.T)
    z[:, 0, 0] = 0
    return z


def _correlation(spectrum: Floats, z: Floats) -> Floats:
    """Correlate transforms (n, k, a, b) with (n, 1, a, b), up to the norm of the latter: (n, k)."""
    spectrum[..., 0, 0] = 0
    norm = np.sqrt(np.einsum("nkab,nkab->nk", spectrum, spectrum))
    return np.asarray(np.einsum("nkab,nkab->nk", spectrum, np.broadcast_to(z, spectrum.shape)) / np.maximum(norm, 1e-6))


def _unit(x: Floats) -> Floats:
    """Divide rows (n, d) by their norms."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6))


def _details(z: Floats) -> Floats:
    """Take the frequencies from LOW to HIGH, along either axis, of transforms (n, HIGH, HIGH): (n, d). Those below
    GRADIENT along an axis are left out: a gradient, such as a sky's, has its share of them."""
    detail = np.ones((HIGH, HIGH), bool)
    detail[:LOW, :LOW] = False
    detail[:GRADIENT] = detail[:, :GRADIENT] = False
    return z.reshape(len(z), -1)[:, detail.ravel()]


@cache
def _cosines(count: int) -> NDArray[np.float32]:
    """Return the first `count` rows of the orthonormal discrete cosine transform of SIDE numbers (DCT-II)."""
    waves = np.cos(np.pi * (np.arange(SIDE) + 0.5) * np.arange(count)[:, None] / SIDE)
    return np.asarray(waves / np.linalg.norm(waves, axis=1, keepdims=True), np.float32)


@cache
def _window(start: float, size: float) -> NDArray[np.float32]:
    """Return weights (SIDE, SIDE) that resample the interval [start, start + size], shares of a side, by area."""
    edges = (start + np.arange(SIDE + 1) * size / SIDE) * SIDE
    pixel = np.arange(SIDE)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.maximum(overlap, 0)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def _windows(sizes: tuple[float, ...], places: tuple[float, ...]) -> list[NDArray[np.float32]]:
    return [_window((1 - size) * place, size) for size in sizes for place in (places if size < 1 else (0.0,))]


@cache
def _fine_windows() -> NDArray[np.float32]:
    """Return the transforms (k, HIGH, SIDE) of all windows of the second comparison."""
    return np.stack([_cosines(HIGH) @ window for window in _windows(FINE_SIZES, FINE_PLACES)])
