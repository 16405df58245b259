"""Strategies of a denoiser: clusters of its kernels, named by their median measures, and the strategies that go with
large error.

The clusters are those of an audit of a classifier: neighbour graph, spectral embedding and k-means (`audit.spray`), of
points drawn from all bursts; every other point takes the strategy of its nearest drawn points. Kernels that copied what
moved are too few to be a cluster; so they are found by a test of each point (`kernel_measures.mark_copies`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KNeighborsClassifier

from klarsicht.audit.explanation.spectral.spray import Spray, spray
from klarsicht.bridge.kernel_measures import MEASURES, mark_copies
from klarsicht.bridge.measured_burst import MeasuredBurst
from klarsicht.ground.arrays import Doubles, Rows
from klarsicht.ground.errors import InputError
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator
from klarsicht.numerics.clustering.candidates import SWEEPS, kmeans
from klarsicht.numerics.clustering.fisher import fisher_many

Labels = npt.NDArray[np.int64]

COPIES, REFERENCE, EDGE, AVERAGE, SOME = KINDS = (
    "copies a moved object", "trusts the reference only", "follows an edge", "averages all frames",
    "averages some frames",
)  # fmt: skip
POINTS = 1500  # drawn points, of all bursts together
LEAST_POINTS = 50  # of all bursts, from which clusters are looked for
MOST_ALONE = 0.5  # reference share from which a cluster trusts the reference only
LEAST_ELONGATION = 0.3  # from which a cluster follows an edge
LEAST_EVENNESS = 0.75  # from which a cluster averages all frames
COUNTS = range(6, 9)  # numbers of clusters among which the eigengap decides
RANGES = {
    "reference share": (0, 1), "evenness": (0, 1), "entropy": (0, 8), "sum": (0.5, 1.5), "negative share": (0, 0.5),
    "reach": (0, 6), "elongation": (0, 1), "offset": (0, 2),
}  # fmt: skip
"""Ranges of the compared measures, which become 0 to 1. Orientation is an angle; change and copied light have a test
of their own."""
DISAGREEMENTS = (2.0, 32.0)  # range of that measure, on a logarithmic scale: below it is noise
DIMENSIONS = 10  # of the embedding
NEAREST = 5  # drawn points that vote for the strategy of another
ROLLS = 199  # shifts of the error maps under the null hypothesis
LEAST_ERROR = 1e-6  # deviations of noise


@dataclass(frozen=True)
class Strategy:
    """A strategy. share: of all points. median: of each measure. error: mean logarithm of the error less that of the
    other points, in factors of e. tau: Fisher's separability of the error by the strategy. p: that any strategy's tau
    is as large, under shifts of the error maps; 1 where the error is smaller."""

    name: str
    kind: str
    share: float
    median: dict[str, float]
    error: float
    tau: float
    p: float


@dataclass(frozen=True, eq=False)
class StrategyMaps:
    """Strategies and their maps. labels: of each burst, (h, w), a position in `strategies`. clusters: of the drawn
    points, with the suspect one by their error. sample: their positions among the points of all bursts, ascending."""

    strategies: tuple[Strategy, ...]
    labels: tuple[Labels, ...]
    clusters: Spray
    sample: Rows


def find_strategies(bursts: Sequence[MeasuredBurst], points: int, seed: int) -> StrategyMaps:
    """Find the strategies of measured bursts. points: how many are drawn for the clusters. Raises InputError for fewer
    than LEAST_POINTS."""
    rows = np.concatenate([one.measures.reshape(-1, len(MEASURES)) for one in bursts])
    if len(rows) < LEAST_POINTS:
        raise InputError("too few pixels to cluster", got=f"{len(rows)} points", rule=f"at least {LEAST_POINTS}")
    error = np.log(np.maximum(np.concatenate([one.error.ravel() for one in bursts]), LEAST_ERROR))
    codes = scale_measures(rows)
    sample = np.sort(generator(seed, "points of kernels").permutation(len(rows))[:points])
    clusters = spray(codes[sample], error[sample], n_dimensions=DIMENSIONS, random_state=seed)
    k = choose_count(clusters.eigenvalues)
    of_sample = kmeans(clusters.embedding[:, :k], k, SWEEPS["thorough"].starts, seed)
    near = KNeighborsClassifier(min(NEAREST, len(sample))).fit(codes[sample], of_sample)
    labels = np.asarray(near.predict(codes), np.int64)
    labels[mark_copies(rows)] = k
    return _describe(bursts, rows, error, labels, clusters, sample)


def scale_measures(rows: Doubles) -> Doubles:
    """Scale the compared measures of points (G, m) to 0 to 1, and append one less each, so that all rows have the same
    sum, by which the clusters' distance divides (complement coding, Carpenter, Grossberg and Rosen 1991)."""
    values = [(rows[:, MEASURES.index(name)] - low) / (high - low) for name, (low, high) in RANGES.items()]
    low, high = DISAGREEMENTS
    values.append(np.log(np.maximum(rows[:, MEASURES.index("disagreement")], low) / low) / np.log(high / low))
    unit = np.clip(np.stack(values, 1), 0, 1)
    return np.concatenate([unit, 1 - unit], 1)


