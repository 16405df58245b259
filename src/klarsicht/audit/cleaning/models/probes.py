"""Measure whether an artifact is still represented: by a new classifier, the share of relevance on it, and a second
audit.

A linear probe at an erased layer is at chance by algebra; the probe is therefore a small neural network, and later
layers are probed as well.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from klarsicht.audit.cleaning.corrections.activations import (
    Correction,
    apply_correction,
    compute_activations,
    compute_logits,
    split_batches,
)
from klarsicht.audit.cleaning.corrections.samples import Images, Sample
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.forward import centre_targets
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.spectral import clustering
from klarsicht.audit.explanation.spectral.clustering import MIN_DEVIATION, MIN_IMAGES, Clustering, TargetLogits
from klarsicht.audit.results.ranking import MATERIAL
from klarsicht.audit.verdicts.interventions.insertion import Insertion, put_on
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.ground.arrays import Bools, Floats
from klarsicht.numerics.clustering.candidates import SWEEPS
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Z95, Interval, mean_interval

HIDDEN: Final = 64
GRADIENT_BATCH: Final = 16
ROUNDING: Final = 1e-5  # of the largest activation


@dataclass(frozen=True)
class CarrierLabels:
    """Images, and whether each carries the artifact, bool (n,): members do, and pasted copies."""

    images: Images
    carries: Bools

    @classmethod
    def of(cls, sample: Sample, insertion: Insertion | None, target: int, seed: int) -> CarrierLabels:
        """Paste the artifact into a random half of the clean images of other classes, where it can be put on all
        images."""
        rng = np.random.default_rng(seed)
        pasted = rng.random(len(sample)) < 0.5
        usable = insertion is not None and all(insertion.fits(image) for image in sample.images)
        on = ~sample.member & (sample.labels != target) & pasted if usable else np.zeros(len(sample), bool)
        images = [put_on(i, insertion, rng) if o and insertion else i for i, o in zip(sample.images, on, strict=True)]
        return cls(images, sample.member | on)


def probe_layer(
    classifier: Classifier, correction: Correction | None, layer: str, train: CarrierLabels, shown: CarrierLabels,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """Measure the balanced accuracy of a new network, trained on other images than it is tested on, at detecting the
    artifact in the input of a layer; 0.5 is chance."""
    if min(map(len, (np.unique(train.carries), np.unique(shown.carries)))) < 2:
        return NO_INTERVAL
    X, Y = (_probe_inputs(classifier, part.images, layer, correction) for part in (train, shown))
    grain = ROUNDING * max(float(np.abs(X).max()), 1e-30)  # erased features are constant up to rounding
    X, Y = np.round(X / grain), np.round(Y / grain)
    fit = make_pipeline(StandardScaler(), MLPClassifier((HIDDEN,), alpha=0.01, max_iter=200, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # training stops after 200 rounds
        right = fit.fit(X, train.carries).predict(Y) == shown.carries
    return balanced_accuracy(right, shown.carries)


def balanced_accuracy(right: Bools, carries: Bools) -> Interval:
    """Compute the mean of the accuracies on carriers and on the others, with a 95 % interval."""
    shares = [(right[side].mean(), side.sum()) for side in (carries, ~carries)]
    value = float(np.mean([p for p, _ in shares]))
    variance = sum((p * (1 - p) + 1 / (4 * n)) / n for p, n in shares) / 4  # never 0: no observed error is no certainty
    half = Z95 * float(np.sqrt(variance))
    return Interval(value, max(value - half, 0), min(value + half, 1), len(right))


def _probe_inputs(classifier: Classifier, images: Images, layer: str, correction: Correction | None) -> Floats:
    """Compute the features of the probe: pooled activations, where there are positions their spread, and the tokens
    before these."""
    found = compute_activations(classifier, images, layer, correction)
    if not found.has_positions:
        return found.pooled
    return np.concatenate([found.pooled, found.spread, found.leading.reshape(len(images), -1)], 1)


def relevance_share(
    classifier: Classifier, images: Images, place: Overlay, target: int, correction: Correction | None, seed: int = 0
) -> Interval:
    """Compute the share of |gradient x input| for the class that lies on the artifact, pasted into these images."""
    rng = np.random.default_rng(seed)
    drawn = [place.draw_number(rng) for _ in images]
    masks = torch.from_numpy(place.masks[drawn])
    pasted = [place.blend(image, i) for image, i in zip(images, drawn, strict=True)]
    with evaluation_mode(classifier.module), apply_correction(classifier.module, correction):
        batches = map(list, split_batches(pasted, GRADIENT_BATCH))
        maps = torch.cat([_gradient_times_input(classifier, torch.stack(batch), target) for batch in batches])
    total = maps.flatten(1).sum(1).clamp(min=1e-30)
    return mean_interval(((maps * masks).flatten(1).sum(1) / total).double().numpy())


def _gradient_times_input(classifier: Classifier, x: Tensor, target: int) -> Tensor:
    """Compute |gradient x input| of the centred logit, summed over channels (B, H, W)."""
    x = x.to(classifier.device).requires_grad_()
    targets = torch.full((len(x),), target, device=x.device)
    (slope,) = torch.autograd.grad(centre_targets(classifier.logits(x), targets).sum(), x)
    return (x * slope).abs().sum(1).detach().cpu()


@dataclass(frozen=True)
class SecondAudit:
    """Result of an audit of the test images.

    Attributes:
        z: rise of the suspect cluster in standard deviations of the other images.
        found: F1 of the suspect cluster against the members.
        members: rise of the members, likewise.
        shift: rise of the suspect cluster in logits; 0 without one.
        floor: the least material rise: MATERIAL of the standard deviation of the class's evidence before the
            correction, or rounding.
        varies: whether the class's evidence varies between images by more than rounding.
    """

    z: float
    found: float
    members: float
    shift: float
    floor: float
    varies: bool

    @property
    def suspect(self) -> bool:
        """Whether the suspect cluster consists of the members and raises the class materially."""
        return self.found > 0.5 and self.z > 1 and self.shift > self.floor

    @property
    def summary(self) -> str:
        """The result in a few words."""
        if not self.varies:
            return "the class score does not vary"
        return f"group {'found again' if self.suspect else 'not found again'} (z {self.z:.1f}, F1 {self.found:.2f})"


def audit_again(
    classifier: Classifier, sample: Sample, target: int, correction: Correction | None, seed: int = 0
) -> SecondAudit | None:
    """Audit members and clean images of the class by head relevance; None where they are too few."""
    own = sample.labels == target
    shown = sample.select(sample.member | own if (own & ~sample.member).any() else sample.member | sample.fair_draw)
    two_groups = 0 < shown.member.sum() < len(shown)
    if len(shown) < MIN_IMAGES or not two_groups or clustering.max_neighbours(shown.sources) < 2:
        return None
    before, evidence = (
        TargetLogits.of(compute_logits(classifier, shown.images, c), target, shown.sources) for c in (None, correction)
    )
    with apply_correction(classifier.module, correction):
        head = classifier.module.get_submodule(classifier.head)
        weight = head.weight.detach().cpu().numpy().copy() if isinstance(head, nn.Linear) else None
    features = compute_activations(classifier, shown.images, classifier.head, correction).pooled
    items = features if weight is None else features * (weight[target] - weight.mean(0))
    embedded = clustering.embed_items(items, evidence, distance="concept", neighbours=10, dimensions=8, seed=seed)
    found = Clustering.of(embedded, SWEEPS["thorough"], seed).suspect(evidence)
    floor = max(evidence.rounding, MATERIAL * float(before.centred.std()))
    shift, deviation = evidence.shifts(shown.member[None])
    rise = float(shift[0] / max(deviation[0], floor, MIN_DEVIATION))
    if found is None:
        return SecondAudit(0.0, 0.0, rise, 0.0, floor, evidence.varies)
    hits, z = int(shown.member[found.members].sum()), found.shift / max(found.deviation, floor, MIN_DEVIATION)
    f1 = 2 * hits / (len(found.members) + int(shown.member.sum()))
    return SecondAudit(z, f1, rise, found.shift, floor, evidence.varies)
