"""Work units that measure, for every class, which of its clusters the model follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.spectral.analysis import Analysis
from klarsicht.audit.explanation.spectral.clustering import Clustering
from klarsicht.audit.results.rows import FollowedEffect, FollowedRow
from klarsicht.audit.results.specificity import NO_COMPARISON
from klarsicht.audit.results.suspect_rows import ClusterRow, ComparedGroup
from klarsicht.audit.verdicts.interventions.output_effects import compare_outputs
from klarsicht.audit.verdicts.interventions.regions import SEARCH_BACKGROUNDS, RegionEffects, correlation, jaccard
from klarsicht.audit.verdicts.quantification import effect_groups
from klarsicht.audit.verdicts.quantification.cluster_search import search_in_looks
from klarsicht.audit.verdicts.quantification.units import EFFECT_BACKGROUNDS as MEASURED
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.ground.arrays import Bools, Doubles, Rows
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.seeding import generator
from klarsicht.numerics.clustering.candidates import Candidate
from klarsicht.numerics.clustering.fisher import fisher_many
from klarsicht.numerics.statistics.split_half import draw_halves

SOURCES = {"maps": "euclidean", "head": "concept", "channels": "channels"}  # the metric that compares a stored array
CLASS_IMAGES = 400  # images of a class whose regions are pasted; of more, a random draw
FOLLOWED_COLUMNS = schema_of(FollowedRow)


@dataclass(frozen=True)
class ClusterInterventionUnits:
    """Work units that choose one cluster of each class by the effect of its images' regions on other images; a unit is
    one class. The clusters of the analyses are the candidates, see `candidate_analyses`."""

    detection_units: DetectionUnits
    analyses: tuple[Analysis, ...]

    step = "transplants"

    def __call__(self, unit: range) -> Written:
        store, written = self.detection_units.store, Written()
        for number in unit:
            row = self.measure(number)
            rows = pa.Table.from_pylist([row] if row else [], FOLLOWED_COLUMNS)
            written |= store.write_part(self.step, number, rows)
        return written

    def list_reads(self, unit: range) -> Iterator[Read]:
        """List what a unit reads of the run: arrays of its classes."""
        for analysis in self.analyses:
            yield from analysis.list_reads(unit)
        yield from self.detection_units.list_class_reads(unit, ("maps", "logits", "features"))

    def measure(self, number: int) -> FollowedRow | None:
        """Return the row of the cluster that the model follows; None without candidates, where no region changes the
        class's logit, or where the search leaves the class."""
        work, group = self.detection_units, self.detection_units.groups[number]
        rng = generator(work.settings.seed, "transplants", number)
        elsewhere = rng.permutation(self.background_rows(number))[: SEARCH_BACKGROUNDS + MEASURED]
        rows = np.sort(rng.permutation(np.setdiff1d(group.rows, elsewhere))[:CLASS_IMAGES])
        return find_followed_cluster(work, self.analyses, group, rows, work.input_images.as_inputs(elsewhere), rng)

    def background_rows(self, number: int) -> NDArray[np.intp]:
        """Return the rows of images into which regions are pasted: images of other classes, or where one class is
        screened over the whole corpus, the half with the lowest logit of that class."""
        work, group = self.detection_units, self.detection_units.groups[number]
        if len(work.groups) > 1:
            return work.other_rows(number)
        logit = self.analyses[0].target_logits(group).logit
        least: NDArray[np.intp] = group.rows[logit <= np.median(logit)]
        return least


def candidate_analyses(analyses: Sequence[Analysis]) -> tuple[Analysis, ...]:
    """Return the analyses whose clusters are candidates: the requested ones, and whole maps, head relevance and
    channels of the middle layer where the run stores them."""
    one, known = analyses[0], {work.metric for work in analyses if not work.by_parts}
    whole = one.settings.with_values(parts=False)
    more = [name for array, name in SOURCES.items() if one.store.has_array(array) and name not in known]
    return (*analyses, *(replace(one, metric=name, settings=whole) for name in more))


