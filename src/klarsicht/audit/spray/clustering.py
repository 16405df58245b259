"""Spectral Relevance Analysis of one class: which of its images does the model see differently?

Relevance -> k-nearest-neighbour graph -> normalised Laplacian -> smallest eigenvectors -> candidate clusters ->
Fisher's tau (Lapuschkin et al. 2019, Nature Communications 10:1096; Anders et al. 2019, arXiv 1912.11425).

A large tau says that a group exists, not that the class uses it. So the suspect cluster is one that stands
apart and rises: the centred logit of its members lies above that of the other images, by many standard deviations.
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
from klarsicht.numerics.statistics.logits import centred, rounding
from klarsicht.numerics.transport.measures import PointMeasures

FLAT = 1e-9  # a deviation below is none
LIKE = 1 / 3  # Jaccard index from which clusters are views of one group
HELD = 0.9  # of a cluster, from which one that holds it may be the group of which it is a piece
FEWEST = 20  # images a class must have: below, a cluster of five would be a quarter of it


@dataclass(frozen=True)
class SuspectCluster:
    """The most suspicious cluster of one class under one metric.

    Attributes:
        members: positions (into the rows that were analysed) of the cluster, ascending.
        n: number of rows analysed.
        tau, rho2, d2: Fisher separability of the cluster in the embedding; see numerics.clustering.fisher.
        shift: mean centred logit of members less that of the others.
        z: shift in standard deviations of the others, or in `rounding` where that is more.
        candidate: what was proposed, of the rows or the parts of rows that were clustered.
        deviation: that standard deviation of the others' centred logits.
        rounding: the difference up to which two logits of the class are equal, see Evidence.
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
        """What proposed the cluster."""
        return f"{self.candidate.method} k={self.candidate.k}"

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def prevalence(self) -> float:
        return self.size / self.n

    @property
    def raises(self) -> bool:
        """Whether the cluster raises the target: an observation, no proof that the model uses the artifact."""
        return self.shift > 0


