"""Corrections that train a copy of the model on the part `fit`; norms and dropout stay as in evaluation.

*augment* (A-ClArC, Anders et al. 2022) puts the artifact on images of all classes, so that it stops informing.
*augment-latent* does so in activations: half of the images get the members' amount along the directions.
*penalise* (RR-ClArC, Dreyer et al. 2024, arXiv 2308.09437) adds lambda (v . sum over positions of d logit / d a)^2.
Baselines: *fine-tune* alone; *dfr*, the last layer alone on equal groups (Kirichenko et al. 2023, arXiv 2204.02937);
*group-dro*, the worst group weighs most (Sagawa et al. 2020, arXiv 1911.08731). A group is a label, with the
artifact or without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from klarsicht.audit.corrections.activations import activations
from klarsicht.audit.corrections.clarc import Erasure, layer_named
from klarsicht.audit.corrections.closed_form import CorrectionMethod, CorrectionParameters, FittingData
from klarsicht.audit.models.finetuning import TrainedClassifier
from klarsicht.ground.devices import world
from klarsicht.ground.errors import UsageError
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator, integer
from klarsicht.numerics.erasure import oblique

SHARE: Final = 0.5  # of a batch that gets the artifact
PENALTY: Final = 10.0  # weight of the penalty, in its own size before training
HASTE: Final = 0.1  # how fast group weights follow losses
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Retrained:
    """Other weights for the same network.

    Attributes:
        state: name -> value, of those that changed.
    """

    state: Mapping[str, Tensor]

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module with the other weights, inside the context only; its own come back to the bit."""
        held = module.state_dict()
        kept = {name: held[name].clone() for name in self.state}
        try:
            module.load_state_dict(dict(self.state), strict=False)
            yield module
        finally:
            module.load_state_dict(kept, strict=False)

    @classmethod
    def between(cls, before: nn.Module, after: nn.Module) -> Retrained:
        held = before.state_dict()
        changed = {name: value.detach().clone() for name, value in after.state_dict().items()}
        return cls({name: value for name, value in changed.items() if not torch.equal(value, held[name])})


class FrozenNorms(TrainedClassifier):
    """A network that is trained in evaluation mode."""

    def train(self, mode: bool = True) -> FrozenNorms:
        del mode
        super().train(False)
        return self


Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class CorrectionTask:
    """A task of ground.fit: batches of the part `fit`, drawn by weight, some with the artifact on, and a loss.

    Attributes:
        pasted: share of a batch that gets the artifact.
    """

    bench: FittingData
    loss_of: Loss
    pasted: float = 0.0

    def batch(self, step: int, rank: int) -> Batch:
        """Images, right outputs, and groups: twice the output, one more with the artifact."""
        sample, rng = self.bench.lessons, generator(self.bench.seed, "lesson", self.bench.target, step, rank)
        able = np.flatnonzero(sample.drawn | sample.member)
        p = sample.weight[able] / sample.weight[able].sum() if len(sample.weight) else None
        chosen = rng.choice(able, self.bench.batch, p=p)
        shape = sample.images[chosen[0]].shape
        chosen = chosen[[sample.images[i].shape == shape for i in chosen]]
        on = sample.member[chosen].copy()
        images = [sample.images[i] for i in chosen]
        if self.pasted:
            on |= rng.random(len(chosen)) < self.pasted
            images = [
                self.bench.putting.paste(image, rng) if o and not m and self.bench.putting else image
                for image, o, m in zip(images, on, sample.member[chosen], strict=True)
            ]
        truth = torch.from_numpy(self.bench.truth[chosen])
        return torch.stack(images), truth, 2 * truth + torch.from_numpy(on)

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        return self.loss_of(model, batch)

    def watch(self, step: int, model: nn.Module) -> Mapping[str, float]:
        return {}


