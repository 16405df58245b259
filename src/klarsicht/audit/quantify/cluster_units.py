"""Clusters to effects: the work units that ask of every class which of its clusters the model follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from klarsicht.audit.data.groups import Group
from klarsicht.audit.interventions.region_insertion import BACKGROUNDS, RegionEffects, correlation, jaccard
from klarsicht.audit.quantify import effect_groups
from klarsicht.audit.quantify.units import BACKGROUNDS as MEASURED
from klarsicht.audit.quantify.units import EFFECTS, DetectionUnits, predictor
from klarsicht.audit.results.specificity import Specificity
from klarsicht.audit.spray.analysis import SUSPECTS, Analysis
from klarsicht.audit.spray.clustering import Clustering
from klarsicht.ground.seeding import generator
from klarsicht.numerics.clustering.candidates import Candidate
from klarsicht.numerics.clustering.fisher import fisher_many
from klarsicht.numerics.statistics.split_half import halves

SOURCES = {"maps": "euclidean", "head": "concept", "channels": "channels"}  # the metric that compares a stored array
LOOKED = 400  # images of a class whose parts are pasted; of more, a draw
MEASURES = (
    "effect",
    "effect_z",
    "follows",
    "stability",
    "low",
    "high",
    "runner_up",
    "rank",
    "images",
    "flips",
    "flips_control",
)
TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
LINES = pa.schema(
    [field for field in SUSPECTS if field.name not in ("skipped", "aside")]
    + [(name, EFFECTS.field(name).type if name in EFFECTS.names else pa.float64()) for name in MEASURES]
    + [(field.name, TYPES[str(field.type)]) for field in fields(Specificity)]
)


@dataclass(frozen=True)
class ClusterInterventionUnits:
    """Chooses a cluster of every class by what its images' parts do to other images; a unit is one class.

    Attributes:
        analyses: their clusters are the candidates; see `sources`.
    """

    examination: DetectionUnits
    analyses: tuple[Analysis, ...]

    step = "transplants"

    def __call__(self, unit: range) -> None:
        for number in unit:
            line = self.try_on(number)
            self.examination.store.write_part(self.step, number, pa.Table.from_pylist([line] if line else [], LINES))

    def try_on(self, number: int) -> dict[str, Any] | None:
        """What the table says of the cluster that the model follows; None where there is none to choose from, or
        nothing moves the class's logit."""
        work, group = self.examination, self.examination.groups[number]
        rng = generator(work.settings.seed, "transplants", number)
        elsewhere = rng.permutation(self.elsewhere(number))[: BACKGROUNDS + MEASURED]
        rows = np.sort(rng.permutation(np.setdiff1d(group.rows, elsewhere))[:LOOKED])
        return followed(work, self.analyses, group, rows, work.gallery(elsewhere), rng)

    def elsewhere(self, number: int) -> NDArray[np.intp]:
        """Rows of images that parts are put on: of other classes; where one class is screened over the whole corpus,
        the half of it that the model takes least for that class."""
        work, group = self.examination, self.examination.groups[number]
        if len(work.groups) > 1:
            others: NDArray[np.intp] = work.pool_rows[work.pool_groups != number]
            return others
        logit = self.analyses[0].evidence(group).logit
        least: NDArray[np.intp] = group.rows[logit <= np.median(logit)]
        return least


def sources(asked: Sequence[Analysis]) -> tuple[Analysis, ...]:
    """Where candidates come from: the analyses that the run was asked for, and besides whole maps, head relevance and
    channels of the middle layer, those that it stores, whatever was asked for."""
    one, known = asked[0], {work.metric for work in asked if not work.by_parts}
    whole = one.settings.merged(parts=False)
    more = [name for array, name in SOURCES.items() if one.store.has_array(array) and name not in known]
    return (*asked, *(replace(one, metric=name, settings=whole) for name in more))


