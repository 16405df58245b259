"""Check of whether the labels of a corpus are numbered in the order of the model's outputs. Where the model gives no
class names, class folders are numbered in sorted order, and the wrong output might be explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, binomtest

from klarsicht.ground.arrays import Ints
from klarsicht.ground.errors import CorpusError

MIN_RATIO: Final = 2.0  # "far better": at least this many times as many images predicted by another order
MIN_AGREEMENT: Final = 0.5  # least accuracy under the best numbering of all labels; a poor model reaches it in no order
ALARM_LEVEL: Final = 0.05  # probability of naming any permuted labels where none are
CONFIDENCE: Final = 0.95  # of the interval that is told
NAMED: Final = 5  # labels that a note names


@dataclass(frozen=True)
class PermutedLabels:
    """Labels whose images are predicted as one another, in a cycle: images of `outputs[i]` as `outputs[i + 1]`, of the
    last as the first. Counted are the images with these labels, those predicted as the next label (`moved`) and as
    their own."""

    outputs: tuple[int, ...]
    images: int
    moved: int
    own: int

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson interval of the share moved / images."""
        found = binomtest(self.moved, self.images).proportion_ci(CONFIDENCE, "exact")
        return float(found.low), float(found.high)

    def describe(self, names: Sequence[str]) -> str:
        low, high = self.interval
        pairs = zip(self.outputs, (*self.outputs[1:], self.outputs[0]), strict=True)
        texts = [f"{names[a]} as {names[b]}" for a, b in pairs]
        more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
        return (
            f"{', '.join(texts[:NAMED])}{more}: {self.moved / self.images:.0%} of their {self.images} images "
            f"({low:.0%} to {high:.0%}), as their own label {self.own / self.images:.0%}"
        )


@dataclass(frozen=True)
class Order:
    """Accuracy in [0, 1] of the predictions under the given (`right`) and under the best numbering of the labels, and
    the cycles of labels that the predictions permute."""

    right: float
    best: float
    permuted: tuple[PermutedLabels, ...] = ()

    @classmethod
    def of(cls, labels: Ints, predicted: Ints, outputs: int) -> Order:
        """Compute both accuracies and the cycles from labels and predictions (n,), each in 0 to outputs - 1. The best
        numbering solves the linear assignment problem on the confusion matrix."""
        counts = np.zeros((outputs, outputs), np.int64)
        np.add.at(counts, (labels, predicted), 1)
        best = counts[linear_sum_assignment(counts, maximize=True)].sum()
        n = max(len(labels), 1)
        return cls(float(np.trace(counts) / n), float(best / n), tuple(_permuted_labels(counts)))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Order:
        """Restore what `to_json` gave."""
        cycles = (PermutedLabels(**cycle | {"outputs": tuple(cycle["outputs"])}) for cycle in record["permuted"])
        return cls(record["right"], record["best"], tuple(cycles))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def doubtful(self) -> bool:
        return bool(self.permuted) or (self.best >= MIN_AGREEMENT and self.best > MIN_RATIO * self.right)

    def require_given(self, names: Sequence[str]) -> None:
        """Check that predictions permute no labels; raises CorpusError. The best order of all, which fits few images by
        chance, is only a note."""
        if self.permuted:
            raise CorpusError(
                "predictions match the labels in another order", got=self.describe(names),
                rule="an audit would explain the wrong output of every such image",
                remedy="Name the output of each label in a CSV file with the columns label,index, and give it to "
                "`audit run` as --class-map; or, if the labels are right, --accept-labels.",
            )  # fmt: skip

    def describe(self, names: Sequence[str]) -> str:
        """Describe the doubt in one sentence with the names of the K outputs."""
        if self.permuted:
            return "labels look permuted; predicted are " + "; ".join(one.describe(names) for one in self.permuted)
        return (
            f"{self.right:.0%} of images are predicted as their label, and {self.best:.0%} if the labels are numbered "
            "in another order"
        )


def _permuted_labels(counts: Ints) -> Iterator[PermutedLabels]:
    """Find the cycles of labels that predictions permute, from the confusion matrix (K, K), labels in rows.

    A label k is moved to l if l is its commonest prediction, at least MIN_RATIO times as many of its images are
    predicted as l as are as k, and a binomial test rejects that l is no likelier than k, at ALARM_LEVEL divided by the
    number of ordered pairs of labels (Bonferroni). If no permutation explains the predictions, every cycle has a label
    with p_kl <= p_kk, so that the probability that any cycle of moved labels is named is at most ALARM_LEVEL.
    """
    given = np.flatnonzero(counts.sum(1))
    pairs = max(len(given) * (len(given) - 1), 1)
    likeliest = counts.argmax(1)
    there, own = counts[np.arange(len(counts)), likeliest], counts.diagonal()
    surprise = binom.sf(there - 1, there + own, 0.5)
    moved = (
        (there > 0)
        & (there >= MIN_RATIO * own)
        & (likeliest != np.arange(len(counts)))
        & (surprise <= ALARM_LEVEL / pairs)
    )
    follow = {int(k): int(likeliest[k]) for k in np.flatnonzero(moved)}
    for cycle in _cycles(follow):
        at = list(cycle)
        yield PermutedLabels(cycle, int(counts[at].sum()), int(there[at].sum()), int(own[at].sum()))


def _cycles(follow: Mapping[int, int]) -> Iterator[tuple[int, ...]]:
    """Find the cycles k -> follow[k] -> ... -> k, each from its smallest number."""
    for start in sorted(follow):
        path = [start]
        while (k := follow.get(path[-1])) is not None and k not in path:
            path.append(k)
        if k == start == min(path):
            yield tuple(path)
