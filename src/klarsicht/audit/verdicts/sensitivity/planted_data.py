"""Corpora with artifacts planted in several classes at once, in memory, for fine-tuning a copy of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.verdicts.interventions.experiment import Predict
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.audit.verdicts.synthetic.planted_image import plant_on_levels
from klarsicht.ground.arrays import Doubles, Pixels
from klarsicht.ground.seeding import generator

MIN_CARRIERS = 2  # least images with a planted artifact: a single one has no repetition
MAX_PLANTED_SHARE = 0.4  # largest share of classes with an artifact: p compares with the others


@dataclass(frozen=True)
class Planted:
    """One kind of artifact in one class. kind: a name of audit.verdicts.synthetic.artifacts.PLANTS or of FAMILIES, of
    which the run's seed draws one artifact. prevalence: share of the images of the class that carry it. number: index
    of the class among the groups of the run."""

    kind: str
    prevalence: float
    number: int


PlantedSet = tuple[Planted, ...]


def plan_courses(
    kinds: Sequence[str], prevalences: Sequence[float], classes: int, clean: Sequence[int], room: int,
    rng: np.random.Generator,
) -> tuple[PlantedSet, ...]:  # fmt: skip
    """Distribute all kinds at all prevalences over few courses, without repeating a kind or a class in a course: two
    classes with one artifact would teach the model that it indicates neither. classes: number of classes in which each
    kind is planted at each prevalence, one per course. clean: group numbers of the classes to plant in. room: largest
    number of classes that may be planted at once."""
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
class PlantedInputImages(InputImages):
    """Images of a corpus with artifacts planted in some rows, identical at every access. kinds: row -> kind of artifact
    planted in it. seed: seed of the artifacts."""

    kinds: Mapping[int, str]
    seed: int

    def _load_levels(self, rows: Sequence[int] | NDArray[Any]) -> Iterator[Pixels]:
        for row, levels in zip(rows, super()._load_levels(rows), strict=True):
            if kind := self.kinds.get(int(row)):
                artifact = artifacts.draw_plant(kind, self.seed)
                levels = plant_on_levels(levels, artifact, generator(self.seed, "planted", int(row)))
            yield levels


@dataclass(frozen=True)
class PlantedUnits(DetectionUnits):
    """Detection units of the corpus with artifacts planted in it; `classifier` is required. kinds: row -> kind of
    artifact planted in it."""

    kinds: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def input_images(self) -> InputImages:
        assert self.classifier is not None
        plain = InputImages.of(self.corpus, self.classifier)
        return PlantedInputImages(
            plain.corpus,
            plain.classifier,
            plain.pixel_scale,
            plain.shape,
            self.kinds,
            self.settings.seed,
            cache=plain.cache,
        )

    def logits(self, rows: NDArray[np.intp], predict: Predict) -> Doubles:
        """Compute the logits (n, K) of planted images, and by another model than that of the run."""
        return np.asarray(predict(self.input_images.as_inputs(rows)), np.float64)
