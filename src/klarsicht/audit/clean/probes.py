"""Is the artifact still there? A fresh classifier looks for it, the share of relevance on it, and a second audit.

A linear probe at an erased layer is at chance by algebra, so the probe is a small neural network, and it looks at later
layers too. It is trained on images that the correction was fitted on and asked about others.
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

from klarsicht.audit.corrections.activations import Correction, activations, batches, corrected, logits
from klarsicht.audit.corrections.samples import Images, Sample
from klarsicht.audit.interventions.overlay import Insertion, Overlay
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.models.eval_mode import evaluation_mode
from klarsicht.audit.results.ranking import MATERIAL
from klarsicht.audit.spray import clustering
from klarsicht.audit.spray.clustering import FEWEST, FLAT, Clustering, TargetLogits
from klarsicht.ground.arrays import Bools, Floats
from klarsicht.numerics.clustering.candidates import SWEEPS
from klarsicht.numerics.statistics.intervals import NOTHING, Z95, Interval, mean

HIDDEN: Final = 64
BATCH: Final = 16
ROUNDING: Final = 1e-5  # of the largest activation


@dataclass(frozen=True)
class CarrierLabels:
    """Images of which it is known whether they carry the artifact: members, and clean ones, half of them pasted."""

    images: Images
    carries: Bools

    @classmethod
    def of(cls, sample: Sample, putting: Insertion | None, target: int, seed: int) -> CarrierLabels:
        rng = np.random.default_rng(seed)
        pasted = rng.random(len(sample)) < 0.5
        usable = putting is not None and all(putting.fits(image) for image in sample.images)
        on = ~sample.member & (sample.labels != target) & pasted if usable else np.zeros(len(sample), bool)
        images = [putting.paste(i, rng) if o and putting else i for i, o in zip(sample.images, on, strict=True)]
        return cls(images, sample.member | on)


def probe(
    classifier: Classifier,
    correction: Correction | None,
    layer: str,
    train: CarrierLabels,
    shown: CarrierLabels,
    seed: int = 0,
) -> Interval:
    """Balanced accuracy of a fresh network at finding the artifact in what goes into a layer; a half is chance."""
    if min(map(len, (np.unique(train.carries), np.unique(shown.carries)))) < 2:
        return NOTHING
    X, Y = (_seen(classifier, part.images, layer, correction) for part in (train, shown))
    grain = ROUNDING * max(float(np.abs(X).max()), 1e-30)  # what is erased is constant but for rounding: no knowledge
    X, Y = np.round(X / grain), np.round(Y / grain)
    fit = make_pipeline(StandardScaler(), MLPClassifier((HIDDEN,), alpha=0.01, max_iter=200, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 rounds are what it gets
        right = fit.fit(X, train.carries).predict(Y) == shown.carries
    return balanced(right, shown.carries)


def balanced(right: Bools, carries: Bools) -> Interval:
    """The mean of the shares right among those that carry and those that do not."""
    shares = [(right[side].mean(), side.sum()) for side in (carries, ~carries)]
    value = float(np.mean([p for p, _ in shares]))
    variance = sum((p * (1 - p) + 1 / (4 * n)) / n for p, n in shares) / 4  # never 0: no error yet is not certainty
    half = Z95 * float(np.sqrt(variance))
    return Interval(value, max(value - half, 0), min(value + half, 1), len(right))


def _seen(classifier: Classifier, images: Images, layer: str, correction: Correction | None) -> Floats:
    found = activations(classifier, images, layer, correction)
    return np.concatenate([found.pooled, found.spread], 1) if found.placed else found.pooled


def on_mask(
    classifier: Classifier, images: Images, place: Overlay, target: int, correction: Correction | None, seed: int = 0
) -> Interval:
    """Share of |gradient x input| for the class that lies on the artifact, pasted on these images."""
    rng = np.random.default_rng(seed)
    drawn = [place.draw(rng) for _ in images]
    masks = torch.from_numpy(place.masks[drawn])
    pasted = [place.on(image, i) for image, i in zip(images, drawn, strict=True)]
    with evaluation_mode(classifier.module), corrected(classifier.module, correction):
        maps = torch.cat(
            [_gradient_times_input(classifier, torch.stack(list(b)), target) for b in batches(pasted, BATCH)]
        )
    total = maps.flatten(1).sum(1).clamp(min=1e-30)
    return mean(((maps * masks).flatten(1).sum(1) / total).double().numpy())


def _gradient_times_input(classifier: Classifier, x: Tensor, target: int) -> Tensor:
    x = x.to(classifier.device).requires_grad_()
    y = classifier.logits(x)
    (slope,) = torch.autograd.grad((y[:, target] - y.mean(1)).sum(), x)
    return (x * slope).abs().sum(1).detach().cpu()


@dataclass(frozen=True)
class SecondAudit:
    """What an audit of the images shown finds.

    Attributes:
        z: rise of the suspect cluster in standard deviations of the other images.
        found: F1 of the suspect cluster against the members.
        members: rise of the members, likewise.
        shift: rise of the suspect cluster in logits; 0 without one.
        floor: the least rise that is material: MATERIAL of the standard deviation that the class's evidence had over
            the same images before the correction, or rounding.
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
        """Whether it is the same cluster that raises the class, and materially."""
        return self.found > 0.5 and self.z > 1 and self.shift > self.floor

    @property
    def told(self) -> str:
        """In a few words."""
        if not self.varies:
            return "the class's evidence does not vary: nothing to rank by"
        return f"z {self.z:.1f}, F1 {self.found:.2f}, {'suspect' if self.suspect else 'not suspect'}"


def second_audit(
    classifier: Classifier, sample: Sample, target: int, correction: Correction | None, seed: int = 0
) -> SecondAudit | None:
    """By head relevance, on members and clean images of the class; None for too few of them."""
    own = sample.labels == target
    shown = sample.of(sample.member | own if (own & ~sample.member).any() else sample.member | sample.drawn)
    if len(shown) < FEWEST or not 0 < shown.member.sum() < len(shown) or clustering.room(shown.sources) < 2:
        return None
    before, evidence = (
        TargetLogits.of(logits(classifier, shown.images, c), target, shown.sources) for c in (None, correction)
    )
    with corrected(classifier.module, correction):
        weight = _head_weight(classifier)
    features = activations(classifier, shown.images, classifier.head, correction).pooled
    items = features if weight is None else features * (weight[target] - weight.mean(0))
    embedded = clustering.embedding(items, evidence, distance="concept", neighbours=10, dimensions=8, seed=seed)
    found = Clustering.of(embedded, SWEEPS["thorough"], seed).suspect(evidence)
    floor = max(evidence.rounding, MATERIAL * float(before.centred.std()))
    shift, deviation = evidence.shifts(shown.member[None])
    rise = float(shift[0] / max(deviation[0], floor, FLAT))
    if found is None:
        return SecondAudit(0.0, 0.0, rise, 0.0, floor, evidence.varies)
    hits = int(shown.member[found.members].sum())
    z = found.shift / max(found.deviation, floor, FLAT)
    return SecondAudit(
        z, 2 * hits / (len(found.members) + int(shown.member.sum())), rise, found.shift, floor, evidence.varies
    )


def _head_weight(classifier: Classifier) -> Floats | None:
    head = classifier.module.get_submodule(classifier.head)
    return head.weight.detach().cpu().numpy().copy() if isinstance(head, nn.Linear) else None
