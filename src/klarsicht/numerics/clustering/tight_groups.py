"""Find one small group of rows that are alike and score high, among a few dozen candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from klarsicht.ground.arrays import Doubles, Floats, Rows


@dataclass(frozen=True)
class TightGroup:
    """Group of rows, those that joined it first before the others.

    Attributes:
        members: positions of the rows, int (m,).
        merit: sum over members of their score and `weight` times their mean similarity to the others, less `price`.
        tightness: mean similarity of pairs of members, less that of members and other rows.
    """

    members: Rows
    merit: float
    tightness: float


@dataclass(frozen=True)
class GroupSearch:
    """Search for the group of largest merit, grown from every row by the row that adds most.

    Attributes:
        weight: of similarity beside scores.
        price: of a member: rows that add less do not join.
        least, most: members.
    """

    weight: float
    price: float
    least: int
    most: int

    def find(self, similarity: Floats, scores: Floats) -> TightGroup | None:
        """Find the group among n rows of symmetric similarities (n, n) and scores (n,); None of fewer than `least`."""
        n = len(scores)
        if n < self.least:
            return None
        alike = np.array(similarity, np.float64)
        np.fill_diagonal(alike, 0)
        order, merits = self._grow(alike, np.asarray(scores, np.float64))
        seed, size = np.unravel_index(merits.argmax(), merits.shape)
        members = order[seed, : size + self.least]
        return TightGroup(members, float(merits.max()), measure_tightness(alike, members))

    def _grow(self, alike: Doubles, scores: Doubles) -> tuple[Rows, Doubles]:
        """Grow a group from each of n rows: rows in the order in which they join (n, most), and the merit of each size
        allowed (n, sizes)."""
        n = len(scores)
        seeds, most = np.arange(n), min(self.most, n)
        order, free = seeds[:, None], ~np.eye(n, dtype=bool)
        sums, pairs, total, merits = alike.copy(), np.zeros(n), scores.copy(), []
        for m in range(1, most + 1):
            if m >= self.least:
                merits.append(total + self.weight * 2 * pairs / max(m - 1, 1) - self.price * m)
            if m < most:
                row = np.where(free, scores + self.weight * sums / m, -np.inf).argmax(1)
                pairs, total = pairs + sums[seeds, row], total + scores[row]
                order, sums = np.column_stack([order, row]), sums + alike[row]
                free[seeds, row] = False
        return order, np.stack(merits, 1)


def centred_cosines(rows: Floats, reference: Floats) -> Doubles:
    """Compute the cosines (n, n) of rows (n, D) less the mean of reference rows (m, D)."""
    apart = np.asarray(rows, np.float64) - np.asarray(reference, np.float64).mean(0)
    unit = apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12)
    return np.asarray(unit @ unit.T)


def measure_tightness(similarity: Floats, members: Rows) -> float:
    """Compute the mean similarity of pairs of members, less that of members and other rows, of similarities (n, n)."""
    m, others = len(members), np.setdiff1d(np.arange(len(similarity)), members)
    inside = similarity[np.ix_(members, members)]
    within = (inside.sum() - np.trace(inside)) / max(m * (m - 1), 1)
    return float(within - (similarity[np.ix_(members, others)].mean() if len(others) else 0.0))
