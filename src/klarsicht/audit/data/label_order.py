"""Do the labels of a corpus name the model's outputs in the right order?

Folders are sorted by name where the model says no names, and a model may count its classes otherwise. Then the audit
asks of every image why it is taken for something that it is not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from klarsicht.ground.arrays import Ints

BETTER: Final = 2.0  # times as many images right in another order: then the order is doubted
MOST: Final = 0.5  # of the images at least: a poor model is right about few in any order


@dataclass(frozen=True)
class Order:
    """Shares of images whose label the model predicts.

    Attributes:
        right: as the labels are numbered. best: numbered anew, one number a label, so that most agree.
    """

    right: float
    best: float

    @classmethod
    def of(cls, labels: Ints, predicted: Ints, outputs: int) -> Order:
        """Of images with a label (n,) in 0 to outputs - 1; the best order is the assignment of most counts."""
        counts = np.zeros((outputs, outputs), np.int64)
        np.add.at(counts, (labels, predicted), 1)
        best = counts[linear_sum_assignment(counts, maximize=True)].sum()
        n = max(len(labels), 1)
        return cls(float(np.trace(counts) / n), float(best / n))

    @property
    def doubtful(self) -> bool:
        return self.best >= MOST and self.best > BETTER * self.right

    def __str__(self) -> str:
        return (
            f"The labels may be numbered in another order than the model's outputs: {self.right:.0%} of images are "
            f"predicted as their label, in the best order {self.best:.0%}. Name the right one with --class-map."
        )

    def to_json(self) -> dict[str, float]:
        return asdict(self)
