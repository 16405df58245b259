"""The noise that is left in a filtered picture: fresh noise sent through the same weights, and measured.

Axes: C channels, H W pixels, L bins of light.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from klarsicht.burst.data.photograph import Planes
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

EDGES = np.geomspace(1e-4, 1, 25)  # of light, between bins
FEWEST = 256  # pixels in a bin
LEAST_SHOT = 1e-3  # of the variance: a NoiseProfile whose shot coefficient is 0 is refused by readers (DNG SDK)

Sums = npt.NDArray[np.float64]  # C L 3: squares of what is left of the noise, light, pixels


def sums(left: Planes, light: Planes) -> Sums:
    """Of the noise that is left, by the light it lies on."""
    C, L = len(left), len(EDGES) + 1
    out = np.zeros((C, L, 3))
    for c in range(C):
        where = np.digitize(light[c].ravel(), EDGES)
        for k, values in enumerate((np.square(left[c]), light[c], np.ones_like(light[c]))):
            out[c, :, k] = np.bincount(where, values.ravel(), L)
    return out


def levels(parts: Iterable[Sums], before: Sequence[NoiseLevel]) -> tuple[NoiseLevel, ...]:
    """One a channel; where there was nothing to measure, as before."""
    total = np.sum(list(parts), axis=0)
    if total.shape == ():
        return tuple(before)
    return tuple(level(total[c], before[c]) for c in range(len(total)))


def level(sums: npt.NDArray[np.float64], before: NoiseLevel) -> NoiseLevel:
    """(L, 3): the line read^2 + shot x through mean squares, weighted by how sure each is; shot is above 0."""
    squares, light, n = sums[sums[:, 2] >= FEWEST].T
    if not len(n):
        return before
    v, x = squares / n, np.maximum(light / n, 0)
    weight = np.sqrt(n) / np.maximum(v, 1e-15)
    least = LEAST_SHOT * float(np.average(v, weights=n)) or before.shot * LEAST_SHOT
    (read2, shot), _ = nnls(np.stack([weight, x * weight], 1), (v - least * x) * weight)
    return NoiseLevel(float(np.sqrt(read2)), float(shot) + least)
