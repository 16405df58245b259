"""Train a copy of the model on the part `fit`; normalisation and dropout layers stay in evaluation mode.

*augment* (A-ClArC, Anders et al. 2022) puts the artifact on images of all classes, so that it carries no information.
*augment-latent* does so in activations. *penalise* (RR-ClArC, Dreyer et al. 2024, arXiv 2308.09437) adds lambda (v .
sum over positions of d logit / d a)^2 to the loss. Baselines: *fine-tune* alone; *dfr*, the last layer alone on equal
groups (Kirichenko et al. 2023, arXiv 2204.02937); *group-dro*, with the largest weight on the worst group (Sagawa et
al. 2020, arXiv 1911.08731). A group is a label, with the artifact or without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from klarsicht.audit.cleaning.corrections.activations import compute_activations
from klarsicht.audit.cleaning.corrections.clarc import find_layer
from klarsicht.audit.cleaning.corrections.closed_form import CorrectionMethod, CorrectionParameters, FittingData
from klarsicht.audit.explanation.networks.hooks import Tap, channel_axis, sum_over_positions
from klarsicht.audit.explanation.networks.outputs import LogitsNetwork
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.ground.errors import UsageError
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.machine.devices import world
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator, integer
from klarsicht.numerics.erasure import oblique_eraser

PASTED_SHARE: Final = 0.5  # of a batch that gets the artifact
PENALTY: Final = 10.0  # weight of the penalty, in its own size before training
GROUP_RATE: Final = 0.1  # how fast group weights follow losses
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class RetrainedWeights:
    """Correction by other weights of the same network, by name."""

    state: Mapping[str, Tensor]

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Replace the weights inside the context only; the original ones are restored bit by bit."""
        held = module.state_dict()
        kept = {name: held[name].clone() for name in self.state}
        try:
            module.load_state_dict(dict(self.state), strict=False)
            yield module
        finally:
            module.load_state_dict(kept, strict=False)

    @classmethod
    def between(cls, before: nn.Module, after: nn.Module) -> RetrainedWeights:
        """Collect the weights in which two networks differ, with the values of `after`."""
        held = before.state_dict()
        changed = {name: value.detach().clone() for name, value in after.state_dict().items()}
        return cls({name: value for name, value in changed.items() if not torch.equal(value, held[name])})

    def interpolate(self, module: nn.Module, share: float) -> RetrainedWeights:
        """Return the weights, buffers among them, at a share, 0 to 1, of the straight line from those of a network to
        these; whole numbers, such as counts of batches, stay those of the network."""
        old, pairs = module.state_dict(), self.state.items()
        return RetrainedWeights(
            {name: torch.lerp(old[name], new, share) if new.is_floating_point() else old[name] for name, new in pairs}
        )


class FrozenNorms(LogitsNetwork):
    """Network that is trained in evaluation mode."""

    def train(self, mode: bool = True) -> FrozenNorms:
        del mode
        super().train(False)
        return self


Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class CorrectionTask:
    """Task of ground.fit: batches of the part `fit`, drawn by weight, a share of them with the artifact, and a loss."""

    data: FittingData
    loss_function: Loss
    pasted_share: float = 0.0

    def batch(self, step: int, rank: int) -> Batch:
        """Draw images, right outputs, and groups: twice the output, plus one with the artifact."""
        sample, rng = self.data.training_sample, generator(self.data.seed, "lesson", self.data.target, step, rank)
        copied = sample.paired and self.pasted_share > 0  # what gets the artifact here needs no copies with it
        able = np.flatnonzero(sample.fair_draw if copied else sample.fair_draw | sample.member)
        p = sample.weight[able] / sample.weight[able].sum() if len(sample.weight) else None
        chosen = rng.choice(able, self.data.batch, p=p)
        shape = sample.images[chosen[0]].shape
        chosen = chosen[[sample.images[i].shape == shape for i in chosen]]
        on = sample.member[chosen].copy()
        images = [sample.images[i] for i in chosen]
        if self.pasted_share:
            on |= rng.random(len(chosen)) < self.pasted_share
            images = [
                put_on(image, self.data.insertion, rng) if o and not m and self.data.insertion else image
                for image, o, m in zip(images, on, sample.member[chosen], strict=True)
            ]
        truth = torch.from_numpy(self.data.truth[chosen])
        return torch.stack(images), truth, 2 * truth + torch.from_numpy(on)

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        return self.loss_function(model, batch)

    def validate(self, step: int, model: nn.Module) -> Mapping[str, float]:
        return {}


