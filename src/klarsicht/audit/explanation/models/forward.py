"""Penultimate features and logits of a classifier in one forward pass; and centred logits, to be differentiated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
    """Features (B, F) and logits (B, K) of a batch of B images, float32: the input of the head, summed over positions
    where it has spatial axes, and its output."""

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
    """Centre the logits of the targets, the mean of all K subtracted: (B, K), int64 (B,) -> (B,)."""
    return target_logits(logits, targets) - logits.mean(1)


@contextmanager
def open_observer(classifier: Classifier) -> Iterator[Callable[[Tensor], Observation]]:
    """Open a function that computes features and logits of preprocessed images (B, C, H, W), for many batches; the
    classifier is restored afterwards. Raises ModelError where the network has no evaluation mode."""
    with evaluation_mode(classifier.module) as module, Tap(module, classifier.head) as head:

        def observe(batch: Tensor) -> Observation:
            with torch.no_grad():
                logits = classifier.logits(batch.to(classifier.device))
                features = head.sum_over_positions(head.input)
            head.clear()
            return Observation(features.float().cpu().numpy(), logits.float().cpu().numpy())

        yield observe
