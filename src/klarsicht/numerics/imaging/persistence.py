"""Segmentation of relevance maps into connected parts by topological persistence of their peaks.

Watershed by flooding from the maxima: pixels enter by decreasing height and join their highest neighbour; a pixel
without flooded neighbours is a peak. Where regions meet, the lower peak is merged into the higher one if the saddle
exceeds a share of it: persistence (Edelsbrunner, Letscher and Zomorodian 2002), here as a ratio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from klarsicht.ground.arrays import Doubles, Floats
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.compiled.jit import compile_with

BLOCK = 256  # maps segmented at a time, which bounds memory


@dataclass(frozen=True)
class Parts:
    """M parts of N maps, grouped by map and the heaviest first. labels: int8 (N, H, W), 0 outside all parts, else the
    number of the part within its map, from 1. image, number: (M,), the map of each part, ascending, and its label
    there. mass: float64 (M,), its share of the map's positive relevance."""

    labels: NDArray[np.int8]
    image: NDArray[np.int32]
    number: NDArray[np.int8]
    mass: Doubles

    @classmethod
    def of(cls, maps: Floats, labels: NDArray[np.integer[Any]]) -> Parts:
        """Make the parts that labels (N, H, W) mark on maps of the same shape."""
        mass = _masses(_shares(maps), labels)
        image, number = np.nonzero(mass)
        return cls(labels.astype(np.int8), image.astype(np.int32), (number + 1).astype(np.int8), mass[image, number])

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, which: NDArray[np.bool_]) -> Parts:
        """Select parts by a mask (M,); the labels are kept."""
        return replace(self, image=self.image[which], number=self.number[which], mass=self.mass[which])

    @property
    def masks(self) -> NDArray[np.bool_]:
        return np.asarray(self.labels[self.image] == self.number[:, None, None])

    def mask_relevance(self, maps: Floats) -> Floats:
        """Extract the positive relevance of each part, 0 elsewhere, (M, H, W); maps (N, H, W)."""
        return np.where(self.masks, np.maximum(maps[self.image], 0), 0)


def segment(
    maps: Floats, *, sigma: float = 1.0, share: float = 0.7, saddle: float = 0.6, least: float = 0.08, most: int = 8
) -> Parts:
    """Segment the positive relevance of maps (N, H, W) into disjoint parts, each connected (8 neighbours).

    Args:
        sigma: standard deviation in pixels of the Gaussian that smooths a map before flooding.
        share: share of the smoothed mass that is flooded, in the fewest highest pixels.
        saddle: share of the lower of two peaks above which their saddle merges them.
        least: share of the map's positive mass that a part must hold.
        most: parts kept of a map, the heaviest.

    Raises:
        InputError, UsageError: not (N, H, W), values that are not finite, or a share outside its range.
    """
    _check(maps, {"share": share, "saddle": saddle}, least, most)
    labels = np.zeros(maps.shape, np.int8)
    for start in range(0, len(maps), BLOCK):
        mass = _shares(maps[start : start + BLOCK])
        regions = _regions(gaussian_filter(mass, (0, sigma, sigma)), share, saddle)
        labels[start : start + BLOCK] = _number_heaviest(mass, regions, least, most)
    return Parts.of(maps, labels)


def _shares(maps: Floats) -> Doubles:
    """Divide positive relevance by its sum in each map; a map without any stays zero."""
    positive = np.maximum(maps, 0, dtype=np.float64)
    largest = positive.max((1, 2), keepdims=True, initial=0)
    positive /= np.where(largest > 0, largest, 1)  # else a sum of huge values overflows
    total = positive.sum((1, 2), keepdims=True)
    return positive / np.where(total > 0, total, 1)


def _regions(heights: Doubles, share: float, saddle: float) -> NDArray[np.int32]:
    """Compute regions (N, H, W) of the highest pixels that hold the share of each map's sum; 0 elsewhere."""
    n, h, w = heights.shape
    falling = -np.sort(-heights.reshape(n, h * w), axis=1)
    held = np.cumsum(falling, 1)
    last = np.minimum((held < share * held[:, -1:]).sum(1), h * w - 1)
    levels = np.maximum(falling[np.arange(n), last], np.finfo(np.float64).tiny)
    framed = np.pad(heights, ((0, 0), (1, 1), (1, 1)))
    regions = np.zeros(framed.shape, np.int32)
    around = np.array([y * (w + 2) + x for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])
    for height, level, region in zip(framed.reshape(n, -1), levels, regions.reshape(n, -1), strict=True):
        inside = np.flatnonzero(height >= level)
        _flood(height, inside[np.argsort(-height[inside], kind="stable")], saddle, around, region)
    return regions[:, 1:-1, 1:-1]


