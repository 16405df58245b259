"""Decide in which classes the model follows a group of images that no detector knows, or the fine texture of all.

Natural groups of a class raise it wherever their content is inserted, and every class has a cluster that stands apart
most. So both figures of the followed cluster, its rise on images of other classes and its distance from the rest of its
class, count by their rank among classes, as the scores of detectors do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from klarsicht.audit.results.class_verdict import order_verdicts
from klarsicht.audit.results.logit_effect import LogitEffect, matters
from klarsicht.audit.results.rows import FollowedRow
from klarsicht.audit.results.significance import class_strategy
from klarsicht.audit.results.sufficiency import Sufficiency
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.numerics.statistics.intervals import Interval


def mark_followed_groups(
    verdicts: Quantification, clusters: Sequence[FollowedRow], paths: Sequence[str]
) -> Quantification:
    """Set the verdict of a followed group on classes without a detection, where `select_followed_groups` selects the
    cluster.

    Args:
        clusters: rows of the table `followed`; a class without one was left, for nothing in it rises.
        paths: of all images of the run.
    """
    of_class = {row["target"]: row for row in clusters}
    selected = select_followed_groups([of_class.get(verdict.target) for verdict in verdicts], verdicts.level)
    marked = [
        replace(verdict, followed=True, rows=tuple(row["rows"]), members=tuple(paths[i] for i in row["rows"]))
        if row is not None and not verdict.artifactual
        else verdict
        for verdict, row in zip(verdicts, selected, strict=True)
    ]
    return replace(verdicts, verdicts=order_verdicts(marked))


def mark_followed_textures(verdicts: Quantification, textures: Sufficiency) -> Quantification:
    """Set on classes that the model follows by the fine texture of all of their images what was measured.

    Args:
        textures: profiles of the fine texture; those of its headlines count.
    """
    sentences = {line.profile.target: line.headline for line in textures.headlines}
    every = [replace(verdict, texture=sentences.get(verdict.target, "")) for verdict in verdicts]
    return replace(verdicts, verdicts=order_verdicts(every))


def select_followed_groups(clusters: Sequence[FollowedRow | None], level: float) -> list[FollowedRow | None]:
    """Select the followed clusters that rise and stand apart beyond those of other classes; None for every other class.

    Args:
        clusters: a row of the table `followed` for each class, None where the class was left.
        level: of p, the rank of the larger figure among classes.
    """
    p = class_strategy(len(clusters)).p_of_largest(np.array([_scores(row) for row in clusters]))
    return [row if row and one <= level and _raises(row) else None for row, one in zip(clusters, p, strict=True)]


def _scores(row: FollowedRow | None) -> tuple[float, float]:
    """Return the lower end of the rise in logits, and the distance in deviations; 0 without a cluster."""
    return (max(row["low"], 0.0), float(np.sqrt(row["d2"]))) if row else (0.0, 0.0)


def _raises(row: FollowedRow) -> bool:
    """Say whether the group raises its class most of all outputs, and by enough to matter."""
    rise = Interval(row["effect"], row["low"], row["high"], row["images"])
    return row["rank"] == 0 and matters(LogitEffect(rise))
