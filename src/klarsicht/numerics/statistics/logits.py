"""Scales on which logits count, and a bound of their rounding error.

Outputs of a softmax exclude each other: a class counts by its lead over the mean of all logits, and the largest is
predicted. Sigmoids are independent: a class counts by its own logit, and is predicted where that is positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import log_expit, log_softmax

from klarsicht.ground.arrays import Bools, Floats

ULPS: Final = 256  # units in the last place by which the order of summation changes logits: see `rounding_bound`


def centre_logits(logits: Floats) -> Floats:
    """Subtract from logits (..., K) their mean over the K outputs, as what adds to all of them changes no softmax."""
    return np.asarray(logits - logits.mean(-1, keepdims=True))


def centred_logit(logits: Floats, target: int) -> Floats:
    return np.asarray(logits[:, target] - logits.mean(1))


@dataclass(frozen=True)
class LogitScale:
    """Scale from the logits (..., K) of a network to the scores of outputs that exclude each other."""

    def scores(self, logits: Floats) -> Floats:
        """Compute the score of each output (..., K)."""
        return centre_logits(logits)

    def score(self, logits: Floats, target: int) -> Floats:
        """Compute the score of one output: (n, K) -> (n,)."""
        return centred_logit(logits, target)

    def predicts(self, logits: Floats, target: int) -> Bools:
        """Test whether an image is predicted as the class (...,)."""
        return np.asarray(logits.argmax(-1) == target)

    def log_probability(self, logits: Floats, target: int) -> Floats:
        """Compute the logarithm of the class's probability (...,)."""
        return np.asarray(log_softmax(logits, -1)[..., target])


@dataclass(frozen=True)
class Independent(LogitScale):
    """Scale of independent outputs, as those of sigmoids."""

    def scores(self, logits: Floats) -> Floats:
        return np.asarray(logits)

    def score(self, logits: Floats, target: int) -> Floats:
        return np.asarray(logits[..., target])

    def predicts(self, logits: Floats, target: int) -> Bools:
        return np.asarray(logits[..., target] > 0)

    def log_probability(self, logits: Floats, target: int) -> Floats:
        return np.asarray(log_expit(logits[..., target]))


EXCLUSIVE: Final = LogitScale()


def logit_scale(independent: bool) -> LogitScale:
    """Return the scale of independent outputs, or of outputs that exclude each other."""
    return Independent() if independent else EXCLUSIVE


def rounding_bound(logits: Floats) -> float:
    """Bound the rounding error of logits (..., K) by ULPS units in the last place of the largest of them, in single
    precision, or half where logits are of that type: processors sum in their own order, and
    benchmarks/audit/rounding.py measured 4 to 225 units."""
    logits = np.asarray(logits)
    eps = max(float(np.finfo(kind).eps) for kind in (logits.dtype, np.float32))
    return ULPS * eps * float(np.abs(logits).max(initial=0.0))
