"""Measure whether what was put on images is recognised: whether an embedding moves them as it sets carriers apart."""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.metrics import roc_auc_score

from klarsicht.ground.arrays import Floats

PARTED: Final = 0.9  # area under the curve from which an embedding sets carriers apart from other images of their class


def recognised_share(own: Floats, other: Floats, after: Floats) -> float:
    """Compute the share of marked images that lie on the carriers' side: beyond the middle between carriers and others
    in the direction of the difference of their means. Direction and middle are those of one half of carriers and
    others, the images those of the other half, both ways round. NaN where the halves are not set apart by PARTED.

    Args:
        own, other: embedded carriers (m, d) and others of their class (k, d), at least four of either.
        after: the same others (k, d) with the artifact put on.
    """
    sides: list[tuple[Floats, Floats, Floats]] = []
    for side in (0, 1):
        (fit_own, held_own), (fit_other, held_other) = ((x[side::2], x[1 - side :: 2]) for x in (own, other))
        direction = fit_own.mean(0) - fit_other.mean(0)
        middle = (fit_own.mean(0) + fit_other.mean(0)) / 2
        sides.append(tuple((x - middle) @ direction for x in (held_own, held_other, after[1 - side :: 2])))
    carriers, others, with_artifact = (np.concatenate(parts) for parts in zip(*sides, strict=True))
    carries = np.arange(len(carriers) + len(others)) < len(carriers)
    if roc_auc_score(carries, np.concatenate([carriers, others])) < PARTED:
        return float("nan")
    return float((with_artifact > 0).mean())
