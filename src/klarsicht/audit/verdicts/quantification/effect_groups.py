"""Find the group of images whose regions raise the class, by a prediction of the rise from features.

The effect of a single image is noisy. Ridge regression predicts it from features, for each half of the images from the
other half, so that no image's own effect determines its membership. Two groups are then separated by Otsu's threshold
(1979), only where the division explains more variance than that of a normal distribution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from klarsicht.audit.verdicts.interventions.regions import correlation
from klarsicht.ground.arrays import Bools, Floats

RIDGE_PENALTIES = np.logspace(1, 5, 9)
TWO_GROUPS = 0.7  # share of the variance between two groups; the halves of a normal distribution have 2 / pi = 0.64


def predict_rise(features: Floats, rows: NDArray[np.intp], rise: Floats, half: Bools) -> Floats:
    """Predict the rise of n images from their features (n, F) by ridge regression on those `rows` (m,) whose rise (m,)
    is known: for these, from the other half; for the others, the mean of both predictions."""
    predictions = []
    for side in (half, ~half):
        fit = make_pipeline(StandardScaler(), RidgeCV(RIDGE_PENALTIES)).fit(features[rows[side]], rise[side])
        predictions.append(fit.predict(features))
    out = np.mean(predictions, 0)
    out[rows[half]], out[rows[~half]] = predictions[1][rows[half]], predictions[0][rows[~half]]
    return np.asarray(out)


def select_upper_group(features: Floats, rows: NDArray[np.intp], rise: Floats, half: Bools) -> Bools:
    """Select the members (n,) of the upper group; none without two groups, or where it exceeds half of the images."""
    values = predict_rise(features, rows, rise, half)
    upper = values >= otsu_threshold(values)
    parted = correlation(upper, values) ** 2 > TWO_GROUPS and upper.mean() <= 0.5
    return upper if parted else np.zeros_like(upper)


def otsu_threshold(values: Floats) -> float:
    """Compute the smallest value of the upper group at the division of largest variance between the groups (Otsu)."""
    x = np.sort(np.asarray(values, np.float64))
    below = np.arange(1, len(x))
    low, above = np.cumsum(x)[:-1], len(x) - below
    between = below * above * ((x.sum() - low) / above - low / below) ** 2
    return float(x[1:][between.argmax()])
