"""Fit corrections in closed form on the part `fit` of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

from klarsicht.audit.cleaning.corrections.activations import (
    Activations,
    Correction,
    compute_activations_at,
    compute_layer_inputs,
    compute_logits,
)
from klarsicht.audit.cleaning.corrections.clarc import Erasure, Gate, WhenPredicted
from klarsicht.audit.cleaning.corrections.directions import fit_direction, random_direction
from klarsicht.audit.cleaning.corrections.feature_inpainting import (
    MOST_ACTIVATIONS,
    MOST_FITTED,
    FeatureInpainting,
    check_located,
    fit_inpainting,
)
from klarsicht.audit.cleaning.corrections.restoration import (
    CARRIER_FALSE_ALARMS,
    Restoration,
    feature_axes,
    fit_restoration,
    read_rows,
)
from klarsicht.audit.cleaning.corrections.samples import Images, Sample
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.correction_tensors import correction_tensors, first_convolution
from klarsicht.audit.verdicts.interventions.insertion import Insertion, put_on
from klarsicht.ground.arrays import Bools, Floats
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.seeding import generator
from klarsicht.numerics import erasure
from klarsicht.numerics.erasure import Eraser

ROWS: Final = 20_000  # of activations, from which a covariance is estimated
MOST_DIRECTIONS: Final = 8  # of an artifact, along which features are computed in any case
PASS_BYTES: Final = 512 * 2**20  # of positions that are kept of all layers of one pass


@dataclass(frozen=True)
class CorrectionParameters:
    """Parameters of a correction that are swept. layer: layer whose input is corrected; "" where the correction has
    none. strength: s of an erasure, the factor lambda of a penalty, or of a restoration the factor on the share of
    false alarms."""

    layer: str = ""
    directions: int = 1
    strength: float = 1.0


@dataclass(frozen=True)
class TokenStatistics:
    """Statistics of an artifact at the positions of a layer's input, or at one token before them. first: the direction
    (C,) of the artifact; zero where a token is the same for all images. effects: (m, C), changes by pasting the
    artifact; without pasted images, members minus z. covariance, reference: (C, C) of clean positions, and their mean z
    (C,). carried: (C,), mean of the members."""

    first: Floats
    effects: Floats
    covariance: Floats
    reference: Floats
    carried: Floats

    def directions(self, k: int) -> Floats:
        """Return at most k directions (C, k): the first, and those of the largest effects orthogonal to it."""
        return self.first[:, None] if k == 1 else self._axes[:, :k]

    @cached_property
    def _axes(self) -> Floats:
        return erasure.principal_directions(self.effects, self.covariance, len(self.first), self.first)


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of an artifact at the input of one layer: at its positions, and at each token before them. channels:
    axis of the channels of an input of four axes, 1 or -1. members, pasted, clean: activations pooled over positions,
    for the gate."""

    positions: TokenStatistics
    leading: tuple[TokenStatistics, ...]
    channels: int
    members: Floats
    pasted: Floats
    clean: Floats

    def make_erasure(self, setting: CorrectionParameters, make: MakeEraser, pooled: bool = False) -> Erasure:
        """Make the erasure of a setting, with an eraser for the positions and for each token before them."""
        leading = tuple(make(t, setting.directions) if t.first.any() else _no_eraser(t) for t in self.leading)
        eraser = make(self.positions, setting.directions)
        return Erasure(setting.layer, eraser, setting.strength, pooled, channels=self.channels, leading=leading)

    @cached_property
    def gate(self) -> Gate:
        """Gate fitted by logistic regression of carrying the artifact on pooled activations."""
        carrying = np.concatenate([self.members, self.pasted])
        a, member = np.concatenate([carrying, self.clean]), np.arange(len(carrying) + len(self.clean)) < len(carrying)
        scale = np.maximum(a.std(0), 1e-6)
        fit = LogisticRegression(C=10, max_iter=2000).fit(a / scale, member)
        return Gate((fit.coef_[0] / scale).astype(np.float32), float(fit.intercept_[0]))


MakeEraser = Callable[[TokenStatistics, int], Eraser]
"""Function from statistics and a number of directions to an eraser."""


def _no_eraser(known: TokenStatistics) -> Eraser:
    nothing = np.zeros((len(known.reference), 1))
    return Eraser(nothing, nothing.T, np.asarray(known.reference, np.float64))


