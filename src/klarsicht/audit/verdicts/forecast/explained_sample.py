"""Sample of a corpus that was explained in a run folder of its own, to measure what its classes cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.relevance import attribution
from klarsicht.audit.explanation.relevance.attribution import Attribution
from klarsicht.audit.explanation.spectral.analysis import Analysis, head_weight
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.explanation.steps.relevance_step import begin_attribution, load_worker_model
from klarsicht.audit.verdicts.forecast.cost import Cost, measure_cost
from klarsicht.ground.run_folder.store import RunStore


@dataclass(frozen=True)
class SampledAudit(Audit):
    """Audit of some rows of a corpus, whose labels have the outputs that they have in the whole corpus.

    Attributes:
        whole: audit of the whole corpus.
        sample_groups: groups that are analysed together, in place of those of the target.
    """

    whole: Audit | None = None
    sample_groups: tuple[Group, ...] = ()

    @cached_property
    def index(self) -> dict[str, int]:
        """Output of the model for each label of the whole corpus."""
        return {} if self.whole is None else self.whole.index

    def groups(self, predicted: NDArray[Any], usable: NDArray[np.bool_]) -> list[Group]:
        """Return the groups that were given."""
        return list(self.sample_groups)


@dataclass(frozen=True)
class ExplainedSample:
    """Rows of a corpus in a run folder, of which the first units are explained.

    Attributes:
        audit: of these rows.
        store: the run folder.
        rows: of the whole corpus.
        done_units: rows that are explained, the first ones.
    """

    audit: SampledAudit
    store: RunStore
    rows: tuple[int, ...]
    done_units: int = 0

    @classmethod
    def begin(cls, whole: Audit, rows: list[int], unit: int, folder: Path) -> ExplainedSample:
        """Create a run of some rows of a corpus.

        Args:
            whole: audit of the whole corpus.
            unit: images in a work unit.
            folder: the run folder, which is made.
        """
        settings = whole.settings.with_values(unit=unit)
        audit = SampledAudit(settings, whole.corpus[rows], whole.classifier, whole.sharing, whole)
        store = pipeline.open_run(audit, folder)
        found = cls(audit, store, tuple(rows))
        begin_attribution(audit, store, found.work)
        return found

    @cached_property
    def work(self) -> Attribution:
        """Work function of the relevance step, in this process."""
        audit, model = self.audit, self.audit.classifier
        return Attribution(
            self.store,
            audit.corpus,
            audit.settings,
            audit.targets,
            model.identity,
            load_worker_model,
            model,
        )

    def explain(self, unit: range) -> Cost:
        """Explain the rows of a unit, and mark it done."""
        with measure_cost(self.store.path) as watch:
            written = self.work(unit).checksums
            self.store.mark_done(attribution.STEP, unit.start // self.audit.settings.unit, written)
        return watch.cost

    def first_rows(self) -> ExplainedSample:
        """Return the sample without the rows that are not explained."""
        audit = replace(self.audit, corpus=self.audit.corpus[: self.done_units])
        self.store.write_table("corpus", audit.corpus.to_table())
        return replace(self, audit=audit)

    @property
    def image_bytes(self) -> float:
        """Bytes of memory of one row of the table of images, as far as it is read before classes are clustered."""
        table = self.store.table(attribution.IMAGES, attribution.STEP, attribution.PREDICTIONS)
        return float(table.nbytes) / len(table)

    def classes(self) -> list[Group]:
        """Return the classes with enough explained images; by prediction, those of a label count as a class."""
        _, usable = attribution.read_predictions(self.store)
        labels = np.array(self.audit.corpus.labels[: self.done_units])
        outputs = self.audit.index if self.audit.settings.target == "label" else {}
        groups = [
            Group(name, outputs.get(name, i), np.flatnonzero((labels == name) & usable))
            for i, name in enumerate(sorted(set(labels.tolist())))
        ]
        return [group for group in groups if len(group) >= MIN_IMAGES]

    def measure_reading(self, units: float, rows: float) -> Cost:
        """Measure the reading of tables before classes are clustered.

        Args:
            units, rows: of the whole corpus, over those of the sample.
        """
        with measure_cost() as images:
            attribution.read_predictions(self.store)
        with measure_cost() as sources:
            _ = self.analysis("features", []).sources
        return images.cost.times(units) + sources.cost.times(rows)

    def cluster(self, metric: str, groups: list[Group]) -> Cost:
        """Cluster groups as one work unit, write what the step writes, and remove it again."""
        work = self.analysis(metric, groups)
        _ = work.sources  # measured apart
        with measure_cost(self.store.path) as watch:
            self.store.mark_done(work.step, 0, replace(work, size=len(groups))(range(len(groups))))
        self.store.discard_step(work.step)
        return watch.cost

    def analysis(self, metric: str, groups: list[Group]) -> Analysis:
        """Make the work function that clusters groups, one in a unit."""
        head = head_weight(self.audit.classifier)
        return Analysis(self.store, self.audit.settings, metric, tuple(groups), head)

    def report(self, groups: list[Group], metrics: list[str]) -> tuple[Cost, Cost]:
        """Rank groups, draw pictures and write the report: the first time, and once more without pictures."""
        for metric in metrics:
            work = self.analysis(metric, groups)
            for i in range(len(groups)):
                self.store.mark_done(work.step, i, work(range(i, i + 1)))
            self.store.finish_step(work.step, len(groups))
        audit = replace(self.audit, sample_groups=tuple(groups))
        with measure_cost(self.store.path) as first:
            pipeline.report(audit, self.store)
        with measure_cost() as again:
            pipeline.report(audit, self.store)
        return first.cost, again.cost