def trained(lesson: CorrectionTask, body: nn.Module) -> Retrained:
    """What a copy of the model became."""
    bench = lesson.bench
    plan = Plan(bench.steps, rate=bench.rate, warmup=max(1, bench.steps // 10))
    torch.manual_seed(integer(bench.seed, "training", bench.target))
    with world() as here:
        learner = Learner(FrozenNorms(body).requires_grad_(True), lesson, plan, here)
        for step in track(range(plan.steps), plan.steps, "training"):
            learner.learn(lesson.batch(step, 0))
    average: FrozenNorms = learner.average  # type: ignore[assignment]
    return Retrained.between(bench.classifier.module, average.body.to(bench.classifier.device))


def copied(bench: FittingData) -> nn.Module:
    return copy.deepcopy(bench.classifier.module)


def entropy(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def fine_tune(bench: FittingData, setting: CorrectionParameters) -> Retrained:
    return trained(CorrectionTask(bench, entropy), copied(bench))


def augment(bench: FittingData, setting: CorrectionParameters) -> Retrained:
    """Raises UsageError for an artifact that cannot be put on images."""
    if bench.putting is None:
        raise UsageError(
            "nothing to put on images",
            got="an artifact that has no place, and is neither noise, blur, light nor JPEG",
            remedy="Use augment-latent, penalise or an erasure.",
        )
    return trained(CorrectionTask(bench, entropy, SHARE * min(setting.strength, 2)), copied(bench))


def augment_latent(bench: FittingData, setting: CorrectionParameters) -> Retrained:
    known, body = bench.at(setting.layer), copied(bench)
    carried = oblique(known.directions(setting.directions), known.covariance, known.members.mean(0))
    lends = Erasure(setting.layer, carried, setting.strength)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        half = int(len(batch[0]) * SHARE)
        plain = model(batch[0][half:])
        with lends.applied(body):
            lent = model(batch[0][:half])
        return cross_entropy(torch.cat([lent, plain]), batch[1])

    return trained(CorrectionTask(bench, loss), body)


def penalise(bench: FittingData, setting: CorrectionParameters) -> Retrained:
    body = copied(bench)
    v = torch.as_tensor(bench.at(setting.layer).first, dtype=torch.float32, device=bench.classifier.device)
    first = CorrectionTask(bench, entropy).batch(0, 0)
    _, start = penalty(FrozenNorms(body).requires_grad_(True), body, first, setting.layer, v, bench.target)
    weight = setting.strength * PENALTY / max(float(start.detach()), 1e-12)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        y, cost = penalty(model, body, batch, setting.layer, v, bench.target)
        return cross_entropy(y, batch[1]) + weight * cost

    return trained(CorrectionTask(bench, loss), body)


def penalty(
    model: nn.Module, body: nn.Module, batch: Batch, layer: str, v: Tensor, target: int
) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the mean over images of (v . sum over positions of d logit_target / d a)^2."""
    seen: list[Tensor] = []
    handle = layer_named(body, layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        y = model(batch[0])
    finally:
        handle.remove()
    (slope,) = torch.autograd.grad(y[:, target].sum(), seen[0], create_graph=True)
    summed = slope.sum(1) if slope.ndim == 3 else slope.flatten(2).sum(2) if slope.ndim > 3 else slope
    return y, ((summed @ v) ** 2).mean()


def group_dro(bench: FittingData, setting: CorrectionParameters) -> Retrained:
    weights = torch.ones(2 * bench.classifier.n_classes, device=bench.classifier.device)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        each, groups = cross_entropy(model(batch[0]), batch[1], reduction="none"), batch[2]
        there = torch.unique(groups)
        of_group = torch.stack([each[groups == g].mean() for g in there])
        weights[there] *= torch.exp(HASTE * of_group.detach())
        weights.div_(weights.sum())
        return (of_group * weights[there] / weights[there].sum()).sum()

    return trained(CorrectionTask(bench, loss), copied(bench))


def dfr(bench: FittingData, setting: CorrectionParameters) -> Retrained:
    """Raises UsageError for a network without a linear head."""
    classifier, sample = bench.classifier, bench.lessons
    head = layer_named(classifier.module, classifier.head)
    if not isinstance(head, nn.Linear):
        raise UsageError("no last layer to fit again", got=type(head).__name__, rule="dfr needs a linear head")
    a = activations(classifier, sample.images, classifier.head).pooled
    group, scale = 2 * bench.truth + sample.member, np.maximum(a.std(0), 1e-6)
    weights = len(group) / len(np.unique(group)) / np.bincount(group)[group]
    fit = LogisticRegression(C=1.0, max_iter=500).fit(a / scale, bench.truth, sample_weight=weights)
    rows, offsets, at = fit.coef_ / scale, fit.intercept_, torch.from_numpy(fit.classes_)
    if len(rows) == 1:  # of two classes one is told apart by half the logit up and half down
        rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
    state = {f"{classifier.head}.{k}": v.clone() for k, v in head.state_dict().items()}
    state[f"{classifier.head}.weight"][at] = torch.as_tensor(rows).to(head.weight)
    if head.bias is not None:
        state[f"{classifier.head}.bias"][at] = torch.as_tensor(offsets).to(head.weight)
    return Retrained(state)


LAYERED: Final = frozenset({"layer"})
RETRAINED: dict[str, CorrectionMethod] = {
    "augment": CorrectionMethod(augment),
    "augment-latent": CorrectionMethod(augment_latent, LAYERED),
    "penalise": CorrectionMethod(penalise, LAYERED),
    "fine-tune": CorrectionMethod(fine_tune, baseline=True),
    "dfr": CorrectionMethod(dfr, baseline=True),
    "group-dro": CorrectionMethod(group_dro, baseline=True),
}