def choose_count(eigenvalues: Doubles) -> int:
    """Choose the number of clusters: that of COUNTS after which the gap of the eigenvalues, ascending, is largest."""
    gaps = {k: eigenvalues[k] - eigenvalues[k - 1] for k in COUNTS if k < len(eigenvalues)}
    return max(gaps, key=lambda k: gaps[k], default=len(eigenvalues))


def name_kind(median: dict[str, float]) -> str:
    """Name the kind of a cluster by its median measures."""
    if median["reference share"] >= MOST_ALONE:
        return REFERENCE
    if median["elongation"] >= LEAST_ELONGATION:
        return EDGE
    return AVERAGE if median["evenness"] >= LEAST_EVENNESS else SOME


def _describe(
    bursts: Sequence[MeasuredBurst], rows: Doubles, error: Doubles, labels: Labels, clusters: Spray, sample: Rows
) -> StrategyMaps:
    """Name the strategies, the most frequent first, and compare their errors."""
    numbers, counts = np.unique(labels, return_counts=True)
    order = numbers[np.argsort(-counts, kind="stable")]
    place = np.zeros(int(numbers.max()) + 1, np.int64)
    place[order] = np.arange(len(order))
    labels = place[labels]
    sizes = [one.error.size for one in bursts]
    shapes = [one.error.shape for one in bursts]
    maps = tuple(
        part.reshape(shape) for part, shape in zip(np.split(labels, np.cumsum(sizes)[:-1]), shapes, strict=True)
    )
    tau, p = compare_errors(maps, [np.log(np.maximum(one.error, LEAST_ERROR)) for one in bursts])
    copies = mark_copies(rows)
    strategies = []
    for number in range(len(order)):
        here = labels == number
        median = dict(zip(MEASURES, np.median(rows[here], 0).tolist(), strict=True))
        kind = COPIES if copies[here].all() else name_kind(median)
        more = float(error[here].mean() - error[~here].mean()) if not here.all() else 0.0
        strategies.append((kind, float(here.mean()), median, more, float(tau[number]), float(p[number])))
    names = name_strategies([one[0] for one in strategies], [one[2]["reach"] for one in strategies])
    return StrategyMaps(
        tuple(Strategy(name, *rest) for name, rest in zip(names, strategies, strict=True)), maps, clusters, sample
    )


def name_strategies(kinds: Sequence[str], reaches: Sequence[float]) -> list[str]:
    """Name strategies by their kind; several of one kind also by their reach in pixels, and by a number where it is the
    same."""
    pairs = zip(kinds, reaches, strict=True)
    names = [kind if kinds.count(kind) == 1 else f"{kind}, reach {reach:.1f} px" for kind, reach in pairs]
    earlier = [names[:k].count(name) for k, name in enumerate(names)]
    return [f"{name} ({more + 1})" if more else name for name, more in zip(names, earlier, strict=True)]


def compare_errors(labels: Sequence[Labels], errors: Sequence[Doubles]) -> tuple[Doubles, Doubles]:
    """Compute for each strategy Fisher's tau of the error (a map (h, w) a burst) between its points and the others, 0
    where its error is smaller, and its p under the null hypothesis that the maps of the error lie anywhere: each is
    shifted around at random, which keeps neighbours together, and the largest tau of all strategies counts (Lotwick and
    Silverman 1982)."""
    strategies = np.arange(1 + max(int(one.max()) for one in labels))
    flat = np.concatenate([one.ravel() for one in labels])
    members = strategies[:, None] == flat

    def scores(maps: Sequence[Doubles]) -> Doubles:
        Z = np.concatenate([one.ravel() for one in maps])
        inside = members.sum(1)
        means = members @ Z / np.maximum(inside, 1)
        rest = (Z.sum() - members @ Z) / np.maximum(len(Z) - inside, 1)
        usable = (inside > 0) & (inside < len(Z))
        tau = np.zeros(len(members))
        tau[usable] = fisher_many(Z[:, None], members[usable]).tau
        return np.where(means > rest, tau, 0)

    tau, rng = scores(errors), generator(0, "shifts of error maps")
    largest = [
        scores([np.roll(one, [int(rng.integers(side)) for side in one.shape], (0, 1)) for one in errors]).max()
        for _ in track(range(ROLLS), ROLLS, "shifts of the errors")
    ]
    exceeding = (np.array(largest)[:, None] >= tau).sum(0)
    return tau, np.where(tau > 0, (1 + exceeding) / (1 + ROLLS), 1.0)


def to_facts(strategy: Strategy) -> dict[str, Any]:
    """Return a strategy as JSON values."""
    median = {name: round(value, 3) for name, value in strategy.median.items()}
    return {
        "name": strategy.name, "kind": strategy.kind, "share": round(strategy.share, 4),
        "error": round(strategy.error, 3), "tau": round(strategy.tau, 4), "p": round(strategy.p, 4), "median": median,
    }  # fmt: skip
