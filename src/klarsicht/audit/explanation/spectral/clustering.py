"""Spectral Relevance Analysis (SpRAy) of one class: clusters of its images by relevance, and the suspect cluster.

Relevance -> k-nearest-neighbour graph -> normalised Laplacian -> smallest eigenvectors -> candidate clusters ->
Fisher's tau (Lapuschkin et al. 2019, Nature Communications 10:1096; Anders et al. 2019, arXiv 1912.11425). A large tau
shows that a group exists, not that the class uses it. Therefore the suspect cluster must also raise the target: the
mean centred logit of its members lies many standard deviations above that of the other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Floats, Rows
from klarsicht.numerics.clustering.candidates import Candidate, Sweep, candidates
from klarsicht.numerics.clustering.fisher import Separability, fisher_many
from klarsicht.numerics.clustering.spectral import Embedding, affinity, embed
from klarsicht.numerics.neighbours import centre_by_group, neighbour_graph
from klarsicht.numerics.statistics.logits import EXCLUSIVE, LogitScale, rounding_bound
from klarsicht.numerics.transport.measures import PointMeasures

MIN_DEVIATION = 1e-9  # a standard deviation below counts as zero
MIN_JACCARD = 1 / 3  # Jaccard index from which two clusters describe one group
MIN_CONTAINED = 0.9  # share of a cluster that a larger one must contain to count as the whole of its group
MIN_IMAGES = 20  # least images of a class: with fewer, a cluster of five would be over a quarter of it


@dataclass(frozen=True)
class SuspectCluster:
    """The most suspicious cluster of one class under one metric, among n analysed rows.

    Attributes:
        members: ascending positions of the members.
        tau, rho2, d2: Fisher separability of the cluster in the embedding; see numerics.clustering.fisher.
        shift: mean centred logit of the members minus that of the others.
        z: shift in standard deviations of the others, or in units of `rounding` where that is larger.
        candidate: the proposed cluster, of rows or of their parts.
        deviation: standard deviation of the others' centred logits.
        rounding: difference up to which two logits of the class count as equal; see TargetLogits.
    """

    members: Rows
    n: int
    tau: float
    rho2: float
    d2: float
    shift: float
    z: float
    candidate: Candidate
    deviation: float = 0.0
    rounding: float = 0.0

    @property
    def method(self) -> str:
        """Clustering method and k that proposed the cluster."""
        return f"{self.candidate.method} k={self.candidate.k}"

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def prevalence(self) -> float:
        return self.size / self.n

    @property
    def raises(self) -> bool:
        """Whether the members have the higher mean centred logit; no proof that the model uses the artifact."""
        return self.shift > 0


@dataclass(frozen=True)
class TargetLogits:
    """Score of the target and source index of n images: target logit minus the mean of all logits, of independent
    outputs the target logit itself, and the difference up to which two logits are equal up to rounding. Crops of one
    photograph or frames of one video share one source."""

    logit: Floats
    sources: NDArray[np.integer[Any]]
    rounding: float = 0.0

    @classmethod
    def of(
        cls, logits: Floats, target: int, sources: NDArray[np.integer[Any]], scale: LogitScale = EXCLUSIVE
    ) -> TargetLogits:
        """Compute the scores of one output from logits (n, K)."""
        return cls(scale.scores(logits)[:, target], sources, rounding_bound(logits))

    @property
    def varies(self) -> bool:
        """Whether the centred logit varies between images by more than rounding."""
        return bool(np.ptp(self.centred) > self.rounding)

    @property
    def sources_repeat(self) -> bool:
        """Whether any two images share a source."""
        return len(np.unique(self.sources)) < len(self.sources)

    @property
    def centred(self) -> Floats:
        """The logit minus the median of its own source, where sources repeat."""
        return centre_by_group(self.logit[:, None], self.sources)[:, 0] if self.sources_repeat else self.logit

    def shifts(self, members: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Compute the shift and the others' standard deviation, each (m,), of m clusters given as bool (m, n)."""
        x = self.centred.astype(np.float64)
        inside = members.sum(1)
        outside = members.shape[1] - inside
        total, squares = x.sum(), (x * x).sum()
        mean_in = members @ x / inside
        mean_out = (total - members @ x) / outside
        variance = np.maximum((squares - members @ (x * x)) / outside - mean_out**2, 0)
        return mean_in - mean_out, np.sqrt(variance)


