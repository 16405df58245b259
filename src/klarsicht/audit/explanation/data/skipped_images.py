"""Bound on the share of images without a result, of a corpus and of each of its classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.label_cells import split_labels
from klarsicht.ground.errors import TooManySkipped

MOST_SKIPPED: Final = 0.1  # share of images, or of those of one class, that may be without a result
SHARE_ROUNDING: Final = 1e-9  # of a share times a number, such as 0.29 times 100


def most_skipped(images: int, share: float) -> int:
    """Return how many of so many images may be without a result: their share, rounded down, but 1 where it is not 0,
    since one damaged image in a class of three is no sign of a fault."""
    return max(1, math.floor(share * images + SHARE_ROUNDING)) if share else 0


class SkippedImages:
    """Images without a result, counted as they become known; at most a share, 0 to 1, of the rows of a corpus, and of
    each label, may be."""

    def __init__(self, corpus: Corpus, share: float) -> None:
        self.corpus, self.share = corpus, share
        self.reasons: dict[int, str] = {}

    @cached_property
    def _sizes(self) -> Counter[str]:
        """Number of rows of each label."""
        return self._labels(range(len(self.corpus)))

    def _labels(self, rows: range | Mapping[int, str]) -> Counter[str]:
        cells = Counter(self.corpus.labels[row] for row in rows)
        counts = Counter[str]()
        for cell, count in cells.items():
            counts.update(dict.fromkeys(split_labels(cell, self.corpus.separator), count))
        return counts

    def add(self, reasons: Mapping[int, str]) -> None:
        """Add rows, each with the reason why it has no result; a known row is counted once. Raises TooManySkipped."""
        self.reasons |= reasons
        if len(self.reasons) > most_skipped(len(self.corpus), self.share):
            raise self._error("of all images", len(self.corpus), self.reasons)
        for label, count in (self._labels(self.reasons) if self.reasons else {}).items():
            if count > most_skipped(self._sizes[label], self.share):
                own = {row: why for row, why in self.reasons.items() if label in self._labels({row: ""})}
                raise self._error(f"of class {label}", self._sizes[label], own)

    def _error(self, which: str, number: int, reasons: Mapping[int, str]) -> TooManySkipped:
        why, _ = Counter(reasons.values()).most_common(1)[0]
        row = next(row for row, reason in reasons.items() if reason == why)
        return TooManySkipped(
            f"too many images cannot be used: {len(reasons)} of {number} {which}",
            got=f"{self.corpus.paths[row]}: {why}",
            rule=f"at most {most_skipped(number, self.share)} may be skipped, a share of {self.share:g}",
            remedy="Check these: the same command tries them again. Repaired files need another --out. Or allow "
            "more by --max-skipped.",
        )
