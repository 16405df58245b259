"""Sample of a quantification: some classes are examined beside the pool of the whole corpus, to measure their cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.inputs import InputImages, PixelCache
from klarsicht.audit.results.rows import ClassRow, SignRow
from klarsicht.audit.results.verdicts import LEVEL
from klarsicht.audit.verdicts.detectors.artifact_embedding import ArtifactEmbedding
from klarsicht.audit.verdicts.detectors.detection import ImageStack
from klarsicht.audit.verdicts.forecast.cost import Cost, measure_cost
from klarsicht.audit.verdicts.forecast.explained_sample import ExplainedSample
from klarsicht.audit.verdicts.interventions.experiment import Predict
from klarsicht.audit.verdicts.quantification.class_verdicts import signs_to_insert
from klarsicht.audit.verdicts.quantification.cluster_units import ClusterInterventionUnits, candidate_analyses
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits
from klarsicht.audit.verdicts.quantification.selected_detections import select_detections
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.arrays import Doubles, Rows


@dataclass
class ExcludedTime:
    """Seconds of work that a quantification does not do, taken out of its cost."""

    cpu: float = 0.0
    wall: float = 0.0


@dataclass(frozen=True)
class SampledDetection(DetectionUnits):
    """Detection units of some classes, of whose images only the first rows are explained.

    Other images borrow the maps of explained ones, and the time that computing their logits takes is excluded.

    Attributes:
        explained: number of these rows.
        pooled: rows of the pool.
        images: images of the corpus, those that are needed in its cache.
        learned: the embedding; None where the corpus is too small for one.
        sign_rows: rows of the table `signs` of the classes that were examined, by target.
        excluded_time: seconds that computed logits took.
    """

    explained: int = 0
    pooled: tuple[int, ...] = ()
    images: InputImages | None = None
    learned: ArtifactEmbedding | None = None
    sign_rows: dict[int, list[SignRow]] = field(default_factory=dict, repr=False, compare=False)
    excluded_time: ExcludedTime = field(default_factory=ExcludedTime, repr=False, compare=False)

    @cached_property
    def pool_rows(self) -> Rows:
        """Rows of the pool."""
        return np.array(self.pooled, np.intp)

    @cached_property
    def input_images(self) -> InputImages:
        """The images that were given."""
        return self.images or super().input_images

    @cached_property
    def embedding(self) -> ArtifactEmbedding | None:
        """The embedding that was given."""
        return self.learned

    def examine(self, number: int) -> tuple[ClassRow, list[SignRow]]:
        """Return the table lines of a class, and keep those of its detections."""
        described, signs = super().examine(number)
        if signs:
            self.sign_rows[self.groups[number].target] = signs
        return described, signs

    def image_stack(self, rows: Rows) -> ImageStack:
        """Read images, with maps of explained ones."""
        explained = rows % self.explained
        maps = self.store.array("maps")[explained] if self.store.has_array("maps") and len(rows) else None
        return ImageStack(self.input_images(rows), None if maps is None else np.asarray(maps, np.float32))

    def logits(self, rows: Rows, predict: Predict) -> Doubles:
        """Return the logits (n, K) of images: those of the run, and computed ones of images that are not explained."""
        logits = np.asarray(self.store.array("logits")[rows % self.explained], np.float64)
        other = rows >= self.explained
        cpu, wall = time.process_time(), time.perf_counter()
        if other.any():
            logits[other] = predict(self.input_images.as_inputs(rows[other]))
        self.excluded_time.cpu += time.process_time() - cpu
        self.excluded_time.wall += time.perf_counter() - wall
        return logits


@dataclass(frozen=True)
class QuantifiedSample:
    """Classes of a corpus beside its pool, of which units are computed and measured.

    Attributes:
        sample: explained images, the first rows of the corpus of `units`.
        units: detection units; the last group is what is left of the pool, so that other images are never too few.
    """

    sample: ExplainedSample
    units: SampledDetection

    @classmethod
    def begin(
        cls, sample: ExplainedSample, plan: DetectionUnits, pool: Rows, groups: Sequence[Group],
        embedding: ArtifactEmbedding | None,
    ) -> QuantifiedSample:  # fmt: skip
        """Collect explained images, images of groups, and the pool.

        Args:
            sample: of the whole corpus.
            plan: units of the whole corpus, which have read all of these images.
            pool: rows of the whole corpus.
            groups: classes of the whole corpus, or some of their images, that are to be examined.
            embedding: as in `SampledDetection`.
        """
        first = np.array(sample.rows[: sample.done_units], np.intp)
        later = np.setdiff1d(np.concatenate([pool, *(group.rows for group in groups)]), first)
        rows = np.concatenate([first, later])
        place = dict(zip(rows.tolist(), range(len(rows)), strict=True))

        def places(some: Rows) -> Rows:
            return np.array([place[row] for row in some.tolist()], np.intp)

        images = replace(plan.input_images, corpus=plan.corpus[rows.tolist()], cache=PixelCache())
        for new, row in enumerate(rows.tolist()):
            if (levels := plan.input_images.cache.get(row)) is not None:
                images.cache.put(new, levels)
        chosen = [replace(group, rows=np.sort(places(group.rows))) for group in groups]
        others = np.setdiff1d(places(pool), np.concatenate([group.rows for group in chosen]))
        units = SampledDetection(
            sample.store, images.corpus, plan.settings, (*chosen, Group("", -1, others)), plan.identity,
            plan.classifier, len(first), tuple(places(pool).tolist()), images, embedding,
        )  # fmt: skip
        return cls(sample, units)

    def examine(self, number: int) -> Cost:
        """Run the detectors on a class, and write what the step writes, which is removed again."""
        store, step = self.units.store, self.units.step
        with measure_cost(store.path) as watch:
            store.mark_done(step, number, self.units(range(number, number + 1)))
        store.discard_step(step)
        return watch.cost

    def insert(self, number: int) -> Cost:
        """Put the artifacts of a class that was examined on images of others, and write what the step writes."""
        choice = select_detections(list(self.units.sign_rows.values()), LEVEL)
        signs = signs_to_insert(self.units.sign_rows, choice, self.units.groups)
        return self._measure_step(InterventionUnits(self.units, signs), number)

    def search(self, group: Group) -> Cost:
        """Search the cluster of a class of explained images that the model follows, and write what the step writes."""
        sample, others = self.sample, self.units.groups[-1]
        asked = tuple(sample.analysis(metric, [group]) for metric in sample.audit.settings.metric)
        units = replace(self.units, groups=(group, others))
        return self._measure_step(ClusterInterventionUnits(units, candidate_analyses(asked)), 0)

    def _measure_step(self, work: InterventionUnits | ClusterInterventionUnits, number: int) -> Cost:
        store, excluded_time = self.units.store, self.units.excluded_time
        excluded_time.cpu = excluded_time.wall = 0.0
        with measure_cost(store.path) as watch:
            store.mark_done(work.step, number, work(range(number, number + 1)))
        cost = watch.cost
        store.discard_step(work.step)
        return cost.beyond(Cost(excluded_time.cpu, excluded_time.wall))