def embed_items(
    items: Floats | PointMeasures, evidence: TargetLogits, *, distance: str, neighbours: int, dimensions: int, seed: int
) -> Embedding:
    """Compute the spectral embedding (n, d) of the neighbour graph of n rows (n, D), normalised by `normalise_rows`, or
    measures; images of one source are never neighbours. `distance` is a name of numerics.neighbours.METRICS."""
    groups = evidence.sources if evidence.sources_repeat else None
    given = items if isinstance(items, PointMeasures) else normalise_rows(items, groups)
    graph = neighbour_graph(given, distance, min(neighbours, max_neighbours(evidence.sources)), groups=groups)
    return embed(affinity(graph), min(dimensions, len(items) - 1), seed)


def normalise_rows(features: Floats, groups: NDArray[np.integer[Any]] | None) -> Floats:
    """Divide rows by their sum of absolute values, then subtract the median of their group, if groups are given."""
    divided = divide_by_absolute_sum(features)
    return divided if groups is None else centre_by_group(divided, groups)


def max_neighbours(sources: NDArray[np.integer[Any]]) -> int:
    """Compute the number of neighbours that every row can have: all rows minus those of the largest source."""
    return len(sources) - int(np.unique(sources, return_counts=True)[1].max())


def divide_by_absolute_sum(X: Floats) -> Floats:
    """Divide rows by the sum of their absolute values, since the signed sum may vanish; zero rows stay."""
    total = np.abs(X).sum(1, keepdims=True)
    return np.asarray(X / np.where(total > 0, total, 1))


@dataclass(frozen=True)
class Clustering:
    """Candidate clusters of an embedding with their separability, independent of any target's logit: the m proposed
    clusters, their members, bool (m, n), and tau, rho2 and D2 of each."""

    candidates: tuple[Candidate, ...]
    members: NDArray[np.bool_]
    separability: Separability[NDArray[np.float64]]

    @classmethod
    def of(cls, embedding: Embedding, sweep: Sweep, seed: int) -> Clustering:
        """Propose candidate clusters of an embedding and compute their separability."""
        found = tuple(candidates(embedding, sweep, seed))
        members = np.array([c.member for c in found], bool).reshape(len(found), len(embedding.vectors))
        return cls(found, members, fisher_many(embedding.vectors, members))

    def restrict(self, members: NDArray[np.bool_]) -> Clustering:
        """Replace the members of the clusters by bool (m, n'); keep those with at least one and at most half of n'."""
        kept = members.any(1) & (members.mean(1) <= 0.5)
        candidates = tuple(one for one, keeps in zip(self.candidates, kept, strict=True) if keeps)
        separability = Separability(self.separability.tau[kept], self.separability.share[kept])
        return Clustering(candidates, members[kept], separability)

    def suspect(self, evidence: TargetLogits) -> SuspectCluster | None:
        """Select the suspect cluster; None if there is no candidate.

        The peak is the cluster with the largest D^2 x z; the suspect is the one with the largest tau x z among the
        clusters similar to the peak. D^2 does not penalise rare clusters and so locates the group, but prefers its
        core; tau then selects the whole group. z is 1 for all clusters where none raises the target by more than the
        rounding of its logits, since logits that do not vary carry no information.
        """
        if not self.candidates:
            return None
        shift, deviation = evidence.shifts(self.members)
        raised = (shift > evidence.rounding).any()
        z = shift / np.maximum(deviation, max(MIN_DEVIATION, evidence.rounding)) if raised else np.ones(len(shift))
        peak = int(np.argmax(self.separability.d2 * z))
        return self.describe(
            int(np.argmax(np.where(self.similar_to(peak), self.separability.tau * z, -np.inf))), evidence
        )

    def similar_to(self, number: int) -> NDArray[np.bool_]:
        """Find the clusters that describe the same group as one of them, bool (m,), itself included: their Jaccard
        index is at least MIN_JACCARD, or they contain at least MIN_CONTAINED of it."""
        both = (self.members & self.members[number]).sum(1)
        sizes = self.members.sum(1)
        return np.asarray(
            (both >= MIN_JACCARD * (sizes + sizes[number] - both)) | (both >= MIN_CONTAINED * sizes[number])
        )

    def describe(self, number: int, evidence: TargetLogits) -> SuspectCluster:
        """Describe one of the clusters, with its shift in the target's logit."""
        shift, deviation = (float(of_each[number]) for of_each in evidence.shifts(self.members))
        tau, rho2, d2 = (
            float(of[number]) for of in (self.separability.tau, self.separability.rho2, self.separability.d2)
        )
        z = shift / max(deviation, MIN_DEVIATION, evidence.rounding)
        return SuspectCluster(
            np.flatnonzero(self.members[number]), self.members.shape[1], tau, rho2, d2, shift, z,
            self.candidates[number], deviation, evidence.rounding,
        )  # fmt: skip
