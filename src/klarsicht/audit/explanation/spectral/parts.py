"""Spectral analysis of connected parts of relevance maps: a tag moves relative to the object, and a whole map mixes
both.

Parts are compared by their shape and by their appearance in a middle layer, each distance divided by its median. An
image belongs to a cluster of parts if one of its parts does, and that part is the cluster's mask on the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.spectral.clustering import Clustering, max_neighbours
from klarsicht.ground.arrays import Floats, Ints
from klarsicht.numerics.imaging.persistence import Parts
from klarsicht.numerics.neighbours import METRICS, NeighbourGraph, neighbour_graph
from klarsicht.numerics.search.blocks import Metric
from klarsicht.numerics.search.joint import Joint, Representations
from klarsicht.numerics.transport.measures import PointMeasures


@dataclass(frozen=True)
class PartGroup:
    """The parts of n images, M in all: image, number and mask of each, M shapes that a metric of maps compares, float32
    (M, C) of their appearance in the middle layer (see part_features), and the source index of each image; parts of one
    source are never neighbours."""

    parts: Parts
    shapes: Any
    appearance: Floats
    sources: Ints

    @classmethod
    def of(
        cls, maps: Floats, labels: Ints, appearance: Floats, sources: Ints, cut: Callable[[Floats], Any]
    ) -> PartGroup:
        """Collect the parts of n images from stored maps and labels (n, G, G) and appearance (n, m, C), without parts
        to which the metric does not apply. `cut` makes the items that are compared of the masses (M, G, G) of parts,
        each on a map of its own."""
        parts = Parts.of(maps, labels)
        shapes = cut(parts.mask_relevance(maps)) if len(parts) else np.empty((0, 1))
        if isinstance(shapes, PointMeasures):
            parts, shapes = parts[~shapes.set_aside], shapes[~shapes.set_aside]
        return cls(parts, shapes, appearance[parts.image, parts.number - 1].astype(np.float32), sources)

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def sources_of_parts(self) -> Ints:
        """Source index of each part, int (M,)."""
        return self.sources[self.parts.image]

    @property
    def max_neighbours(self) -> int:
        """Number of neighbours that every part can have."""
        return max_neighbours(self.sources_of_parts) if len(self) else 0

    def graph(self, metric: str | Metric, k: int, seed: int) -> NeighbourGraph:
        """Build the k-nearest-neighbour graph by shape, under a metric of numerics.neighbours, and appearance."""
        shape = METRICS[metric] if isinstance(metric, str) else metric
        items: Any = Representations((self.shapes, self.appearance))
        joint = Joint((shape, METRICS["concept"]), seed)
        return neighbour_graph(items, joint, min(k, self.max_neighbours), groups=self.sources_of_parts)

    def image_clusters(self, clustering: Clustering) -> Clustering:
        """Convert clusters of parts to clusters of images."""
        members = np.zeros((len(clustering.members), len(self.sources)), bool)
        cluster, part = np.nonzero(clustering.members)
        members[cluster, self.parts.image[part]] = True
        return clustering.restrict(members)

    def part_numbers(self, member: NDArray[np.bool_], images: Ints) -> list[list[int]]:
        """List the part numbers of each of some images that are among members, bool (M,)."""
        image, number = self.parts.image[member], self.parts.number[member]
        return [number[image == i].tolist() for i in images]

    def vectors(self, of_parts: Floats, numbers: Ints) -> Floats:
        """Select one part vector of (M, d) per image, (n, d): of the part number `numbers`, int (n,), else of the
        heaviest part, else 0."""
        vectors = np.zeros((len(numbers), of_parts.shape[1]))
        vectors[self.parts.image[::-1]] = of_parts[::-1]  # reversed, so that the heaviest part is assigned last
        own = self.parts.number == numbers[self.parts.image]
        vectors[self.parts.image[own]] = of_parts[own]
        return vectors


def centre_by_mass(masses: Floats) -> Floats:
    """Shift maps (M, H, W) so that their centre of mass is in the middle; return them as M rows of H W values. Mass
    shifted beyond the map is lost. Shifts between cells are interpolated linearly, so that equal shapes stay equal."""
    down, right = _offset_from_middle(masses.sum(2)), _offset_from_middle(masses.sum(1))
    return _shift_back(_shift_back(masses, down, 1), right, 2).reshape(len(masses), -1)


def _offset_from_middle(profiles: Floats) -> Floats:
    """Compute the offset in cells, (M,), from the middle to the centre of mass of profiles (M, n)."""
    cells = np.arange(profiles.shape[1]) - profiles.shape[1] // 2
    return np.asarray(profiles @ cells / profiles.sum(1).clip(1e-30))


def _shift_back(masses: Floats, shift: Floats, axis: int) -> Floats:
    """Shift each map back by its offset along an axis, linearly interpolated and filled with zeros."""
    whole = np.floor(shift).astype(np.int64)
    part = (shift - whole)[:, None, None]
    return (1 - part) * _take_shifted(masses, whole, axis) + part * _take_shifted(masses, whole + 1, axis)


def _take_shifted(masses: Floats, shift: Ints, axis: int) -> Floats:
    """Shift each map back by an integer offset along an axis, filled with zeros."""
    length = masses.shape[axis]
    at = np.expand_dims(np.arange(length) + shift[:, None], 3 - axis)
    inside = (at >= 0) & (at < length)
    return np.where(inside, np.take_along_axis(masses, at.clip(0, length - 1), axis), 0)
