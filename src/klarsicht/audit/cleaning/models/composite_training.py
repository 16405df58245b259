"""Train a copy of a model on images in which a shortcut says nothing: composites of own places and surroundings of any
class, with images as they are, or images that are known to be balanced."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from klarsicht.audit.cleaning.corrections.retraining import Batch, FrozenNorms, RetrainedWeights
from klarsicht.audit.cleaning.models.balanced_images import BalancedImages
from klarsicht.audit.cleaning.models.clean_settings import ATTENTION_RATE, USUAL_RATE, CleanSettings
from klarsicht.audit.cleaning.models.group_accuracy import OwnImages
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.relevance.function_rules import computes_attention, find_norms_to_merge
from klarsicht.audit.verdicts.own_places.composites import draw_pairs
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.machine.devices import world
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator, integer

TAUGHT_EPOCHS: Final = 8  # of all that is shown together, as many as images that teach


class LabelTask(ABC):
    """Task of ground.fit: batches of inputs and labels, and the cross-entropy of both."""

    @abstractmethod
    def batch(self, step: int, rank: int) -> Batch:
        """Draw inputs (m, C, H, W), and labels (m,)."""

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        del step
        return cross_entropy(model(batch[0]), batch[1])

    def validate(self, step: int, model: nn.Module) -> Mapping[str, float]:
        del step, model
        return {}


@dataclass(frozen=True)
class BalancedTask(LabelTask):
    """Task of balanced images with their labels."""

    fair_images: BalancedImages
    batch_size: int
    seed: int

    def batch(self, step: int, rank: int) -> Batch:
        """Draw balanced images that teach, of every class as many."""
        rng = generator(self.seed, "balanced batch", step, rank)
        return self.fair_images.show(rows := self.fair_images.draw(self.batch_size, rng)), self.fair_images.truth(rows)


@dataclass(frozen=True)
class CompositeTask(LabelTask):
    """Task of composites with surroundings of any class, with the label of their source, and as many images
    as they are, so that what composites do not show is not forgotten; half of these are balanced ones, if there are
    any."""

    own_images: OwnImages
    batch_size: int
    seed: int
    fair_images: BalancedImages | None = None

    def batch(self, step: int, rank: int) -> Batch:
        """Draw composites of images that teach, of which every class is as often a source, and as often a donor, and
        in a class every image; and images as they are, of every class as many, and in it of every side."""
        rng, one = generator(self.seed, "composites", step, rank), self.own_images
        alone = self.batch_size // 2
        pairs = draw_pairs(one.labels, one.usable & one.teaches, self.batch_size - alone, rng)
        fair = 0 if self.fair_images is None else alone // 2
        rows = rng.choice(len(one.labels), alone - fair, p=one.chances)
        inputs = [one.compose(pairs, rng), one.images.pixel_scale.inputs(one.levels[rows])]
        truth = [torch.from_numpy(one.labels[np.concatenate([pairs.sources, rows])])]
        if self.fair_images is not None:
            some = self.fair_images.draw(fair, rng)
            inputs, truth = [*inputs, self.fair_images.show(some)], [*truth, self.fair_images.truth(some)]
        return torch.cat(inputs), torch.cat(truth)


def train_on_composites(
    classifier: Classifier, own_images: OwnImages, settings: CleanSettings, fair_images: BalancedImages | None = None
) -> RetrainedWeights:
    """Train a copy of the model on composites and on images as they are, balanced ones among them, and return the
    changed weights."""
    task = CompositeTask(own_images, settings.batch, settings.seed, fair_images)
    taught = int(own_images.teaches.sum())
    return train_on_task(classifier, task, taught, settings, next(own_images.show(np.arange(1))))


def train_on_balanced(classifier: Classifier, fair_images: BalancedImages, settings: CleanSettings) -> RetrainedWeights:
    """Train a copy of the model on balanced images alone, and return the changed weights."""
    task = BalancedTask(fair_images, settings.batch, settings.seed)
    return train_on_task(classifier, task, int(fair_images.teaches.sum()), settings, fair_images.show(np.arange(1)))


def train_on_task(
    classifier: Classifier, task: LabelTask, taught: int, settings: CleanSettings, example: Tensor
) -> RetrainedWeights:
    """Train a copy of the model on a task for TAUGHT_EPOCHS of images that teach, or for `settings.steps` if these are
    more; the example (1, C, H, W) says how fast."""
    steps = max(settings.steps, TAUGHT_EPOCHS * taught // settings.batch)
    plan = Plan(steps, choose_rate(settings, classifier, example), max(1, steps // 10))
    body = copy.deepcopy(classifier.module)
    torch.manual_seed(integer(settings.seed, "surroundings"))
    with world() as here:
        learner = Learner(FrozenNorms(body).requires_grad_(True), task, plan, here)
        for step in track(range(steps), steps, "training without the shortcut"):
            learner.train_step(task.batch(step, 0))
    average: FrozenNorms = learner.average  # type: ignore[assignment]
    return RetrainedWeights.between(classifier.module, average.body.to(classifier.device))


def choose_rate(settings: CleanSettings, classifier: Classifier, example: Tensor) -> float:
    """Return the learning rate: the one that is named, or one that suits the network, by what it computes of an example
    (1, C, H, W). At the rate of convolutions, a trained transformer ended with less of the worst group right (decision
    206)."""
    if settings.rate is not None:
        return settings.rate
    with evaluation_mode(classifier.module), torch.no_grad(), find_norms_to_merge() as calls:
        classifier.logits(example.to(classifier.device))
    return ATTENTION_RATE if computes_attention(calls.functions) else USUAL_RATE
