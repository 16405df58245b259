"""Fine-tuning of a copy of the model on the preprocessed images of an audit. It does not repeat the user's training: it
starts from the trained weights, uses no augmentation and few epochs. Frozen parameters stay frozen."""

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

from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.explanation.networks.outputs import LogitsNetwork
from klarsicht.ground.errors import ModelError
from klarsicht.ground.fit import Batch, Learner, Plan, prefetch
from klarsicht.ground.machine.devices import world
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import EPOCHS, LEARNING_RATE
from klarsicht.ground.seeding import generator, integer

RATE = 3e-4  # learning rate of Adam, as in audit.cleaning.corrections.closed_form
TRAINING_BATCH = 32


@dataclass(frozen=True)
class ClassificationTask:
    """Classification by cross-entropy as a task of ground.fit; each epoch is a new permutation of the rows of the
    corpus, int (n,), whose target outputs are `truth`, int64 (n,)."""

    input_images: InputImages
    rows: NDArray[np.intp]
    truth: NDArray[np.int64]
    seed: int

    @property
    def size(self) -> int:
        """Batch size."""
        return min(TRAINING_BATCH, len(self.rows))

    @property
    def steps(self) -> int:
        """Batches per epoch, only complete ones: a batch norm cannot be trained on a single image."""
        return len(self.rows) // self.size

    def batch(self, step: int, rank: int) -> Batch:
        epoch, number = divmod(step, self.steps)
        order = generator(self.seed, "epoch", epoch).permutation(len(self.rows))
        mine = order[number * self.size : (number + 1) * self.size]
        return self.input_images.as_inputs(self.rows[mine]), torch.from_numpy(self.truth[mine])

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    def validate(self, step: int, model: nn.Module) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True)
class Training:
    """Fine-tuning with Adam for a number of epochs at a learning rate; raises UsageError where one is out of range."""

    epochs: int
    rate: float = RATE

    def __post_init__(self) -> None:
        EPOCHS.require("epochs", self.epochs)
        LEARNING_RATE.require("rate", self.rate)

    def __call__(self, classifier: Classifier, task: ClassificationTask) -> Classifier:
        """Fine-tune a copy of the classifier; return the moving average of its weights. Raises ModelError where the
        network cannot be trained, or a loss is not finite."""
        steps = self.epochs * task.steps
        plan = Plan(steps, rate=self.rate, warmup=max(1, steps // 10))
        body = trainable_copy(classifier)
        with world() as here, torch.random.fork_rng([here.device] if here.device.type == "cuda" else []):
            torch.manual_seed(integer(task.seed, "fine-tuning"))
            learner = Learner(LogitsNetwork(body), task, plan, here)
            for batch in track(prefetch(lambda step: task.batch(step, 0), range(steps), 1), steps, "fine-tuning"):
                learner.train_step(batch)
        learned: Any = learner.average
        return replace(classifier, module=learned.body.to(classifier.device))


def trainable_copy(classifier: Classifier) -> nn.Module:
    """Copy the network for training, in float32 and training mode; raises ModelError where it cannot be copied or
    trained."""
    module = classifier.module
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise _untrainable_error("a TorchScript module")
    if not any(p.requires_grad for p in module.parameters()):
        raise _untrainable_error("no parameter that learns (requires_grad)")
    try:
        return copy.deepcopy(module).float().train()
    # Reported as one line: a network with non-leaf tensors or handles cannot be copied (RuntimeError, TypeError), and
    # an exported program has no training mode (NotImplementedError).
    except (RuntimeError, NotImplementedError, TypeError) as error:
        reason, *_ = str(error).split("\n")
        raise _untrainable_error(f"{type(module).__name__}: {reason}") from error


def _untrainable_error(got: str) -> ModelError:
    rule, remedy = "a copy of it is trained on the images", "Leave --train out, or give a network that can be trained."
    return ModelError("the model cannot be fine-tuned", got=got, rule=rule, remedy=remedy)