def train_copy(task: CorrectionTask, body: nn.Module | None = None) -> RetrainedWeights:
    """Train a copy of the model, if given `body`, and return the changed weights."""
    data, body = task.data, body or copy.deepcopy(task.data.classifier.module)
    plan = Plan(data.steps, rate=data.rate, warmup=max(1, data.steps // 10))
    torch.manual_seed(integer(data.seed, "training", data.target))
    with world() as here:
        learner = Learner(FrozenNorms(body).requires_grad_(True), task, plan, here)
        for step in track(range(plan.steps), plan.steps, "training"):
            learner.train_step(task.batch(step, 0))
    average: FrozenNorms = learner.average  # type: ignore[assignment]
    return RetrainedWeights.between(data.classifier.module, average.body.to(data.classifier.device))


def label_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Compute the cross-entropy with the right outputs."""
    return cross_entropy(model(batch[0]), batch[1])


def fine_tune(data: FittingData, setting: CorrectionParameters) -> RetrainedWeights:
    """Train on the images as they are (baseline)."""
    return train_copy(CorrectionTask(data, label_loss))


def augment(data: FittingData, setting: CorrectionParameters) -> RetrainedWeights:
    """Train with the artifact on images of all classes (A-ClArC). Raises UsageError if it cannot be put on images."""
    if data.insertion is None:
        raise UsageError(
            "the artifact cannot be inserted into images",
            got="it has no place, and is neither noise, blur, light nor JPEG",
            remedy="Use augment-latent, penalise or an erasure.",
        )
    return train_copy(
        CorrectionTask(data, label_loss, PASTED_SHARE * min(setting.strength, 2)), copy.deepcopy(data.classifier.module)
    )


def augment_latent(data: FittingData, setting: CorrectionParameters) -> RetrainedWeights:
    """Train with the activations of half of each batch set to the members' amount along the directions (A-ClArC)."""
    known, body = data.layer_statistics(setting.layer), copy.deepcopy(data.classifier.module)
    lends = known.make_erasure(setting, lambda t, k: oblique_eraser(t.directions(k), t.covariance, t.carried))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        half = int(len(batch[0]) * PASTED_SHARE)
        plain = model(batch[0][half:])
        with lends.applied(body):
            lent = model(batch[0][:half])
        return cross_entropy(torch.cat([lent, plain]), batch[1])

    return train_copy(CorrectionTask(data, loss), body)


def penalise(data: FittingData, setting: CorrectionParameters) -> RetrainedWeights:
    """Train with a penalty on the gradient along the direction (RR-ClArC)."""
    body = copy.deepcopy(data.classifier.module)
    known, device = data.layer_statistics(setting.layer), data.classifier.device
    v = [torch.as_tensor(t.first, dtype=torch.float32, device=device) for t in (*known.leading, known.positions)]
    first = CorrectionTask(data, label_loss).batch(0, 0)
    _, start = penalty(FrozenNorms(body).requires_grad_(True), body, first, setting.layer, v, data.target)
    weight = setting.strength * PENALTY / max(float(start.detach()), 1e-12)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        y, cost = penalty(model, body, batch, setting.layer, v, data.target)
        return cross_entropy(y, batch[1]) + weight * cost

    return train_copy(CorrectionTask(data, loss), body)


def penalty(
    model: nn.Module, body: nn.Module, batch: Batch, layer: str, v: Sequence[Tensor], target: int
) -> tuple[Tensor, Tensor]:
    """Compute the logits (B, K), and the mean over images of (v . sum over positions of d logit_target / d a)^2, with
    directions (C,) of the tokens before the positions, and last that of the positions."""
    *of_tokens, of_positions = v
    with Tap(body, layer) as tap:
        y = model(batch[0])
        (slope,) = torch.autograd.grad(y[:, target].sum(), tap.input, create_graph=True)
    rest = slope[:, len(of_tokens) :] if of_tokens else slope
    along = sum_over_positions(rest, channel_axis(find_layer(body, layer), slope.shape)) @ of_positions
    for i, w in enumerate(of_tokens):
        along = along + slope[:, i] @ w
    return y, (along**2).mean()


def group_dro(data: FittingData, setting: CorrectionParameters) -> RetrainedWeights:
    """Train with group weights that grow with the loss of the group (group DRO, baseline)."""
    weights = torch.ones(2 * data.classifier.n_classes, device=data.classifier.device)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        each, groups = cross_entropy(model(batch[0]), batch[1], reduction="none"), batch[2]
        there = torch.unique(groups)
        of_group = torch.stack([each[groups == g].mean() for g in there])
        weights[there] *= torch.exp(GROUP_RATE * of_group.detach())
        weights.div_(weights.sum())
        return (of_group * weights[there] / weights[there].sum()).sum()

    return train_copy(CorrectionTask(data, loss))


def dfr(data: FittingData, setting: CorrectionParameters) -> RetrainedWeights:
    """Fit the last layer again by logistic regression on equally weighted groups (deep feature reweighting, baseline).
    Raises UsageError if the network has no linear head."""
    classifier, sample = data.classifier, data.training_sample
    head = find_layer(classifier.module, classifier.head)
    if not isinstance(head, nn.Linear):
        raise UsageError("no last layer to fit again", got=type(head).__name__, rule="dfr needs a linear head")
    a = compute_activations(classifier, sample.images, classifier.head).pooled
    group, scale = 2 * data.truth + sample.member, np.maximum(a.std(0), 1e-6)
    weights = len(group) / len(np.unique(group)) / np.bincount(group)[group]
    fit = LogisticRegression(C=1.0, max_iter=500).fit(a / scale, data.truth, sample_weight=weights)
    rows, offsets, at = fit.coef_ / scale, fit.intercept_, torch.from_numpy(fit.classes_)
    if len(rows) == 1:  # two classes: half of the logit for one, minus half for the other
        rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
    state = {f"{classifier.head}.{k}": v.clone() for k, v in head.state_dict().items()}
    state[f"{classifier.head}.weight"][at] = torch.as_tensor(rows).to(head.weight)
    if head.bias is not None:
        state[f"{classifier.head}.bias"][at] = torch.as_tensor(offsets).to(head.weight)
    return RetrainedWeights(state)


LAYERED: Final = frozenset({"layer"})
RETRAINED: dict[str, CorrectionMethod] = {
    "augment": CorrectionMethod(augment),
    "augment-latent": CorrectionMethod(augment_latent, LAYERED),
    "penalise": CorrectionMethod(penalise, LAYERED),
    "fine-tune": CorrectionMethod(fine_tune, baseline=True),
    "dfr": CorrectionMethod(dfr, baseline=True),
    "group-dro": CorrectionMethod(group_dro, baseline=True),
}
