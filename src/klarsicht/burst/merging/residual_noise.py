"""Residual noise of a filtered picture, by the same weights on simulated noise. L counts brightness bins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from klarsicht.burst.data.photograph import Planes
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

EDGES = np.geomspace(1e-4, 1, 25)  # between brightness bins
FEWEST = 256  # pixels of a bin that is used
LEAST_SHOT = 1e-3  # of the variance: a NoiseProfile whose shot coefficient is 0 is refused by readers (DNG SDK)

NoiseMoments = npt.NDArray[np.float64]  # C L 3: sums of squared residual noise, of brightness, of pixels


def accumulate_moments(left: Planes, light: Planes) -> NoiseMoments:
    """Sum squared residual noise, brightness and pixels in each brightness bin, (C, L, 3)."""
    C, L = len(left), len(EDGES) + 1
    out = np.zeros((C, L, 3))
    for c in range(C):
        where = np.digitize(light[c].ravel(), EDGES)
        for k, values in enumerate((np.square(left[c]), light[c], np.ones_like(light[c]))):
            out[c, :, k] = np.bincount(where, values.ravel(), L)
    return out


def fit_noise_levels(parts: Iterable[NoiseMoments], before: Sequence[NoiseLevel]) -> tuple[NoiseLevel, ...]:
    """Fit one noise level for each channel; `before` where nothing was measured."""
    total = np.sum(list(parts), axis=0)
    if total.shape == ():
        return tuple(before)
    return tuple(fit_noise_level(total[c], before[c]) for c in range(len(total)))


def fit_noise_level(sums: npt.NDArray[np.float64], before: NoiseLevel) -> NoiseLevel:
    """Fit read^2 + shot x to the mean squares of (L, 3) sums by non-negative least squares; shot is kept above 0."""
    squares, light, n = sums[sums[:, 2] >= FEWEST].T
    if not len(n):
        return before
    v, x = squares / n, np.maximum(light / n, 0)
    weight = np.sqrt(n) / np.maximum(v, 1e-15)
    least = LEAST_SHOT * float(np.average(v, weights=n)) or before.shot * LEAST_SHOT
    (read2, shot), _ = nnls(np.stack([weight, x * weight], 1), (v - least * x) * weight)
    return NoiseLevel(float(np.sqrt(read2)), float(shot) + least)
