"""Likeness of artifacts of classes: how their members differ from their other images, in the model's features.

An artifact moves the features of its carriers alike, whatever the class. The shift of a class is the difference of the
means of members and others in each feature, over its standard error; two classes are as alike as the cosine between
their shifts.
"""

from __future__ import annotations

import numpy as np

from klarsicht.ground.arrays import Doubles, Floats

LEAST_LIKENESS = 0.65  # mean cosine from which classes are proposed as one finding
LEAST_ERRORS = 2.0  # standard errors; differences in a feature below this are taken for chance
LEAST_SPREAD = 0.05  # of a feature's standard deviation over all images, that members and others have at least
LEAST_FEATURES = 4.0  # effective number of features of a shift; the cosine between shifts of fewer says too little


def feature_shift(members: Floats, others: Floats) -> Doubles:
    """Compute the shift (D,) between features of members (m, D) and others (n, D) in standard errors, with those below
    LEAST_ERRORS shrunk to 0 and the rest by as much; 0 where either are fewer than two."""
    m, n = len(members), len(others)
    if min(m, n) < 2:
        return np.zeros(members.shape[1])
    a, b = members.astype(np.float64), others.astype(np.float64)
    least = (LEAST_SPREAD * np.concatenate([a, b]).std(0)) ** 2
    error = np.sqrt(np.maximum(a.var(0, ddof=1), least) / m + np.maximum(b.var(0, ddof=1), least) / n)
    known = error > 1e-12
    t = np.where(known, (a.mean(0) - b.mean(0)) / np.where(known, error, 1), 0.0)
    return np.asarray(np.sign(t) * np.maximum(np.abs(t) - LEAST_ERRORS, 0))


def effective_features(shifts: Doubles) -> Doubles:
    """Compute the participation ratio (k,) of shifts s (k, D): (sum of s^2)^2 / sum of s^4, 1 to D, and 0 of none."""
    squares = shifts**2
    fourth = (squares**2).sum(1)
    return np.asarray(np.where(fourth > 0, squares.sum(1) ** 2 / np.where(fourth > 0, fourth, 1), 0))


def shift_likeness(shifts: Doubles) -> Doubles:
    """Compute the likeness (k, k) of classes by their shifts (k, D): the cosines, 0 beside the diagonal where either
    shift rests on fewer than LEAST_FEATURES features: two artifacts that move one feature are not the same."""
    wide = effective_features(shifts) >= LEAST_FEATURES
    return np.asarray(cosines(shifts) * ((wide[:, None] & wide) | np.eye(len(shifts), dtype=bool)))


def cosines(shifts: Doubles) -> Doubles:
    """Compute the cosines (k, k) between shifts (k, D); 0 where one has no length."""
    length = np.linalg.norm(shifts, axis=1, keepdims=True)
    unit = shifts / np.where(length > 0, length, 1)
    return np.asarray(unit @ unit.T)


def group_alike(likeness: Doubles, least: float = LEAST_LIKENESS) -> list[list[int]]:
    """Group k items by their likeness (k, k) by average linkage down to `least`, sorted by their first item."""
    from scipy.cluster.hierarchy import average, fcluster
    from scipy.spatial.distance import squareform

    if len(likeness) < 2:
        return [[i] for i in range(len(likeness))]
    numbers = fcluster(average(squareform(1 - likeness, checks=False)), 1 - least, "distance")
    return sorted(np.flatnonzero(numbers == number).tolist() for number in np.unique(numbers))
