"""Centre logits, and tell what part of them is rounding."""

from __future__ import annotations

from typing import Final

import numpy as np

from klarsicht.ground.arrays import Floats

ULPS: Final = 256  # units in the last place that summing in another order leaves in logits: see `rounding`


def centred(logits: Floats) -> Floats:
    """Subtract from logits (..., K) the mean over the K outputs: what is left does not depend on a constant added to
    all of them, which no softmax sees."""
    return np.asarray(logits - logits.mean(-1, keepdims=True))


def rounding(logits: Floats) -> float:
    """Bound the rounding error of logits (..., K): ULPS units in the last place of the largest of them.

    The unit is that of single precision, in which networks compute, also where their logits were copied into double
    precision; of half precision where logits are of that type. A processor sums in its own order, so the same network
    gives logits that differ from machine to machine; benchmarks/rounding.py measures by how much: 4 to 225 units in
    five networks of random weights (docs/benchmarks.md).
    """
    logits = np.asarray(logits)
    eps = max(float(np.finfo(kind).eps) for kind in (logits.dtype, np.float32))
    return ULPS * eps * float(np.abs(logits).max(initial=0.0))
