"""Merge artifacts of a class that are one mark: the search of a whole class found some of its images, and the search of
what was left found others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.significance import SAME
from klarsicht.numerics.statistics.split_half import combined_p


def merge_same_marks(
    artifacts: Sequence[Verdict], searches: Mapping[int, Sequence[SignRow]], level: float
) -> tuple[Verdict, ...]:
    """Merge those artifacts of a class that `are_one_mark`. What is merged keeps detection and effect of the first that
    the model uses, or of the first, and has the images of all.

    Args:
        artifacts: the first artifact of the class, and its further ones, in the order of their searches.
        searches: of each search, from 1, its detections.
        level: of p, from which on a detection is significant.
    """
    groups: list[list[int]] = []
    for number, one in enumerate(artifacts, 1):
        same = (
            group for group in groups
            if any(are_one_mark(artifacts[i - 1], one, searches.get(i, ()), level) for i in group)
        )  # fmt: skip
        if (group := next(same, None)) is not None:
            group.append(number)
        else:
            groups.append([number])
    if len(groups) == len(artifacts):
        return tuple(artifacts)
    return tuple(_join({number: artifacts[number - 1] for number in group}) for group in groups)


def are_one_mark(first: Verdict, second: Verdict, signs: Sequence[SignRow], level: float) -> bool:
    """Say whether one window matches both groups of images: a significant detection by windows has at least SAME of the
    images of each, and a Jaccard index of at least SAME with those of both together. Other detections see images that
    differ from their class in any way, and different marks do.

    Args:
        signs: the detections of the search that found the first, in whose images are those of the second.
    """
    one, other = {*first.rows}, {*second.rows}
    for sign in signs:
        rows, both = {*sign["rows"]}, one | other
        shares = len(rows & one) / len(one), len(rows & other) / len(other), len(rows & both) / len(rows | both)
        if sign["places"] and min(shares) >= SAME and combined_p(sign["score"], len(signs)) <= level:
            return True
    return False


def _join(parts: Mapping[int, Verdict]) -> Verdict:
    """Join verdicts on one mark, by the numbers of the searches that found it."""
    paths = {row: path for one in parts.values() for row, path in zip(one.rows, one.members, strict=True)}
    main = next((one for one in parts.values() if one.used), next(iter(parts.values())))
    rows = tuple(sorted(paths))
    return replace(
        main, rows=rows, members=tuple(paths[row] for row in rows),
        searches=tuple((number, one.detection.sign) for number, one in parts.items()),
    )  # fmt: skip
