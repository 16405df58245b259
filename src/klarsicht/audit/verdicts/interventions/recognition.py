"""Measure whether what was put on images is recognised: whether an embedding moves them as it sets carriers apart; and
whether it is all that tells carriers from other images of their class."""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from klarsicht.ground.arrays import Floats
from klarsicht.numerics.statistics.logits import rounding_bound

PARTED: Final = 0.9  # area under the curve from which an embedding sets carriers apart from other images of their class
FEWEST_TOLD: Final = 20  # carriers, with 64 others: an area of 0.65 then lies two standard errors above chance
PARTS: Final = 4  # of the images; those of each are ordered by a discriminant of the others


def recognised_share(own: Floats, other: Floats, after: Floats) -> float:
    """Compute the share of marked images that lie on the carriers' side: beyond the middle between carriers and others
    in the direction of the difference of their means. Direction and middle are those of one half of carriers and
    others, the images those of the other half, both ways round. NaN where the halves are not set apart by PARTED.

    Args:
        own, other: embedded carriers (m, d) and others of their class (k, d), at least four of either.
        after: the same others (k, d) with the artifact put on.
    """
    with_artifact = project_halves(own, other, after)[2]
    return float((with_artifact > 0).mean()) if sets_apart(own, other) else float("nan")


def separation(own: Floats, other: Floats) -> float:
    """Compute the area under the curve by which an embedding tells carriers (m, d) from others of their class (k, d),
    along the difference of their means, each half by that of the other; 0.5 by chance. NaN with fewer than four of
    either."""
    return area(*project_halves(own, other, other)[:2]) if min(len(own), len(other)) >= 4 else float("nan")


def sets_apart(own: Floats, other: Floats) -> bool:
    """Test whether an embedding sets carriers (m, d) apart from others of their class (k, d), by PARTED."""
    return separation(own, other) >= PARTED


def project_halves(own: Floats, other: Floats, after: Floats) -> tuple[Floats, Floats, Floats]:
    """Project carriers, others, and these with the artifact, each half by the direction and middle of the other."""
    sides: list[tuple[Floats, Floats, Floats]] = []
    for side in (0, 1):
        (fit_own, held_own), (fit_other, held_other) = ((x[side::2], x[1 - side :: 2]) for x in (own, other))
        direction = fit_own.mean(0) - fit_other.mean(0)
        middle = (fit_own.mean(0) + fit_other.mean(0)) / 2
        sides.append(tuple((x - middle) @ direction for x in (held_own, held_other, after[1 - side :: 2])))
    carriers, others, with_artifact = (np.concatenate(parts) for parts in zip(*sides, strict=True))
    return carriers, others, with_artifact


def area(carriers: Floats, others: Floats) -> float:
    """Compute the area under the curve by which values tell carriers (m,) from others (k,)."""
    return float(roc_auc_score(np.arange(len(carriers) + len(others)) < len(carriers), np.r_[carriers, others]))


def remaining_separation(own: Floats, other: Floats, after: Floats) -> float:
    """Compute how well outputs still tell carriers from others of their class that have the artifact put on: the area
    under the curve of a linear discriminant with a shrunk covariance, on images that it was not fitted to, once the
    direction in which the artifact moves the outputs is taken out. 0.5 where the artifact was all that they share, or
    where no more is left than rounding, as of two outputs; more where they show the same content. NaN with fewer than
    FEWEST_TOLD of either.

    Args:
        own, other: outputs of carriers (m, K) and of others (k, K).
        after: those of the same others with the artifact put on (k, K).
    """
    if min(len(own), len(other)) < FEWEST_TOLD:
        return float("nan")
    x, carries = np.concatenate([own, after]), np.arange(len(own) + len(after)) < len(own)
    move = (after - other).mean(0)
    move /= max(float(np.linalg.norm(move)), 1e-12)
    u, s, _ = np.linalg.svd(x - x.mean(0) - np.outer((x - x.mean(0)) @ move, move), full_matrices=False)
    beyond_rounding = s > np.sqrt(len(x)) * rounding_bound(x)
    x = u[:, beyond_rounding] * s[beyond_rounding]
    if not x.shape[1]:
        return 0.5
    part = np.concatenate([np.arange(len(group)) % PARTS for group in (own, after)])
    areas = []
    for held in (part == k for k in range(PARTS)):
        fit = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[~held], carries[~held])
        areas.append(roc_auc_score(carries[held], fit.decision_function(x[held])))
    return float(np.mean(areas))