@dataclass(frozen=True)
class FittingData:
    """Data and settings that corrections are fitted on. fit: the sample of the part `fit`, and no other images.
    insertion: inserts the artifact into images, or None. kind: of direction, a name of
    audit.cleaning.corrections.directions.DIRECTIONS. pooled: whether the amount is measured on the mean over positions.
    larger: a larger sample of that part for a training; None: `fit`. steps, batch, rate: steps, images in a batch and
    highest learning rate of a training. fewest_clean: clean images of the class that members are compared with, at
    least; else with all clean images."""

    classifier: Classifier
    target: int
    fit: Sample
    insertion: Insertion | None
    kind: str = "pattern"
    pooled: bool = False
    seed: int = 0
    larger: Sample | None = None
    steps: int = 300
    batch: int = 64
    rate: float = 3e-4
    fewest_clean: int = 1

    _oblique: dict[CorrectionParameters, Erasure] = field(init=False, default_factory=dict)  # shared by some methods
    _restorations: dict[str, Restoration] = field(init=False, default_factory=dict)  # by layer, shared by all strengths
    _by_layer: dict[str, LayerStatistics | InputError | UsageError] = field(init=False, default_factory=dict)

    @property
    def training_sample(self) -> Sample:
        """Sample to train on."""
        return self.fit if self.larger is None else self.larger

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """Right output (n,) of each image of the training sample; the model's prediction where it is unknown."""
        labels = np.asarray(self.training_sample.labels, np.int64)
        if (labels >= 0).all():
            return labels
        return np.where(labels >= 0, labels, compute_logits(self.classifier, self.training_sample.images).argmax(1))

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Layers and sums that are tried, see audit.cleaning.corrections.clarc."""
        return correction_tensors(self.classifier, self.fit.images[0])

    @cached_property
    def first_layers(self) -> tuple[str, ...]:
        """The first convolution, whose input is the image, where it is not among `layers`."""
        first = first_convolution(self.classifier.module)
        return (first,) if first and first not in self.layers else ()

    def _clean_to_paste(self, clean: Bools, draw: str) -> tuple[Sample, Insertion, np.random.Generator]:
        """Return the images among those of `clean` that the artifact can be put on, and what puts it there. Raises
        InputError if there are none."""
        found, insertion = self.fit.select(clean & ~self.fit.member), self.insertion
        able = np.array([insertion is not None and insertion.fits(image) for image in found.images], bool)
        if insertion is None or not able.any():
            raise InputError(
                "the artifact cannot be inserted into images", got="neither a place nor an imitation",
                remedy="Use an erasure.",
            )  # fmt: skip
        return found.select(able), insertion, generator(self.seed, draw, self.target)

    @cached_property
    def pasted_pairs(self) -> tuple[Images, Images]:
        """Clean images of one shape, at most MOST_FITTED, and the same with the artifact."""
        able, insertion, rng = self._clean_to_paste(self.fit.fair_draw, "located")
        alike = [image for image in able.images if image.shape == able.images[0].shape]
        chosen = [alike[i] for i in np.sort(rng.permutation(len(alike))[:MOST_FITTED])]
        return chosen, [put_on(image, insertion, rng) for image in chosen]

    @cached_property
    def restored_pairs(self) -> tuple[Images, Images, Bools]:
        """Clean images, those of the class too, the same with the artifact, and whether they are of the class."""
        able, insertion, rng = self._clean_to_paste(~self.fit.member, "restored")
        return able.images, [put_on(image, insertion, rng) for image in able.images], able.labels == self.target

    def layer_statistics(self, layer: str) -> LayerStatistics:
        """Return the statistics of a layer, computed once. Raises InputError if members do not differ from the others
        there."""
        self.fit_layers((layer,))
        found = self._by_layer[layer]
        if isinstance(found, LayerStatistics):
            return found
        raise found

    def fit_layers(self, layers: Sequence[str]) -> None:
        """Compute the statistics of several layers in passes of the images that keep the activations below PASS_BYTES;
        errors are kept for `layer_statistics`."""
        missing = [layer for layer in layers if layer not in self._by_layer]
        if not missing:
            return
        clean, drawn = self.fit.select(~self.fit.member), generator(self.seed, "paste", self.target)
        pasted = self._pasted_images(clean, drawn)
        for some in self._passes(missing, len(clean) * (1 if pasted is None else 2)):
            seen = compute_activations_at(self.classifier, self.fit.images, some, draws=False)
            plain = compute_activations_at(self.classifier, clean.images, some)
            # the same positions as without
            under = {} if pasted is None else compute_activations_at(self.classifier, pasted, some)
            for layer in some:
                known = seen.pop(layer), plain.pop(layer), under.pop(layer, None)
                try:
                    self._by_layer[layer] = self._fit_layer(clean, *known, deepcopy(drawn))
                except (InputError, UsageError) as error:
                    self._by_layer[layer] = error.with_traceback(None)  # whose frames would keep the activations

    def _passes(self, layers: Sequence[str], n: int) -> Iterator[list[str]]:
        """Divide layers into passes whose positions of n images take PASS_BYTES at most."""
        some: list[str] = []
        taken = 0
        for layer, one in compute_activations_at(self.classifier, self.fit.images[:1], layers).items():
            size = n * one.positions.nbytes
            if some and taken + size > PASS_BYTES:
                yield some
                some, taken = [], 0
            some.append(layer)
            taken += size
        yield some

    @cached_property
    def compared_rows(self) -> Bools:
        """Members, and the images they are compared with, bool (n,): clean images of the class; where there are fewer
        than `fewest_clean`, all clean images. Copies are compared with the images that they are copies of."""
        if self.fit.paired:
            return np.isin(self.fit.sources, self.fit.sources[self.fit.member])
        own = ~self.fit.member & (self.fit.labels == self.target)
        return np.asarray(self.fit.member | (own if own.sum() >= self.fewest_clean else ~self.fit.member))

    def _fit_layer(
        self,
        clean: Sample,
        seen: Activations,
        plain: Activations,
        under: Activations | None,
        drawn: np.random.Generator,
    ) -> LayerStatistics:
        """Compute the statistics of a layer from activations of the sample, and of its clean images without and with
        the artifact."""
        member, rng = self.fit.member, generator(self.seed, "rows", self.target)

        def statistics(own: Activations, plain: Activations, under: Activations | None) -> TokenStatistics:
            z, carried = plain.pooled.mean(0), own.pooled[member].mean(0)
            changes = None if under is None else under.positions - plain.positions
            effects = own.pooled[member] - z if changes is None else _draw_changes(changes, drawn)
            rows = plain.positions[rng.permutation(len(plain.positions))[:ROWS]]
            return TokenStatistics(self._first(own.pooled), effects, erasure.covariance(rows), z, carried)

        found = statistics(seen, plain, under)
        leading = tuple(
            statistics(seen.token(i), plain.token(i), under and under.token(i))
            if _varies(seen.leading[:, i])
            else _constant(plain.leading[:, i])
            for i in range(plain.leading.shape[1])
        )
        pasted = seen.pooled[:0] if under is None else under.pooled[clean.labels != self.target]
        return LayerStatistics(found, leading, plain.channels, seen.pooled[member], pasted, plain.pooled)

    def _first(self, a: Floats) -> Floats:
        """Fit the direction of the artifact from activations (n, C) of the sample."""
        inside = self.compared_rows
        return fit_direction(self.kind, a[inside], self.fit.member[inside], self.fit.sources[inside])

    def _pasted_images(self, clean: Sample, rng: np.random.Generator) -> Images | None:
        """Put the artifact on clean images; None where it cannot be, or no image is of another class."""
        others = bool((clean.labels != self.target).any())
        if self.insertion is None or not others or not all(map(self.insertion.fits, clean.images)):
            return None
        return [put_on(image, self.insertion, rng) for image in clean.images]


LayerCorrection = Erasure | FeatureInpainting
"""Correction of the input of one layer, or of a sum, which can be built in as a layer of its own."""


@dataclass(frozen=True)
class JointCorrection:
    """Erasures and inpaintings that are applied together, at one layer in this order: they do not commute in general.
    Without parts the model is unchanged."""

    parts: tuple[LayerCorrection, ...] = ()

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Correct the module inside the context only; its weights do not change."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.applied(module))
            yield module

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the parts matters: two of them are at one layer."""
        return len({part.layer for part in self.parts}) < len(self.parts)


