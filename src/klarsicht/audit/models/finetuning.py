"""Train a copy of the model a little further, on images as the audit is shown them.

That is not the user's training again: it starts where that one ended, knows no augmentation, and ends soon. Norms and
dropout are in training mode, as they would be there; parameters that are frozen stay so.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from klarsicht.audit.models.classifier import Classifier, as_logits
from klarsicht.audit.models.inputs import InputImages
from klarsicht.ground.devices import world
from klarsicht.ground.errors import ModelError, UsageError
from klarsicht.ground.fit import Batch, Learner, Plan, ahead
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator, integer

RATE = 3e-4  # of Adam, as in audit.corrections.closed_form
BATCH = 32


@dataclass(frozen=True)
class ClassificationTask:
    """A task of ground.fit: every image once an epoch, in an order of its own; cross-entropy.

    Attributes:
        rows: int (n,), rows of the corpus.
        truth: int (n,), their right outputs.
    """

    gallery: InputImages
    rows: NDArray[np.intp]
    truth: NDArray[np.int64]
    seed: int

    @property
    def size(self) -> int:
        """Images in a batch."""
        return min(BATCH, len(self.rows))

    @property
    def steps(self) -> int:
        """In an epoch: whole batches, for a norm cannot learn from one image."""
        return len(self.rows) // self.size

    def batch(self, step: int, rank: int) -> Batch:
        epoch, number = divmod(step, self.steps)
        order = generator(self.seed, "epoch", epoch).permutation(len(self.rows))
        mine = order[number * self.size : (number + 1) * self.size]
        return self.gallery.glass.inputs(self.gallery(self.rows[mine])), torch.from_numpy(self.truth[mine])

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    def watch(self, step: int, model: nn.Module) -> Mapping[str, float]:
        return {}


class TrainedClassifier(nn.Module):
    """A network whose answer is its logits, whatever object they come in."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return as_logits(self.body(x))


@dataclass(frozen=True)
class Training:
    """How much a copy is trained. Raises UsageError for less than an epoch, or no rate."""

    epochs: int
    rate: float = RATE

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError("epochs of a fine-tuning", got=self.epochs, rule="at least 1")
        if not 0 < self.rate < float("inf"):
            raise UsageError("rate of a fine-tuning", got=self.rate, rule="above 0")

    def __call__(self, classifier: Classifier, lesson: ClassificationTask) -> Classifier:
        """What a copy of the model became: the moving average of its weights. The model stays as it is.

        Raises:
            ModelError: it cannot be trained, or a loss is not finite.
        """
        steps = self.epochs * lesson.steps
        plan = Plan(steps, rate=self.rate, warmup=max(1, steps // 10))
        body = trainable(classifier)
        with world() as here, torch.random.fork_rng([here.device] if here.device.type == "cuda" else []):
            torch.manual_seed(integer(lesson.seed, "fine-tuning"))
            learner = Learner(TrainedClassifier(body), lesson, plan, here)
            for batch in track(ahead(lambda step: lesson.batch(step, 0), range(steps), 1), steps, "fine-tuning"):
                learner.learn(batch)
        learned: Any = learner.average
        return replace(classifier, module=learned.body.to(classifier.device))


def trainable(classifier: Classifier) -> nn.Module:
    """A copy of the network that can be trained. Raises ModelError for one that cannot."""
    module = classifier.module
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise _untrainable("a TorchScript module")
    if not any(p.requires_grad for p in module.parameters()):
        raise _untrainable("no parameter that learns (requires_grad)")
    try:
        return copy.deepcopy(module).float().train()
    # Told in one line, not passed over: a network with tensors that are no leaves, or with handles, cannot be copied
    # (RuntimeError, TypeError), and an exported program has no mode to learn in (NotImplementedError).
    except (RuntimeError, NotImplementedError, TypeError) as error:
        reason, *_ = str(error).split("\n")
        raise _untrainable(f"{type(module).__name__}: {reason}") from error


def _untrainable(got: str) -> ModelError:
    return ModelError(
        "the model cannot be fine-tuned",
        got=got,
        rule="a copy of it is trained on the planted images",
        remedy="Leave --train out, or give a network that can be trained.",
    )