def find_followed_cluster(
    work: DetectionUnits, analyses: Sequence[Analysis], group: Group, rows: NDArray[np.intp], x: Tensor,
    rng: np.random.Generator,
) -> FollowedRow | None:  # fmt: skip
    """Find the cluster of a group whose regions have the clearest effect on other images; return its row of the table.

    Args:
        rows: images of the group whose regions are pasted.
        x: (B, C, H, W), as model inputs, the first SEARCH_BACKGROUNDS for the choice, the others for the reported
            effect.
        rng: draws halves and donors.
    """
    candidates = [Candidates.of(one, group) for one in analyses if not one.reason_too_few(one.comparable(group))]
    if not candidates or len(x) < 2 * SEARCH_BACKGROUNDS:
        return None
    maps, half = np.asarray(work.store.array("maps")[rows], np.float32), draw_halves(len(rows), rng)
    with predictor(work) as predict:
        levels, alone = work.input_images(rows), len(work.groups) == 1
        scale, target = work.input_images.pixel_scale, group.target

        def measure(some: Rows, look: int) -> RegionEffects:
            """Put the regions of some images on one background; on another at each look."""
            return RegionEffects.of(
                predict, levels[some], scale, maps[some], x[look : look + 1], target, levels, work.scale, some
            )

        if alone:  # images of all classes share no content, and every output is searched for
            few = x[:SEARCH_BACKGROUNDS]
            effects, seen = RegionEffects.of(predict, levels, scale, maps, few, target, None, work.scale), None
        else:
            members, distance = memberships(candidates, rows), distances(candidates)
            evidence = work.scale.scores(work.logits(rows, predict))[:, target]
            searched = search_in_looks(measure, members, distance, evidence, rng)
            if searched is None:
                return None
            effects, seen = searched
        if not effects.rise.any():
            return None
        rows, half = (rows, half) if seen is None else (rows[seen], half[seen])
        whole = [one for one in candidates if not one.analysis.by_parts]
        candidates += [one.group_by_rise(rows, effects.rise, half) for one in whole[:1]]
        members = memberships(candidates, rows)
        far = None if alone else distances(candidates)  # with many classes, distance indicates an artifact
        best, again = (effects.choose_cluster(members, side, far) for side in (half, ~half))
        if best is None or again is None:
            return None
        member, test_half = members[best], ~half
        effect = effects.measure_effect(
            predict, member & test_half, ~member & test_half, x[SEARCH_BACKGROUNDS:], target, rng, in_looks=not alone
        )
    names = work.input_images.classifier.classes
    share = float(member.mean())
    specificity = compare_outputs(effect, effects, share, target, names).columns() if alone else NO_COMPARISON
    describe = [partial(one.describe, i) for one in candidates for i in range(len(one))][best]
    effect_columns = FollowedEffect(
        effect=effect.rise.value, effect_z=effect.z, follows=correlation(member[test_half], effects.rise[test_half]),
        stability=jaccard(member, members[again]), low=effect.rise.low, high=effect.rise.high,
        runner_up=effect.runner_up, rank=effect.rank, images=effect.rise.n, flips=effect.flips,
        flips_control=effect.flips_control,
    )  # fmt: skip
    return FollowedRow(**describe(), **effect_columns, **specificity)


def memberships(candidates: Sequence[Candidates], rows: NDArray[np.integer[Any]]) -> Bools:
    """Return the membership (m, n) of rows (n,) of the run in all clusters."""
    return np.concatenate([one.membership(rows) for one in candidates])


def distances(candidates: Sequence[Candidates]) -> Doubles:
    """Return the distance (m,) of each cluster from the rest of its class, in deviations."""
    return np.asarray(np.sqrt(np.concatenate([one.clustering.separability.d2 for one in candidates])))


@dataclass(frozen=True)
class Candidates:
    """Clusters of one class under one metric."""

    analysis: Analysis
    group: Group
    clustering: Clustering

    @classmethod
    def of(cls, analysis: Analysis, group: Group) -> Candidates:
        """Cluster the images of a group that the analysis can compare."""
        compared = analysis.comparable(group)
        return cls(analysis, compared, analysis.clustering(compared))

    def group_by_rise(
        self, rows: NDArray[np.integer[Any]], rise: NDArray[np.floating[Any]], half: NDArray[np.bool_]
    ) -> Candidates:
        """Replace the clusters by the group of images with a large predicted rise, if there is one; see
        `effect_groups`.

        Args:
            rows, rise: (m,), images whose rise was measured, and it.
            half: bool (m,), half on which the choice is made.
        """
        own, store = self.group.rows, self.analysis.store
        compared, order = np.isin(rows, own), np.argsort(own)
        tried = order[np.searchsorted(own, rows[compared], sorter=order)]
        features = np.asarray(store.array("features")[own], np.float64)
        members = effect_groups.select_upper_group(features, tried, rise[compared], half[compared])[None]
        members = members[members.any(1)]
        vectors = self.analysis.embedding(self.group).vectors
        grown = tuple(Candidate(one, "rise", 2) for one in members)
        return Candidates(self.analysis, self.group, Clustering(grown, members, fisher_many(vectors, members)))

    def __len__(self) -> int:
        return len(self.clustering.candidates)

    def membership(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return the membership (m, n) of rows (n,) of the run in each cluster."""
        members = [np.isin(rows, self.group.rows[member]) for member in self.clustering.members]
        return np.array(members, bool).reshape(len(self), len(rows))

    def describe(self, number: int) -> ClusterRow:
        """Return the row of a cluster, with columns as in the table of suspects."""
        cluster, group = self.clustering.describe(number, self.analysis.target_logits(self.group)), self.group
        comparison_group: ComparedGroup = {
            "class": group.name, "target": group.target, "metric": self.analysis.metric, "n": len(group),
        }  # fmt: skip
        return ClusterRow(**comparison_group, **self.analysis.cluster_columns(group, cluster))
