"""Corrections in closed form, fitted on the part `fit` of a case."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

from klarsicht.audit.corrections.activations import Activations, Correction, activations, logits
from klarsicht.audit.corrections.clarc import Erasure, Gate, WhenPredicted, correction_layers
from klarsicht.audit.corrections.directions import direction, random_direction
from klarsicht.audit.corrections.samples import Sample
from klarsicht.audit.interventions.overlay import Insertion
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.arrays import Floats
from klarsicht.ground.seeding import generator
from klarsicht.numerics import erasure
from klarsicht.numerics.erasure import Eraser

ROWS: Final = 20_000  # of activations, from which a covariance is estimated


@dataclass(frozen=True)
class CorrectionParameters:
    """What is swept.

    Attributes:
        layer: at whose input; "" where the correction has none.
        directions: how many.
        strength: s of an erasure, lambda of a penalty; a factor.
    """

    layer: str = ""
    directions: int = 1
    strength: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class LayerStatistics:
    """What one layer knows of an artifact.

    Attributes:
        first: the direction (C,).
        effects: (m, C), what the artifact adds to positions of pasted images; where there are none, members less z.
        covariance: (C, C), of clean positions. reference: z (C,), their mean.
        members, pasted, clean: pooled activations, for a gate.
    """

    first: Floats
    effects: Floats
    covariance: Floats
    reference: Floats
    members: Floats
    pasted: Floats
    clean: Floats

    def directions(self, k: int) -> Floats:
        """(C, k) or fewer: the first, and those in which effects are largest beside it."""
        return self.first[:, None] if k == 1 else self._axes[:, :k]

    @cached_property
    def _axes(self) -> Floats:
        return erasure.principal(self.effects, self.covariance, len(self.first), self.first)

    @cached_property
    def gate(self) -> Gate:
        """A logistic regression of carrying the artifact on pooled activations."""
        carrying = np.concatenate([self.members, self.pasted])
        a, member = np.concatenate([carrying, self.clean]), np.arange(len(carrying) + len(self.clean)) < len(carrying)
        scale = np.maximum(a.std(0), 1e-6)
        fit = LogisticRegression(C=10, max_iter=2000).fit(a / scale, member)
        return Gate((fit.coef_[0] / scale).astype(np.float32), float(fit.intercept_[0]))


@dataclass(frozen=True)
class FittingData:
    """What corrections are fitted on.

    Attributes:
        fit: the sample of the part `fit`, and nothing else.
        putting: puts the artifact on images, or None.
        kind: of direction, a name of audit.corrections.directions.DIRECTIONS.
        pooled: erase by the mean over positions.
        more: a larger sample of that part, to train on; `fit` where there is none.
        steps, batch, rate: of a training.
    """

    classifier: Classifier
    target: int
    fit: Sample
    putting: Insertion | None
    kind: str = "pattern"
    pooled: bool = False
    seed: int = 0
    more: Sample | None = None
    steps: int = 300
    batch: int = 64
    rate: float = 3e-4

    @property
    def lessons(self) -> Sample:
        return self.fit if self.more is None else self.more

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """The right output of each lesson; where unknown, what the model says."""
        labels = np.asarray(self.lessons.labels, np.int64)
        if (labels >= 0).all():
            return labels
        return np.where(labels >= 0, labels, logits(self.classifier, self.lessons.images).argmax(1))

    @property
    def layers(self) -> tuple[str, ...]:
        """Those worth a try."""
        return correction_layers(self.classifier.module, self.classifier.head)

    @cached_property
    def _kept(self) -> dict[str, LayerStatistics]:
        return {}

    def at(self, layer: str) -> LayerStatistics:
        """What a layer knows, looked at once."""
        if layer not in self._kept:
            self._kept[layer] = self._fitted(layer)
        return self._kept[layer]

    @cached_property
    def compared(self) -> NDArray[np.bool_]:
        """Members and those they are compared with: clean images of the class; where it has none, all clean ones."""
        own = ~self.fit.member & (self.fit.labels == self.target)
        return np.asarray(self.fit.member | (own if own.any() else ~self.fit.member))

    def _fitted(self, layer: str) -> LayerStatistics:
        member, rng = self.fit.member, generator(self.seed, "rows", self.target)
        seen = activations(self.classifier, self.fit.images, layer)
        pooled = seen.pooled
        inside = self.compared
        first = direction(self.kind, pooled[inside], member[inside], self.fit.sources[inside])
        clean = self.fit.of(~member)
        plain = activations(self.classifier, clean.images, layer)
        effects, pasted = self._effects(layer, clean, plain, pooled[member])
        rows = plain.positions[rng.permutation(len(plain.positions))[:ROWS]]
        z = plain.pooled.mean(0)
        return LayerStatistics(first, effects, erasure.covariance(rows), z, pooled[member], pasted, plain.pooled)

    def _effects(self, layer: str, clean: Sample, plain: Activations, members: Floats) -> tuple[Floats, Floats]:
        other = np.flatnonzero(clean.labels != self.target)
        if self.putting is None or not len(other) or not all(map(self.putting.fits, clean.images)):
            return members - plain.pooled.mean(0), members[:0]
        rng = generator(self.seed, "paste", self.target)
        images = [self.putting.paste(image, rng) for image in clean.images]
        under = activations(self.classifier, images, layer)  # the same positions as without
        moved = under.positions - plain.positions
        moved = moved[np.abs(moved).max(1) > 1e-6 * max(float(np.abs(moved).max()), 1e-30)]
        return moved[rng.permutation(len(moved))[:ROWS]].astype(np.float64), under.pooled[other]


@dataclass(frozen=True)
class Nothing:
    """The model as it is."""

    def applied(self, module: nn.Module) -> AbstractContextManager[nn.Module]:
        return nullcontext(module)


@dataclass(frozen=True)
class CorrectionMethod:
    """A way to correct a model.

    Attributes:
        make: a correction from what it is fitted on and a setting.
        sweeps: which fields of a setting it has.
        baseline: there to be compared with.
    """

    make: Callable[[FittingData, CorrectionParameters], Correction]
    sweeps: frozenset[str] = frozenset()
    baseline: bool = False


def nothing(bench: FittingData, setting: CorrectionParameters) -> Correction:
    return Nothing()


def project(bench: FittingData, setting: CorrectionParameters) -> Erasure:
    """P-ClArC: straight along the directions."""
    known = bench.at(setting.layer)
    return _erasure(bench, setting, erasure.orthogonal(known.directions(setting.directions), known.reference))


def oblique(bench: FittingData, setting: CorrectionParameters) -> Erasure:
    """Along the directions, and so that clean activations move least (LEACE's form)."""
    known = bench.at(setting.layer)
    V = known.directions(setting.directions)
    return _erasure(bench, setting, erasure.oblique(V, known.covariance, known.reference))


def reactive(bench: FittingData, setting: CorrectionParameters) -> Erasure:
    """Oblique, as far as a detector at the same layer says that the image carries the artifact."""
    return replace(oblique(bench, setting), gate=bench.at(setting.layer).gate)


def reactive_class(bench: FittingData, setting: CorrectionParameters) -> WhenPredicted:
    """Oblique, for images that the model takes for the class."""
    return WhenPredicted(oblique(bench, setting), bench.target)


def random(bench: FittingData, setting: CorrectionParameters) -> Erasure:
    """A direction without meaning: a control that must not help."""
    known = bench.at(setting.layer)
    v = random_direction(len(known.reference), generator(bench.seed, "random direction", bench.target))
    return _erasure(bench, setting, erasure.orthogonal(v[:, None], known.reference))


def _erasure(bench: FittingData, setting: CorrectionParameters, eraser: Eraser) -> Erasure:
    return Erasure(setting.layer, eraser, setting.strength, bench.pooled)


SWEPT = frozenset({"layer", "directions", "strength"})
CLOSED: dict[str, CorrectionMethod] = {
    "nothing": CorrectionMethod(nothing, baseline=True),
    "project": CorrectionMethod(project, SWEPT),
    "oblique": CorrectionMethod(oblique, SWEPT),
    "reactive": CorrectionMethod(reactive, SWEPT),
    "reactive-class": CorrectionMethod(reactive_class, SWEPT),
    "random": CorrectionMethod(random, frozenset({"layer"}), baseline=True),
}