@dataclass(frozen=True)
class TargetLogits:
    """The centred logit of the target for each row, and where an image comes from.

    Attributes:
        logit: float (n,), target logit less the mean of all logits.
        sources: int (n,), images of one source (crops of one photograph, frames of one video) share a number.
        rounding: float, the difference of two logits up to which they are equal but for rounding.
    """

    logit: Floats
    sources: NDArray[np.integer[Any]]
    rounding: float = 0.0

    @classmethod
    def of(cls, logits: Floats, target: int, sources: NDArray[np.integer[Any]]) -> TargetLogits:
        """Take one output's evidence out of logits (n, K)."""
        return cls(centred(logits)[:, target], sources, rounding(logits))

    @property
    def varies(self) -> bool:
        """Whether the centred logit differs between images by more than rounding: else it is no evidence."""
        return bool(np.ptp(self.centred) > self.rounding)

    @property
    def repeated(self) -> bool:
        return len(np.unique(self.sources)) < len(self.sources)

    @property
    def centred(self) -> Floats:
        """The logit less the median of its own source, where sources repeat."""
        return centre_by_group(self.logit[:, None], self.sources)[:, 0] if self.repeated else self.logit

    def shifts(self, members: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """For each candidate (m, n): mean difference of members and others, and the deviation of the others."""
        x = self.centred.astype(np.float64)
        inside = members.sum(1)
        outside = members.shape[1] - inside
        total, squares = x.sum(), (x * x).sum()
        mean_in = members @ x / inside
        mean_out = (total - members @ x) / outside
        variance = np.maximum((squares - members @ (x * x)) / outside - mean_out**2, 0)
        return mean_in - mean_out, np.sqrt(variance)


def embedding(
    items: Floats | PointMeasures, evidence: TargetLogits, *, distance: str, neighbours: int, dimensions: int, seed: int
) -> Embedding:
    """Spectral embedding (n, d) of the neighbour graph; images of one source are never neighbours.

    Args:
        items: (n, D), one row an image, centred by its source where sources repeat; or n measures.
        distance: a name of numerics.neighbours.METRICS.
    """
    groups = evidence.sources if evidence.repeated else None
    given = items if isinstance(items, PointMeasures) else normalised(items, groups)
    graph = neighbour_graph(given, distance, min(neighbours, room(evidence.sources)), groups=groups)
    return embed(affinity(graph), min(dimensions, len(items) - 1), seed)


def normalised(features: Floats, groups: NDArray[np.integer[Any]] | None) -> Floats:
    """By the sum of absolute values, then less the median of its own group."""
    divided = by_absolute_sum(features)
    return divided if groups is None else centre_by_group(divided, groups)


def room(sources: NDArray[np.integer[Any]]) -> int:
    """How many neighbours every row may have: all rows but those of the largest source."""
    return len(sources) - int(np.unique(sources, return_counts=True)[1].max())


def by_absolute_sum(X: Floats) -> Floats:
    """Rows divided by the sum of their absolute values; the signed sum may vanish. All-zero rows stay."""
    total = np.abs(X).sum(1, keepdims=True)
    return np.asarray(X / np.where(total > 0, total, 1))


@dataclass(frozen=True)
class Clustering:
    """Candidate clusters of an embedding, described; they do not depend on any target's logit.

    Attributes:
        candidates: what was proposed; may be empty.
        members: bool (m, n), one row a candidate.
        separability: tau, rho2 and D2 of each.
    """

    candidates: tuple[Candidate, ...]
    members: NDArray[np.bool_]
    separability: Separability[NDArray[np.float64]]

    @classmethod
    def of(cls, embedded: Embedding, sweep: Sweep, seed: int) -> Clustering:
        found = tuple(candidates(embedded, sweep, seed))
        members = np.array([c.member for c in found], bool).reshape(len(found), len(embedded.vectors))
        return cls(found, members, fisher_many(embedded.vectors, members))

    def inherited(self, members: NDArray[np.bool_]) -> Clustering:
        """The same clusters with other members (m, n'), those that have them: at least one, at most half."""
        kept = members.any(1) & (members.mean(1) <= 0.5)
        candidates = tuple(one for one, keeps in zip(self.candidates, kept, strict=True) if keeps)
        separability = Separability(self.separability.tau[kept], self.separability.share[kept])
        return Clustering(candidates, members[kept], separability)

    def suspect(self, evidence: TargetLogits) -> SuspectCluster | None:
        """Of the clusters like the peak the one of largest tau x z; the peak has the largest D^2 x z of all.

        z is the rise in standard deviations of the others; 1 for all where no cluster raises the target by more than
        the rounding of its logits: evidence that does not vary is none. D^2 does not punish rare clusters and so finds
        the place, but prefers the core of a group; tau then takes the whole of it.
        None when there is no cluster at all.
        """
        if not self.candidates:
            return None
        shift, deviation = evidence.shifts(self.members)
        raised = (shift > evidence.rounding).any()
        z = shift / np.maximum(deviation, max(FLAT, evidence.rounding)) if raised else np.ones(len(shift))
        peak = int(np.argmax(self.separability.d2 * z))
        return self.described(int(np.argmax(np.where(self.like(peak), self.separability.tau * z, -np.inf))), evidence)

    def like(self, number: int) -> NDArray[np.bool_]:
        """(m,): which clusters share a third and more of their members with one of them (Jaccard), or hold nearly all
        of it: a group of many images comes apart in pieces. Itself included."""
        both = (self.members & self.members[number]).sum(1)
        sizes = self.members.sum(1)
        return np.asarray((both >= LIKE * (sizes + sizes[number] - both)) | (both >= HELD * sizes[number]))

    def described(self, number: int, evidence: TargetLogits) -> SuspectCluster:
        """One of the clusters, with its rise."""
        shift, deviation = (float(of_each[number]) for of_each in evidence.shifts(self.members))
        return SuspectCluster(
            members=np.flatnonzero(self.members[number]),
            n=self.members.shape[1],
            tau=float(self.separability.tau[number]),
            rho2=float(self.separability.rho2[number]),
            d2=float(self.separability.d2[number]),
            shift=shift,
            z=shift / max(deviation, FLAT, evidence.rounding),
            candidate=self.candidates[number],
            deviation=deviation,
            rounding=evidence.rounding,
        )
