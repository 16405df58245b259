"""Spectral analysis of parts: a tag moves relative to the object, and a whole map mixes both.

Parts of relevance are compared by shape and by what a middle layer sees under them, each distance over its median;
shape alone fails on real maps. Parts of one image are never neighbours. An image belongs to a cluster of parts when one
of its parts does, and that part is the cluster's mask on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.spray.clustering import Clustering, room
from klarsicht.ground.arrays import Floats, Ints
from klarsicht.numerics.imaging.persistence import Parts
from klarsicht.numerics.neighbours import METRICS, NeighbourGraph, neighbour_graph
from klarsicht.numerics.search.blocks import Metric
from klarsicht.numerics.search.joint import Aspects, Joint
from klarsicht.numerics.transport.measures import PointMeasures


@dataclass(frozen=True)
class PartGroup:
    """The parts of n images, M in all.

    Attributes:
        parts: where they are.
        shapes: M items that a metric of maps compares, none of them set aside.
        appearance: float32 (M, C), what a middle layer sees under each; see audit.relevance.part_features.
        sources: int (n,), where an image comes from; parts of one source are never neighbours.
    """

    parts: Parts
    shapes: Any
    appearance: Floats
    sources: Ints

    @classmethod
    def of(
        cls, maps: Floats, labels: Ints, appearance: Floats, sources: Ints, cut: Callable[[Floats], Any]
    ) -> PartGroup:
        """From what the store keeps of n images; parts that the metric can say nothing of are left out.

        Args:
            maps, labels: (n, G, G); `appearance`: (n, MOST, C).
            cut: what is compared of parts, given their masses (M, G, G), each on a map of its own.
        """
        parts = Parts.of(maps, labels)
        shapes = cut(parts.cut(maps)) if len(parts) else np.empty((0, 1))
        if isinstance(shapes, PointMeasures):
            parts, shapes = parts[~shapes.set_aside], shapes[~shapes.set_aside]
        return cls(parts, shapes, appearance[parts.image, parts.number - 1].astype(np.float32), sources)

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def sources_of_parts(self) -> Ints:
        """(M,)."""
        return self.sources[self.parts.image]

    @property
    def room(self) -> int:
        """How many neighbours every part may have."""
        return room(self.sources_of_parts) if len(self) else 0

    def graph(self, metric: str | Metric, k: int, seed: int) -> NeighbourGraph:
        """Neighbours by shape, under a metric of numerics.neighbours, and by appearance."""
        shape = METRICS[metric] if isinstance(metric, str) else metric
        items: Any = Aspects((self.shapes, self.appearance))
        joint = Joint((shape, METRICS["concept"]), seed)
        return neighbour_graph(items, joint, min(k, self.room), groups=self.sources_of_parts)

    def inherited(self, found: Clustering) -> Clustering:
        """Clusters of parts as clusters of images."""
        members = np.zeros((len(found.members), len(self.sources)), bool)
        cluster, part = np.nonzero(found.members)
        members[cluster, self.parts.image[part]] = True
        return found.inherited(members)

    def numbers(self, member: NDArray[np.bool_], images: Ints) -> list[list[int]]:
        """The parts of each of some images that are among members (M,), by their number on the image."""
        image, number = self.parts.image[member], self.parts.number[member]
        return [number[image == i].tolist() for i in images]

    def vectors(self, of_parts: Floats, chosen: Ints) -> Floats:
        """(n, d): of each image that of its part of the chosen number (n,), else of its heaviest part, else 0."""
        vectors = np.zeros((len(chosen), of_parts.shape[1]))
        vectors[self.parts.image[::-1]] = of_parts[::-1]  # the heaviest comes last, and stays
        own = self.parts.number == chosen[self.parts.image]
        vectors[self.parts.image[own]] = of_parts[own]
        return vectors


def centred(masses: Floats) -> Floats:
    """Maps (M, H, W) moved until their centre of mass is in the middle: rows (M, H W). What leaves the map is lost.

    Between cells by linear interpolation: whole cells would part equal shapes by how their centres are rounded.
    """
    down, right = _from_middle(masses.sum(2)), _from_middle(masses.sum(1))
    return _moved(_moved(masses, down, 1), right, 2).reshape(len(masses), -1)


def _from_middle(profiles: Floats) -> Floats:
    """(M,): cells from the middle to the centre of mass of profiles (M, L)."""
    cells = np.arange(profiles.shape[1]) - profiles.shape[1] // 2
    return np.asarray(profiles @ cells / profiles.sum(1).clip(1e-30))


def _moved(masses: Floats, shift: Floats, axis: int) -> Floats:
    """Each map moved back by its shift along the axis, zeros following."""
    whole = np.floor(shift).astype(np.int64)
    part = (shift - whole)[:, None, None]
    return (1 - part) * _taken(masses, whole, axis) + part * _taken(masses, whole + 1, axis)


def _taken(masses: Floats, shift: Ints, axis: int) -> Floats:
    length = masses.shape[axis]
    at = np.expand_dims(np.arange(length) + shift[:, None], 3 - axis)
    inside = (at >= 0) & (at < length)
    return np.where(inside, np.take_along_axis(masses, at.clip(0, length - 1), axis), 0)
