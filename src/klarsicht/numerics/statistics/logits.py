"""Centring of logits, and a bound of their rounding error."""

from __future__ import annotations

from typing import Final

import numpy as np

from klarsicht.ground.arrays import Floats

ULPS: Final = 256  # units in the last place by which the order of summation changes logits: see `rounding_bound`


def centre_logits(logits: Floats) -> Floats:
    """Subtract from logits (..., K) their mean over the K outputs; the result is invariant to a constant added to all
    logits, as is the softmax.
    """
    return np.asarray(logits - logits.mean(-1, keepdims=True))


def centred_logit(logits: Floats, target: int) -> Floats:
    """Centre the logit of one output: (n, K) -> (n,)."""
    return np.asarray(logits[:, target] - logits.mean(1))


def rounding_bound(logits: Floats) -> float:
    """Bound the rounding error of logits (..., K): ULPS units in the last place of the largest of them.

    The unit is that of single precision, in which networks compute, also where their logits were copied into double
    precision; of half precision where logits are of that type. A processor sums in its own order, so the same network
    gives logits that differ from machine to machine; benchmarks/rounding.py measures by how much: 4 to 225 units in
    five networks of random weights (docs/benchmarks.md).
    """
    logits = np.asarray(logits)
    eps = max(float(np.finfo(kind).eps) for kind in (logits.dtype, np.float32))
    return ULPS * eps * float(np.abs(logits).max(initial=0.0))
