"""What a classifier says without explaining it: penultimate features and logits, in one forward pass."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.models.eval_mode import evaluation_mode
from klarsicht.audit.models.hooks import Tap, over_space

Array = NDArray[Any]


@dataclass(frozen=True)
class Observation:
    """One batch of B images; float32.

    Attributes:
        features: (B, F), the input of the head, summed over positions where it has any.
        logits: (B, K).
    """

    features: Array
    logits: Array

    @property
    def prediction(self) -> Array:
        """(B,) int64."""
        return np.asarray(self.logits.argmax(1))


class Observer:
    """A classifier made ready to observe many batches; it is given back as it was when the context ends."""

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
        """Images (B, C, H, W) as the transform gives them."""
        with torch.no_grad():
            logits = self.classifier.logits(batch.to(self.classifier.device))
            features = over_space(self._head.input)
        self._head.forget()
        return Observation(features.float().cpu().numpy(), logits.float().cpu().numpy())
