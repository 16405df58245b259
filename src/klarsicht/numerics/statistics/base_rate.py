"""How often would a class match a window by nature? As often as other images, or as often as its own middle says.

Classes of buildings match an edge better than classes of birds do, and a class of oranges matches a round rim better
than either. All of such a class does, a little; an artifact is matched by a few of its images, and by far. So what a
pool of other images matches is first brought to the middle and to the spread of the class itself.

A part of a class, such as the long-sleeved of its dresses, matches by nature as well, and no pool knows how often. But
it matches by degrees: where many match well, many match a little less well. An artifact is a lump apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Floats
from klarsicht.numerics.statistics.split_half import rate

CLOSEST = 0.999  # correlations beyond are as good as one: Fisher's z of one is endless
BELOW = 0.3  # of Fisher's z: how far below a rung a natural group still reaches
DENSER = 2.0  # times as many may lie beyond the rung as lie so little below it


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


def thinning(own: Floats, edge: Any, denser: float = DENSER) -> NDArray[np.float64]:
    """The rate (s,) at which a class lies beyond an edge if its own values only thin out towards it: `denser` times as
    often as less than BELOW under it."""
    return np.asarray(np.minimum(denser * ((own > edge - BELOW) & (own <= edge)).mean(1), 1 - 1e-9))


def natural_likeness(own: Floats, pool: Floats, rung: float, denser: float = DENSER) -> NDArray[np.float64]:
    """The rate (s,) of correlations above a rung, whichever is the larger: the natural one, or that of thinning."""
    z, edge = fisher(own), fisher(np.array(rung))
    return np.maximum(natural_rate(z, fisher(pool), edge), thinning(z, edge, denser))


def lump(values: Floats, edge: float) -> NDArray[np.bool_]:
    """Which values (n,) beyond an edge are the lump, without stragglers of nature between it and the edge.

    Of the gaps between them, from the edge up to their median, the widest parts the two, if it is wider than the middle
    half of what lies above it.
    """
    beyond = np.sort(values[values > edge])
    if len(beyond) < 4:
        return np.asarray(values > edge)
    low = np.concatenate([[edge], beyond[: len(beyond) // 2 + 1]])
    gaps = np.diff(low)
    widest = int(gaps.argmax())
    first, third = np.quantile(beyond[widest:], (0.25, 0.75))
    return np.asarray(values >= beyond[widest] if gaps[widest] > third - first else values > edge)
