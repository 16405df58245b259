"""Artifacts planted in several classes of a corpus at once, in memory: what a copy of the model is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.models.inputs import InputImages
from klarsicht.audit.quantify.units import DetectionUnits
from klarsicht.audit.synthetic import artifacts
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.seeding import generator

MOST = 0.4  # of the classes that hold something at once: p compares with the others


@dataclass(frozen=True)
class Planted:
    """One kind of artifact in one class.

    Attributes:
        kind: a name of planting.PLANTS.
        prevalence: share of the class that carries it.
        number: of the class among the groups of the examination.
    """

    kind: str
    prevalence: float
    number: int


PlantedSet = tuple[Planted, ...]


def courses(
    kinds: Sequence[str], prevalences: Sequence[float], classes: int, clean: Sequence[int], room: int,
    rng: np.random.Generator,
) -> tuple[PlantedSet, ...]:  # fmt: skip
    """Few courses that hold every kind at every prevalence in so many classes; none holds a kind or a class twice.

    Two classes with one artifact would teach that it means neither. Kinds take turns, so any that many neighbours in
    their row differ.

    Args:
        kinds: each once.
        classes: in which each kind is planted at each prevalence, one in a course.
        clean: numbers of classes to plant in.
        room: classes that may be planted at once.
    """
    size = min(room, len(kinds), len(clean))
    row = [(kind, share) for _ in range(classes) for share in prevalences for kind in kinds]
    return tuple(
        tuple(
            Planted(*pair, number)
            for pair, number in zip(row[i : i + size], rng.permutation(clean).tolist(), strict=False)
        )
        for i in range(0, len(row), size)
    )


@dataclass(frozen=True)
class PlantedGallery(InputImages):
    """A corpus through one glass, with artifacts on some rows: the same ones however often it is looked at.

    Attributes:
        kinds: row -> what is planted on it.
    """

    kinds: Mapping[int, str]
    seed: int

    def _shown(self, rows: Sequence[int] | NDArray[Any]) -> Iterator[Pixels]:
        for row, levels in zip(rows, super()._shown(rows), strict=True):
            kind = self.kinds.get(int(row))
            yield artifacts.on_levels(levels, kind, generator(self.seed, "planted", int(row))) if kind else levels


@dataclass(frozen=True)
class PlantedUnits(DetectionUnits):
    """An examination of the corpus with artifacts planted in it; `classifier` must be there.

    Attributes:
        kinds: row -> what is planted on it.
    """

    kinds: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def gallery(self) -> InputImages:
        assert self.classifier is not None
        plain = InputImages.of(self.corpus, self.classifier)
        return PlantedGallery(plain.corpus, plain.classifier, plain.glass, plain.shape, self.kinds, self.settings.seed)
