"""Penultimate features and logits of a classifier, in one forward pass without relevance; and centred logits, to be
differentiated."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import Tap

Array = NDArray[Any]


@dataclass(frozen=True)
class Observation:
    """Features and logits of a batch of B images; float32.

    Attributes:
        features: (B, F), the input of the head, summed over positions where it has spatial axes.
        logits: (B, K).
    """

    features: Array
    logits: Array

    @property
    def prediction(self) -> Array:
        """Predicted class, int64 (B,)."""
        return np.asarray(self.logits.argmax(1))


def target_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Select the logits of the targets: (B, K), int64 (B,) -> (B,)."""
    return logits.gather(1, targets[:, None])[:, 0]


def centre_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Centre the logits of the targets, the mean of all K subtracted: (B, K), int64 (B,) -> (B,).

    The same as numerics.statistics.logits.centred_logit, where a gradient is wanted.
    """
    return target_logits(logits, targets) - logits.mean(1)


class Observer:
    """Context manager that computes features and logits of many batches; on exit the classifier is restored.

    Raises:
        ModelError: the network cannot be set to evaluation mode.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            module = stack.enter_context(evaluation_mode(self.classifier.module))
            self._head = stack.enter_context(Tap(module, self.classifier.head))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __call__(self, batch: Tensor) -> Observation:
        """Compute features and logits of preprocessed images (B, C, H, W)."""
        with torch.no_grad():
            logits = self.classifier.logits(batch.to(self.classifier.device))
            features = self._head.sum_over_positions(self._head.input)
        self._head.clear()
        return Observation(features.float().cpu().numpy(), logits.float().cpu().numpy())
