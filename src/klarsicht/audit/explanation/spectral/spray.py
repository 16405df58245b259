"""Spectral Relevance Analysis of arrays: relevance maps or feature rows of one class in, clusters and the suspect out.

Lapuschkin et al. 2019 (Nature Communications 10:1096); Anders et al. 2019 (arXiv 1912.11425).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from klarsicht.audit.explanation.spectral import clustering
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES, Clustering, SuspectCluster, TargetLogits
from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints, Rows
from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.ground.ranges import SEED
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.ground.user_arrays import as_numbers
from klarsicht.numerics.clustering.candidates import SWEEPS
from klarsicht.numerics.neighbours import METRICS
from klarsicht.numerics.transport.measures import PointMeasures, measures_from_maps

FEATURES = ("euclidean", "concept")  # metrics that compare rows of numbers; the others compare maps as measures


@dataclass(frozen=True)
class Spray:
    """Clusters of N items.

    Attributes:
        embedding: float64 (N, d), spectral coordinates, rows of length 1; NaN for items that were set aside.
        eigenvalues: float64 (d,), of the normalised Laplacian, ascending, in [0, 2].
        clusters: bool (m, N), the candidate clusters; they overlap, since sizes and methods vary.
        tau: float64 (m,), Fisher's separability of each in the embedding.
        suspect: the cluster that stands apart and raises the logit; None where there is no candidate. Its `members`
            are positions among all N items.
        set_aside: bool (N,), maps without relevance, of which a transport metric can say nothing.
    """

    embedding: Doubles
    eigenvalues: Doubles
    clusters: Bools
    tau: Doubles
    suspect: SuspectCluster | None
    set_aside: Bools

    def __repr__(self) -> str:
        size = 0 if self.suspect is None else self.suspect.size
        return f"Spray({len(self.embedding)} items, {len(self.clusters)} clusters, {size} in the suspect one)"

    def _repr_html_(self) -> str:
        head = f"<b>{len(self.clusters)} candidate clusters of {len(self.embedding)} items</b>"
        if self.suspect is None:
            return f"<p>{head}, no suspect</p>"
        s = self.suspect
        facts = f"{s.size} of {s.n} items, tau {s.tau:.2f}, shift {s.shift:+.2f}, z {s.z:.2f}"
        return f"<p>{head}<br>suspect: {facts}<br>members: {', '.join(map(str, s.members[:20]))}</p>"


@check_arguments
def spray(
    items: ArrayLike, logits: ArrayLike | None = None, *, metric: str = "euclidean", n_neighbors: int = 10,
    n_dimensions: int = 8, sources: ArrayLike | None = None, random_state: int = 0,
) -> Spray:  # fmt: skip
    """Find clusters among the relevance maps or feature rows of one class, and the suspect one.

    Args:
        items: relevance maps (N, G, G), or rows (N, D) for `euclidean` and `concept`; at least 20.
        logits: (N,), the target's logit less the mean of all logits. Without it the suspect is the cluster that stands
            apart most, whatever the model makes of it.
        metric: a name of numerics.neighbours.METRICS: `euclidean` and `concept` on rows (maps are flattened), the
            transport metrics on maps: where positive relevance lies, as points.
        n_neighbors: neighbours of an item in the graph.
        n_dimensions: eigenvectors of the embedding.
        sources: integers (N,), items of one source are never neighbours; by default every item is its own.
        random_state: draws the start vectors of the solver and of k-means; the same gives the same bytes.

    Raises:
        UsageError: unknown metric, lengths that differ, or a setting that is no integer.
        InputError: too few items, what is no number or not finite, or rows where maps are compared.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    SEED.require("random_state", random_state)
    numbers = np.asarray(as_numbers("items", items), np.float32)
    if numbers.ndim not in (2, 3):
        remedy = "Sum relevance over channels: maps.sum(1)." if numbers.ndim == len("NCGG") else ""
        raise InputError("items of another shape", got=numbers.shape, rule="(N, G, G) or (N, D)", remedy=remedy)
    n = len(numbers)
    _require_enough(n, n)
    comparable, rows = _comparable(numbers, metric)
    logit = _numbers("logits", logits, n, np.zeros(n))
    if not np.isfinite(logit).all():
        raise InputError(
            "logits that are not finite", got=f"item {int(np.flatnonzero(~np.isfinite(logit))[0])} first",
            rule="one finite number an item", remedy="Leave such items out, or call it without logits.",
        )  # fmt: skip
    groups = np.asarray(_numbers("sources", sources, n, np.arange(n)), np.int64)
    _require_enough(len(rows), n)
    evidence = TargetLogits(logit[rows], groups[rows])
    embedding = clustering.embed_items(
        comparable, evidence, distance=metric, neighbours=n_neighbors, dimensions=n_dimensions, seed=random_state
    )
    candidates = Clustering.of(embedding, SWEEPS["thorough"], random_state)
    if (suspect := candidates.suspect(evidence)) is not None:
        suspect = replace(suspect, members=rows[suspect.members])
    vectors, clusters = np.full((n, embedding.vectors.shape[1]), np.nan), np.zeros((len(candidates.members), n), bool)
    vectors[rows], clusters[:, rows] = embedding.vectors, candidates.members
    apart = ~np.isin(np.arange(n), rows)
    return Spray(vectors, embedding.values, clusters, candidates.separability.tau, suspect, apart)


def _require_enough(usable: int, n: int) -> None:
    """Raise InputError where fewer than MIN_IMAGES of n items can be compared."""
    if usable < MIN_IMAGES:
        got = n if usable == n else f"{usable} of {n} usable: the others have no positive relevance"
        remedy = f"Give the items of one class, {MIN_IMAGES} or more."
        raise InputError("too few items to cluster", got=got, rule=f"at least {MIN_IMAGES}", remedy=remedy)


def _comparable(items: Floats, metric: str) -> tuple[Floats | PointMeasures, Rows]:
    """Prepare what the metric compares, and the positions of the items of which it can say something."""
    if metric in FEATURES:
        return items.reshape(len(items), -1), np.arange(len(items))
    if items.ndim != 3:
        raise InputError(
            f"{metric} compares maps", got=f"shape {items.shape}", rule="(N, G, G)",
            remedy="Give relevance maps, or compare rows by metric='euclidean'.",
        )  # fmt: skip
    measures = measures_from_maps(items)
    rows = np.flatnonzero(~measures.set_aside)
    return measures[rows], rows


def _numbers(name: str, values: ArrayLike | None, n: int, default: Floats | Ints) -> Any:
    """Check one number an item."""
    if values is None:
        return default
    array = as_numbers(name, values)
    if array.shape != (n,):
        remedy = f"Give as many {name} as items, in their order."
        raise UsageError(f"{name} of another shape", got=array.shape, rule=f"({n},), one an item", remedy=remedy)
    return array
