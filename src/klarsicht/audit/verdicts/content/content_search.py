"""Find, for a class, the group of pictures of other things that the class likes and that are alike.

Pictures of a pile are ordered by the logarithm of the class's probability, less a part of the largest among the classes
most like it: a picture of a similar object is liked by all of these, a picture of mere context by few. Among the first
ones the group is grown that scores high and is alike in the features that go into the network's last layer. Random
pictures of the pile, with the same scores, say how alike a group is that such a search finds by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints, Rows
from klarsicht.numerics.clustering.tight_groups import GroupSearch, TightGroup, centred_cosines
from klarsicht.numerics.statistics.logits import EXCLUSIVE, LogitScale

MOST_LIKED: Final = 40  # pictures among which the group is grown; at most half of the pile
FEWEST_LIKED: Final = 16  # with fewer, nothing is compared
OUTPUTS_ALIKE: Final = 30  # outputs that vary most like the class over the pile
SHARE_OF_ALIKE: Final = 0.3  # of their largest log-probability that is taken off
CONTENT_SEARCH: Final = GroupSearch(weight=2.0, price=2.0, least=3, most=6)
RANDOM_GROUPS: Final = 99
FIRST_OUTPUTS, SHARE_OF_OUTPUTS = 5, 0.05
REFERENCE_PICTURES: Final = 200  # pictures whose mean features are taken off


@dataclass(frozen=True)
class FoundGroup:
    """Group of pictures, and how often chance gives one as much alike.

    Attributes:
        rows: of the pile, int (m,).
        tightness: see TightGroup.
        p: share of random groups that are as tight.
        likings: pictures of the group in which the class is among the first outputs.
    """

    rows: Rows
    tightness: float
    p: float
    likings: int


@dataclass(frozen=True)
class PicturePile:
    """Pictures as a network sees them.

    Attributes:
        logits: float (N, K).
        features: float (N, F), that go into the last layer.
        scale: on which the logits count.
    """

    logits: Floats
    features: Floats
    scale: LogitScale = EXCLUSIVE

    @cached_property
    def log_probabilities(self) -> Doubles:
        """Logarithms of the probabilities of all outputs, (N, K)."""
        every = slice(None)
        return np.asarray(self.scale.log_probability(self.logits, every), np.float64)  # type: ignore[arg-type]

    @cached_property
    def _variation(self) -> Doubles:
        """Scores of outputs (N, K), each less its mean over the pile and scaled to a length of one."""
        scores = self.scale.scores(np.asarray(self.logits, np.float64))
        apart = scores - scores.mean(0)
        return np.asarray(apart / np.maximum(np.linalg.norm(apart, axis=0), 1e-12))

    def neighbours(self, target: int) -> Ints:
        """Return the outputs that vary most like an output over the pile, OUTPUTS_ALIKE at most."""
        alike = self._variation.T @ self._variation[:, target]
        alike[target] = -np.inf
        return np.argsort(-alike, kind="stable")[: min(OUTPUTS_ALIKE, len(alike) - 1)]

    def measure_liking(self, target: int) -> Doubles:
        """Compute the log-probability of an output, less a share of the largest of its neighbours: (N,)."""
        others = self.log_probabilities[:, self.neighbours(target)].max(1)
        return np.asarray(self.log_probabilities[:, target] - SHARE_OF_ALIKE * others, np.float64)

    def is_among_first(self, target: int, rows: Rows) -> Bools:
        """Tell of rows (n,) whether an output is among their FIRST_OUTPUTS, or the first SHARE_OF_OUTPUTS of few."""
        ahead = (self.logits[rows] > self.logits[rows, target][:, None]).sum(1)
        return np.asarray(ahead < max(1, min(FIRST_OUTPUTS, int(SHARE_OF_OUTPUTS * self.logits.shape[1]))))

    def order(self, target: int, others: Rows) -> Rows:
        """Order rows of pictures that are not of the class by the liking of an output, the largest first."""
        return others[np.argsort(-self.measure_liking(target)[others], kind="stable")]

    def find_group(
        self, target: int, first: Rows, others: Rows, rng: np.random.Generator, search: GroupSearch = CONTENT_SEARCH
    ) -> FoundGroup | None:
        """Find the group of an output among pictures of other things; None of fewer than FEWEST_LIKED.

        Args:
            first: rows of the pictures among which it is grown.
            others: rows of all pictures that are not of the class.
        """
        if len(first) < FEWEST_LIKED:
            return None
        liking, rest = self.measure_liking(target), np.setdiff1d(others, first)
        scores = (liking[first] - liking[others].mean()) / max(float(liking[others].std()), 1e-12)
        reference = rng.permutation(rest)[:REFERENCE_PICTURES]

        def search_among(rows: Rows) -> TightGroup:
            tight = search.find(centred_cosines(self.features[rows], self.features[reference]), scores)
            assert tight is not None  # there are FEWEST_LIKED
            return tight

        group = search_among(first)
        apart = np.setdiff1d(others, first[group.members])
        drawn = (search_among(rng.permutation(apart)[: len(first)]) for _ in range(RANDOM_GROUPS))
        as_tight = sum(one.tightness >= group.tightness for one in drawn)
        p = (1 + as_tight) / (1 + RANDOM_GROUPS)
        rows = first[group.members]
        return FoundGroup(rows, group.tightness, float(p), int(self.is_among_first(target, rows).sum()))