@compile_with(set())
def _flood(height: Any, order: Any, saddle: float, around: Any, region: Any) -> None:
    """Number regions by their highest peak; pixels, indices into a zero-padded map, enter in the given order."""
    parent, peak = np.arange(len(order) + 1), np.full(len(order) + 1, np.inf)  # 0 is no region, and is never merged
    count = 0
    for pixel in order:
        steepest = _steepest(height, region, pixel, around)
        if steepest == pixel:
            count += 1
            region[pixel], peak[count] = count, height[pixel]
        else:
            region[pixel] = region[steepest]
            _join(region, pixel, around, parent, peak, height[pixel] / saddle)
    for pixel in order:
        region[pixel] = _root(parent, region[pixel])


@compile_with(set())
def _steepest(height: Any, region: Any, pixel: int, around: Any) -> int:
    """Return the highest flooded neighbour, or the pixel itself where there is none."""
    best = pixel
    for step in around:
        q = pixel + step
        if region[q] > 0 and (best == pixel or height[q] > height[best]):
            best = q
    return best


@compile_with(set())
def _join(region: Any, pixel: int, around: Any, parent: Any, peak: Any, low: float) -> None:
    """Merge regions that meet at a pixel, with a peak below `low`, into the highest; lower numbers are higher."""
    top = _root(parent, region[pixel])
    for step in around:
        if region[pixel + step] > 0:
            top = min(top, _root(parent, region[pixel + step]))
    for step in around:
        root = _root(parent, region[pixel + step])
        if peak[root] < low:
            parent[root] = top


@compile_with(set())
def _root(parent: Any, region: int) -> int:
    while parent[region] != region:
        region = parent[region]
    return region


def _number_heaviest(mass: Doubles, regions: NDArray[np.int32], least: float, most: int) -> NDArray[np.int8]:
    """Label (N, H, W) in each map the `most` heaviest regions of at least the least mass; the heaviest is 1."""
    masses = _masses(mass, regions)
    masses[masses < least] = 0
    order = np.argsort(-masses, 1, kind="stable")[:, :most]
    number = np.zeros((len(masses), masses.shape[1] + 1), np.int8)
    ranks = np.where(np.take_along_axis(masses, order, 1) > 0, np.arange(1, order.shape[1] + 1), 0)
    np.put_along_axis(number, order + 1, ranks.astype(np.int8), 1)
    return np.take_along_axis(number, regions.reshape(len(regions), -1), 1).reshape(regions.shape)


def _masses(mass: Doubles, labels: NDArray[np.integer[Any]]) -> Doubles:
    """Sum the mass under each of the labels 1..L, (N, L)."""
    n, count = len(labels), int(labels.max(initial=0)) + 1
    cell = labels + np.arange(n)[:, None, None] * count
    return np.asarray(np.bincount(cell.ravel(), mass.ravel(), n * count), np.float64).reshape(n, count)[:, 1:]


def _check(maps: Floats, shares: dict[str, float], least: float, most: int) -> None:
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise InputError("no maps to cut into parts", got=f"shape {maps.shape}", rule="needs (N, H, W)")
    off = np.flatnonzero(~np.isfinite(maps).all((1, 2)))
    if len(off):
        raise InputError("maps that are not finite", got=f"{len(off)} of {len(maps)}, the first is map {off[0]}")
    for name, value in shares.items():
        if not 0 < value <= 1:
            raise UsageError(f"{name} out of range", got=value, rule="above 0, at most 1")
    if not 0 <= least <= 1:
        raise UsageError("least out of range", got=least, rule="0 to 1")
    if not 1 <= most <= 127:
        raise UsageError("most out of range", got=most, rule="1 to 127 parts a map")