def followed(
    work: DetectionUnits,
    analyses: Sequence[Analysis],
    group: Group,
    rows: NDArray[np.intp],
    x: NDArray[np.uint8],
    rng: np.random.Generator,
) -> dict[str, Any] | None:
    """The cluster of a group that what its images' parts do on images x sets apart; a line of the table.

    Args:
        rows: images of the group whose parts are tried.
        x: (B, H, W, C), the first few for the choice, the others for what is told.
    """
    candidates = [Candidates.of(one, group) for one in analyses if not one.too_few(one.compared(group))]
    if not candidates or len(x) < 2 * BACKGROUNDS:
        return None
    maps, half = np.asarray(work.store.array("maps").oindex[rows], np.float32), halves(len(rows), rng)
    with predictor(work) as predict:
        levels = work.gallery(rows)
        fellows = levels if len(work.groups) > 1 else None
        found = RegionEffects.of(predict, levels, maps, x[:BACKGROUNDS], group.target, fellows)
        if not found.rise.any():
            return None
        whole = [one for one in candidates if not one.analysis.by_parts]
        candidates += [one.risen(rows, found.rise, half) for one in whole[:1]]
        members = np.concatenate([one.on(rows) for one in candidates])
        distance = np.sqrt(np.concatenate([one.clustering.separability.d2 for one in candidates]))
        far = distance if fellows is not None else None  # of many classes, those are what stands apart
        best, again = (found.chosen(members, side, far) for side in (half, ~half))
        if best is None or again is None:
            return None
        member, told = members[best], ~half
        effect = found.measured(predict, member & told, ~member & told, x[BACKGROUNDS:], group.target, rng)
    standing = Specificity.of(effect, found, float(member.mean()), group.target, work.gallery.classifier.classes)
    measured = asdict(effect) | {"effect": effect.shift, "effect_z": effect.z}
    measured |= {"follows": correlation(member[told], found.rise[told]), "stability": jaccard(member, members[again])}
    chosen = [partial(one.described, i) for one in candidates for i in range(len(one))][best]
    return {name: measured[name] for name in MEASURES} | asdict(standing) | chosen()


@dataclass(frozen=True)
class Candidates:
    """The clusters of one class under one metric."""

    analysis: Analysis
    group: Group
    clustering: Clustering

    @classmethod
    def of(cls, analysis: Analysis, group: Group) -> Candidates:
        compared = analysis.compared(group)
        return cls(analysis, compared, analysis.clustering(compared))

    def risen(
        self, rows: NDArray[np.integer[Any]], rise: NDArray[np.floating[Any]], half: NDArray[np.bool_]
    ) -> Candidates:
        """In place of these clusters, the group that the rise (m,) of some rows (m,) makes, if it makes one; see
        audit.quantify.effect_groups."""
        own, store = self.group.rows, self.analysis.store
        compared, order = np.isin(rows, own), np.argsort(own)
        tried = order[np.searchsorted(own, rows[compared], sorter=order)]
        features = np.asarray(store.array("features").oindex[own], np.float64)
        members = effect_groups.risen(features, tried, rise[compared], half[compared])[None]
        members = members[members.any(1)]
        vectors = self.analysis.embedding(self.group).vectors
        grown = tuple(Candidate(one, "rise", 2) for one in members)
        return Candidates(self.analysis, self.group, Clustering(grown, members, fisher_many(vectors, members)))

    def __len__(self) -> int:
        return len(self.clustering.candidates)

    def on(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """(m, n): which of some rows (n,) of the run each cluster holds."""
        members = [np.isin(rows, self.group.rows[member]) for member in self.clustering.members]
        return np.array(members, bool).reshape(len(self), len(rows))

    def described(self, number: int) -> dict[str, Any]:
        """As the table of suspects does."""
        found = self.clustering.described(number, self.analysis.evidence(self.group))
        who = {"class": self.group.name, "target": self.group.target, "n": len(self.group)}
        return who | {"metric": self.analysis.metric} | self.analysis.values(self.group, found)
