"""How often would a class match a window by nature? As often as other images, or as often as its own middle says.

Classes of buildings match an edge better than classes of birds do, and a class of oranges matches a round rim better
than either. All of such a class does, a little; an artifact is matched by a few of its images, and by far. So what a
pool of other images matches is first brought to the middle and to the spread of the class itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.numerics.halves import rate

Floats = NDArray[np.floating[Any]]

CLOSEST = 0.999  # correlations beyond are as good as one: Fisher's z of one is endless


def fisher(r: Floats) -> Floats:
    """Fisher's z of correlations: an equal step means as much at .9 as at .5. Those below nought count as nought."""
    return np.asarray(np.arctanh(np.clip(r, 0, CLOSEST)))


def moved(own: Floats, pool: Floats) -> Floats:
    """Values of a pool (s, m) with the median of those of a class (s, n), and their median deviation if larger."""
    middle, other = (np.median(z, 1, keepdims=True) for z in (own, pool))
    spread, least = (np.median(np.abs(z - m), 1, keepdims=True) for z, m in ((own, middle), (pool, other)))
    wider = np.where(least > 0, np.maximum(spread / np.where(least > 0, least, 1), 1), 1)
    return np.asarray(middle + (pool - other) * wider)


def natural_rate(own: Floats, pool: Floats, edge: Any) -> NDArray[np.float64]:
    """The rate (s,) at which a class lies beyond an edge by nature: that of the pool as it is, or of the pool with the
    middle and the spread of the class, whichever is larger."""
    hits = np.maximum((pool > edge).sum(1), (moved(own, pool) > edge).sum(1))
    return rate(hits, pool.shape[1])


def natural_likeness(own: Floats, pool: Floats, rung: float) -> NDArray[np.float64]:
    """The same for correlations above a rung."""
    return natural_rate(fisher(own), fisher(pool), fisher(np.array(rung)))