@dataclass(frozen=True)
class CorrectionMethod:
    """Method to correct a model. make: function that fits a correction from data and parameters. sweeps: names of the
    parameters that the method uses. baseline: whether it only serves as a comparison. at_image: whether the input of
    the first convolution is tried as well."""

    make: Callable[[FittingData, CorrectionParameters], Correction]
    sweeps: frozenset[str] = frozenset()
    baseline: bool = False
    at_image: bool = False


def nothing(data: FittingData, setting: CorrectionParameters) -> Correction:
    """Leave the model unchanged."""
    return JointCorrection()


def project(data: FittingData, setting: CorrectionParameters) -> Erasure:
    """Fit an orthogonal projection along the directions (P-ClArC)."""
    known = data.layer_statistics(setting.layer)
    return known.make_erasure(
        setting, lambda t, k: erasure.orthogonal_eraser(t.directions(k), t.reference), data.pooled
    )


def oblique(data: FittingData, setting: CorrectionParameters) -> Erasure:
    """Fit an oblique projection along the directions that changes clean activations least (the form of LEACE)."""
    if setting not in data._oblique:
        known = data.layer_statistics(setting.layer)
        data._oblique[setting] = known.make_erasure(
            setting, lambda t, k: erasure.oblique_eraser(t.directions(k), t.covariance, t.reference), data.pooled
        )
    return data._oblique[setting]


def reactive(data: FittingData, setting: CorrectionParameters) -> Erasure:
    """Fit an oblique projection that is multiplied by the gate of the same layer."""
    return replace(oblique(data, setting), gate=data.layer_statistics(setting.layer).gate)


