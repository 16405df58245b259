"""Compute directions v (C,), of any length, in the space of activations (n, C) that separate members, bool (n,), from
images without the artifact. The pattern is the change of activations with the artifact; weights of classifiers also
contain parts that suppress other variation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from klarsicht.ground.arrays import Bools, Floats
from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.numerics import erasure
from klarsicht.numerics.neighbours import centre_by_group

Direction = Callable[[Floats, Bools], Floats]


def svm(a: Floats, member: Bools) -> Floats:
    """Compute the weights of a linear support vector machine (Kim et al. 2018, TCAV)."""
    return _by_channel(a, lambda x: LinearSVC(C=0.01, class_weight="balanced").fit(x, member).coef_[0])


def logistic(a: Floats, member: Bools) -> Floats:
    """Compute the weights of a logistic regression."""
    fit = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced")
    return _by_channel(a, lambda x: fit.fit(x, member).coef_[0])


def ridge(a: Floats, member: Bools) -> Floats:
    """Compute the weights of a ridge regression on membership."""
    return _by_channel(a, lambda x: Ridge(alpha=0.1 * len(x)).fit(x, member).coef_)


DIRECTIONS: dict[str, Direction] = {"pattern": erasure.pattern, "svm": svm, "logistic": logistic, "ridge": ridge}


def fit_direction(kind: str, a: Floats, member: Bools, sources: NDArray[np.integer[Any]]) -> Floats:
    """Compute a unit direction of a kind of `DIRECTIONS` from activations (n, C) pooled over positions. sources: (n,);
    where sources repeat, each activation is replaced by its difference from its source's median. Raises UsageError:
    unknown kind, or all or none of the images are members; InputError: members do not differ from the others."""
    if kind not in DIRECTIONS:
        raise unknown_name("direction", kind, DIRECTIONS)
    if not 0 < member.sum() < len(member):
        raise UsageError(
            "no two groups to separate", got=f"the artifact in {member.sum()} of {len(member)} images",
            rule="some images must carry the artifact and some must not",
        )  # fmt: skip
    rows: Floats = a.astype(np.float64)
    if len(np.unique(sources)) < len(sources):
        rows = centre_by_group(rows, sources)
    v = DIRECTIONS[kind](rows, member)
    length = np.linalg.norm(v)
    if not length > 0:
        raise InputError("images with the artifact do not differ at this layer", remedy="Choose another --layer.")
    return np.asarray(v / length)


def random_direction(channels: int, rng: np.random.Generator) -> Floats:
    """Draw a random unit direction: the first control of every correction."""
    v = rng.standard_normal(channels)
    return np.asarray(v / np.linalg.norm(v))


def _by_channel(a: Floats, weights: Callable[[Floats], Floats]) -> Floats:
    """Compute weights on channels scaled to unit deviation, and rescale them; a constant channel has weight 0."""
    deviation = a.std(0)
    moves = deviation > 1e-9 * max(np.abs(a).max(), 1e-30)
    scale = np.where(moves, deviation, 1)
    return np.asarray(np.where(moves, weights((a - a.mean(0)) / scale) / scale, 0))
