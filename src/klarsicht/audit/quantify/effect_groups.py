"""The group that the rise itself makes: images whose parts raise the class, and images whose features foretell it.

Spectral clusters stand on features or on maps, and know nothing of the effect; the effect of a single image is noisy.
Features foretell it by ridge regression, each half of the images from the other half, so that no image's own effect
decides whether it is a member; two groups are then told apart where they differ most (Otsu 1979). Every set of values
can be cut there: they are two groups only where the cut explains more than one through a bell curve does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from klarsicht.audit.interventions.region_insertion import correlation
from klarsicht.ground.arrays import Bools, Floats

PENALTIES = np.logspace(1, 5, 9)
PARTED = 0.7  # share of the variance between two groups; between the halves of a bell curve it is 2 / pi = .64


def foretold(features: Floats, tried: NDArray[np.intp], rise: Floats, half: Bools) -> Floats:
    """The rise of n images as their features (n, F) foretell it, from those that were tried, whose rise (m,) is known:
    of those from the half (m,) that they are not in, of the others from the mean of both."""
    told = []
    for side in (half, ~half):
        fit = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(features[tried[side]], rise[side])
        told.append(fit.predict(features))
    out = np.mean(told, 0)
    out[tried[half]], out[tried[~half]] = told[1][tried[half]], told[0][tried[~half]]
    return np.asarray(out)


def risen(features: Floats, tried: NDArray[np.intp], rise: Floats, half: Bools) -> Bools:
    """Members (n,) of the upper group; none where there are no two groups, or it is more than half of the images."""
    values = foretold(features, tried, rise, half)
    upper = values >= parting(values)
    parted = correlation(upper, values) ** 2 > PARTED and upper.mean() <= 0.5
    return upper if parted else np.zeros_like(upper)


def parting(values: Floats) -> float:
    """The smallest value of the upper of two groups, parted where the variance between them is largest."""
    x = np.sort(np.asarray(values, np.float64))
    below = np.arange(1, len(x))
    low, above = np.cumsum(x)[:-1], len(x) - below
    between = below * above * ((x.sum() - low) / above - low / below) ** 2
    return float(x[1:][between.argmax()])