def reactive_class(data: FittingData, setting: CorrectionParameters) -> WhenPredicted:
    """Fit an oblique projection for images that the model predicts as the class."""
    return WhenPredicted(oblique(data, setting), data.target)


def restore(data: FittingData, setting: CorrectionParameters) -> Erasure:
    """Fit a restoration of the images that are recognised as carriers; at strength s, CARRIER_FALSE_ALARMS s of the
    images without the artifact are. Raises InputError: the artifact cannot be put on images; or see fit_restoration."""
    layer = setting.layer
    if layer not in data._restorations:
        *pairs, own = data.restored_pairs
        statistics = data.layer_statistics(layer).positions
        axes = feature_axes(statistics.covariance, statistics.directions(MOST_DIRECTIONS))
        plain, carriers = (read_rows(data.classifier, images, layer, axes) for images in pairs)
        rng = generator(data.seed, f"folds at {layer}", data.target)
        data._restorations[layer] = fit_restoration(layer, plain, carriers, own, axes, rng)
    return data._restorations[layer].make_erasure(CARRIER_FALSE_ALARMS * setting.strength)


def inpaint(data: FittingData, setting: CorrectionParameters) -> FeatureInpainting:
    """Fit a locator of the artifact's window in each image, which is filled from around it. Raises InputError: see
    fit_inpainting and check_located."""
    clean, pasted = data.pasted_pairs
    one, _ = compute_layer_inputs(data.classifier, clean[:1], setting.layer)
    n = max(2, min(len(clean), MOST_ACTIVATIONS // one.numel()))
    plain, axis = compute_layer_inputs(data.classifier, clean[:n], setting.layer)
    under, _ = compute_layer_inputs(data.classifier, pasted[:n], setting.layer)
    aspect = clean[0].shape[-2] / clean[0].shape[-1]
    rng = generator(data.seed, f"windows at {setting.layer}", data.target)
    found = fit_inpainting(setting.layer, plain, under, axis, aspect, rng)
    carrying = [] if data.fit.paired else data.fit.select(data.fit.member).images  # those of pairs are copies
    if members := [one for one in carrying if one.shape == clean[0].shape][:n]:
        check_located(found, compute_layer_inputs(data.classifier, members, setting.layer)[0])
    return found


def random(data: FittingData, setting: CorrectionParameters) -> Erasure:
    """Project along a random direction: a control that must not help."""
    rng = generator(data.seed, "random direction", data.target)

    def make(known: TokenStatistics, k: int) -> Eraser:
        return erasure.orthogonal_eraser(random_direction(len(known.reference), rng)[:, None], known.reference)

    return data.layer_statistics(setting.layer).make_erasure(setting, make, data.pooled)


def _draw_changes(effects: Floats, rng: np.random.Generator) -> Floats:
    """Draw at most ROWS of those changes (n, C) that are not zero."""
    moved = effects[np.abs(effects).max(1) > 1e-6 * max(float(np.abs(effects).max()), 1e-30)]
    return np.asarray(moved[rng.permutation(len(moved))[:ROWS]], np.float64)


def _varies(a: Floats) -> bool:
    """Test whether activations (n, C) of a token differ between images."""
    return bool((np.ptp(a, axis=0) > 1e-6 * max(float(np.abs(a).max()), 1e-30)).any())


def _constant(a: Floats) -> TokenStatistics:
    """Return the statistics of a token that is the same for all images, (n, C)."""
    z = a.mean(0)
    return TokenStatistics(np.zeros(len(z)), np.zeros((0, len(z))), np.eye(len(z)), z, z)


SWEPT = frozenset({"layer", "directions", "strength"})
CLOSED: dict[str, CorrectionMethod] = {
    "nothing": CorrectionMethod(nothing, baseline=True),
    "project": CorrectionMethod(project, SWEPT),
    "oblique": CorrectionMethod(oblique, SWEPT),
    "reactive": CorrectionMethod(reactive, SWEPT),
    "reactive-class": CorrectionMethod(reactive_class, SWEPT),
    "restore": CorrectionMethod(restore, frozenset({"layer", "strength"})),
    "inpaint": CorrectionMethod(inpaint, frozenset({"layer"}), at_image=True),
    "random": CorrectionMethod(random, frozenset({"layer"}), baseline=True),
}
ERASING: dict[str, CorrectionMethod] = {name: CLOSED[name] for name in ("project", "oblique", "reactive")}
"""Methods whose corrections are erasures at a layer: they are tried at further layers beside another."""
COMPOSED: dict[str, CorrectionMethod] = ERASING | {name: CLOSED[name] for name in ("restore", "inpaint")}
"""Methods whose corrections are layers: several can be built into one model."""
