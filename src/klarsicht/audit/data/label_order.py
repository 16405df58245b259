"""Check of whether the labels of a corpus are numbered in the order of the model's outputs.

Where the model gives no class names, class folders are numbered in sorted order, and the model may number its classes
differently. The audit would then explain the wrong output for every image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from klarsicht.ground.arrays import Ints

MIN_RATIO: Final = 2.0  # the order is doubtful if the best numbering raises the accuracy by more than this factor
MIN_AGREEMENT: Final = 0.5  # least accuracy under the best numbering; a poor model reaches it in no order


@dataclass(frozen=True)
class Order:
    """Accuracy of the predictions under the given and under the best numbering of the labels, each in [0, 1].

    Attributes:
        right: accuracy with the labels as they are numbered.
        best: accuracy under the permutation of label numbers that maximises it.
    """

    right: float
    best: float

    @classmethod
    def of(cls, labels: Ints, predicted: Ints, outputs: int) -> Order:
        """Compute both accuracies from labels and predictions (n,), each in 0 to outputs - 1.

        The best numbering solves the linear assignment problem on the confusion matrix.
        """
        counts = np.zeros((outputs, outputs), np.int64)
        np.add.at(counts, (labels, predicted), 1)
        best = counts[linear_sum_assignment(counts, maximize=True)].sum()
        n = max(len(labels), 1)
        return cls(float(np.trace(counts) / n), float(best / n))

    @property
    def doubtful(self) -> bool:
        return self.best >= MIN_AGREEMENT and self.best > MIN_RATIO * self.right

    def __str__(self) -> str:
        return (
            f"The labels may be numbered in another order than the model's outputs: {self.right:.0%} of images are "
            f"predicted as their label, in the best order {self.best:.0%}. Name the right one with --class-map."
        )

    def to_json(self) -> dict[str, float]:
        return asdict(self)
