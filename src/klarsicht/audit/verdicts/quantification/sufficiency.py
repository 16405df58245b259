"""Measure for every class of a run which part of its images suffices the model to tell it from others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.data.locations import require_place
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.file_rules import find_file_rules
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.report import page
from klarsicht.audit.explanation.settings import ANY_DEVICE, LOCAL_ENGINE
from klarsicht.audit.explanation.steps import step_units
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results.logit_effect import LogitEffect
from klarsicht.audit.results.part_comparison import compare_parts
from klarsicht.audit.results.rows import ExchangeRow
from klarsicht.audit.results.significance import LEVEL, class_strategy
from klarsicht.audit.results.sufficiency import (
    SUFFICIENCY_FILE,
    ClassProfile,
    PartEvidence,
    Sufficiency,
    order_profiles,
)
from klarsicht.audit.verdicts.interventions.image_parts import REGION_INSIDE, REGION_OUTSIDE
from klarsicht.audit.verdicts.quantification.natural_parts import read_natural_parts, read_natural_sets
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.part_figures import write_part_figures
from klarsicht.audit.verdicts.quantification.reference_parts import measure_reference
from klarsicht.audit.verdicts.quantification.sufficiency_units import (
    ExchangeUnits,
    KeptPartUnits,
    PartReader,
    is_shown_missing,
)
from klarsicht.audit.verdicts.quantification.surroundings import examine_surroundings
from klarsicht.ground.arrays import Floats, Ints, Rows
from klarsicht.ground.errors import UsageError
from klarsicht.ground.progress import note
from klarsicht.ground.ranges import SHOWN_IMAGES
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.intervals import Interval, block_mean_interval, roc_area_score
from klarsicht.numerics.statistics.linear_discriminants import cross_validated_scores

PROFILE_IMAGES = 64  # of a class, by default
COMPLEMENTS = {REGION_INSIDE: REGION_OUTSIDE, REGION_OUTSIDE: REGION_INSIDE}


@check_arguments
def measure_sufficiency(
    run: str | Path | RunStore, *, images: int = PROFILE_IMAGES, level: float = LEVEL, workers: int = 1,
    data: Any = None, classifier: Classifier | None = None, shard: str | None = None, device: str = ANY_DEVICE,
    region: str | Path | None = None, reference: str | Path | None = None, engine: str = LOCAL_ENGINE,
) -> Sufficiency:  # fmt: skip
    """Measure the profile of every class of a finished run, and write it as JSON, as a table and into its report.

    Args:
        images: most images of a class to show, each once whole and once for every part; half as many images of other
            classes get its parts. These serve several classes, and are shown with parts of their own class once.
        region: a mask file of the shape of the pictures, bright inside; a CSV with columns `path,mask`; or a function
            `file.py:callable` from a picture to its mask. Without it, where pictures are aligned, `estimate_region`.
        reference: a folder of class folders with other pictures of the same apparatus, beside which the parts of few
            classes are judged: a part is only noted where it tells more than any reference class.
        run, level, workers, data, classifier, shard, device, engine: see quantification.quantify.

    Raises:
        UsageError: the number of images is out of range, fewer than two classes have two images of two sources, and as
            quantify does.
        RunMismatch: model or data differ from those of the run.
    """
    SHOWN_IMAGES.require("images", images)
    if reference is not None:
        require_place(reference, "--reference")
    with open_run(
        run, level=level, workers=workers, data=data, classifier=classifier, shard=shard, device=device, engine=engine
    ) as (audit, work):
        reader = PartReader(work, images, "" if region is None else str(region))
        answers = run_units(audit, reader, level, workers)
        examine_surroundings(audit, work, workers)
        references = measure_reference(reader, reference) if reference is not None else {}
        found = make_sufficiency(answers, references)
        audit.sharing.once(
            f"shortcuts.{reader.identity}.{level}.{bool(references)}", lambda: write_sufficiency(reader, found)
        )
    return found


def write_sufficiency(reader: PartReader, sufficiency: Sufficiency) -> None:
    """Write profiles as JSON, as a table and into the report."""
    store = reader.work.store
    store.write_json(SUFFICIENCY_FILE, sufficiency.to_json())
    store.write_table("shortcuts", sufficiency.to_table())
    write_part_figures(reader, sufficiency)
    page.write_report(store)


def run_units(audit: Audit, reader: PartReader, level: float, workers: int) -> PartAnswers:
    """Show the images, class by class; units that are done stay done."""
    run_step(audit, KeptPartUnits(reader), "images with one part left", workers)
    run_step(audit, ExchangeUnits(reader), "parts on other images", workers)
    answers = PartAnswers(reader, level)
    if answers.absences:
        run_step(audit, KeptPartUnits(reader, answers.absences), "images without a part", workers)
    return answers


def run_step(audit: Audit, step: KeptPartUnits | ExchangeUnits, label: str, workers: int) -> None:
    """Run the units of a step that are not done, and say before how many images they show."""
    work = step.reader.work
    units = partition(len(work.groups), 1)
    if work.store.done_units(step.step) != {*range(len(units))}:
        note(f"{label}: at most {most_images_shown(step):,} images will be shown to the network")
    step_units.run_step(audit, work.store, step, step.step, units, workers, label)


def most_images_shown(step: KeptPartUnits | ExchangeUnits) -> int:
    """Bound the number of images that the units of a step that are not done show to the network."""
    reader = step.reader
    todo = [i for i in range(len(reader.work.groups)) if not reader.work.store.is_done(step.step, i)]
    if isinstance(step, KeptPartUnits):
        return len(step.ways) * sum(len(reader.feature_rows(i)) for i in todo)
    return step.most_shown(todo)


@dataclass(frozen=True)
class PartFeatures:
    """Features of images of which one part was kept, or is missing, or of whole images.

    Attributes:
        target, row: int (n,), class and row of the run of each image.
        features: float (n, F), of the network.
    """

    target: Ints
    row: Rows
    features: Floats

    @classmethod
    def of(cls, table: pa.Table, part: str, *, rest: bool) -> PartFeatures | None:
        """Select the rows of a table of one part, kept or missing; None without any."""
        some = table.filter(pc.and_(pc.equal(table["part"], part), pc.equal(table["rest"], rest)))
        if not len(some):
            return None
        target, row = (some[name].to_numpy() for name in ("target", "row"))
        return cls(target, row, some["features"].combine_chunks().flatten().to_numpy().reshape(len(row), -1))

    def areas(self, groups: Sequence[Group], images: Ints, sources: Ints, seed: int) -> list[Interval]:
        """Estimate for each class the area under the ROC curve by which a linear head tells it from images that do not
        carry it; NO_INTERVAL where the class has one source only.

        Args:
            groups: the classes, each with all of its rows.
            images, sources: int (N,), numbers of the image and of the source of each row of the run.
            seed: of the folds.
        """
        targets = np.array([group.target for group in groups])
        number = np.searchsorted(targets, self.target, sorter=targets.argsort())
        label = targets.argsort()[number]
        scores = cross_validated_scores(self.features, label, sources[self.row], seed=seed)
        areas = []
        for k, group in enumerate(groups):
            positive = label == k
            used = np.isfinite(scores[:, k]) & (positive | ~np.isin(images[self.row], images[group.rows]))
            areas.append(roc_area_score(scores[used, k], positive[used], sources[self.row[used]]))
        return areas


@dataclass(frozen=True)
class ExchangedImages:
    """Images that got one part of an image of another class, and the same with one of their own class.

    Attributes:
        rows: of the table `exchanged`, of one part.
        sources: int (N,), number of the source of each row of the run.
    """

    rows: Sequence[ExchangeRow]
    sources: Ints

    def mean(self, value: Callable[[ExchangeRow], float]) -> Interval:
        """Estimate the mean of a value; images of one source, be they receivers or donors, count as one, whichever
        gives the wider interval."""
        values = np.array([float(value(row)) for row in self.rows])
        blocks = (self.sources[[row[name] for row in self.rows]] for name in ("row", "donor"))
        return max((block_mean_interval(values, of) for of in blocks), key=lambda found: found.high - found.low)

    @property
    def rise(self) -> Interval:
        """Mean rise of the score of the donors' class."""
        return self.mean(lambda row: row["rise"])

    @property
    def turned(self) -> Interval:
        """Share predicted as the donors' class, less that under the control."""
        return self.mean(lambda row: row["taken"] - row["taken_control"])

    @property
    def lost(self) -> Interval:
        """Share predicted as their own class under the control, less that with the part of another class."""
        return self.mean(lambda row: row["stays_control"] - row["stays"])

    def share(self, name: Literal["taken", "taken_control", "stays", "stays_control"]) -> float:
        """Compute the share of the images of which that is true."""
        return float(np.mean([row[name] for row in self.rows]))


def make_evidence(
    part: str, area: Interval | None, rest: Interval | None, others: float | None, given: ExchangedImages,
    lent: ExchangedImages,
) -> PartEvidence:  # fmt: skip
    """Make the evidence on a part from its estimates; nothing is noted yet.

    Args:
        given: images of other classes with the part of the class.
        lent: images of the class with the part of other classes.
    """
    rise, stay = given.rise, bool(lent.rows)
    return PartEvidence(
        part=part,
        area=None if area is None else area.value,
        low=None if area is None else area.low,
        high=None if area is None else area.high,
        rest=None if rest is None else rest.value,
        rest_low=None if rest is None else rest.low,
        rest_high=None if rest is None else rest.high,
        others=others,
        shift=rise.value,
        shift_low=rise.low,
        shift_high=rise.high,
        taken=given.share("taken"),
        taken_control=given.share("taken_control"),
        taken_low=given.turned.low,
        stays=lent.share("stays") if stay else None,
        stays_control=lent.share("stays_control") if stay else None,
        lost_low=lent.lost.low if stay and lent.lost.n else None,
        p=1.0,
        noted=False,
    )


Exchanges = dict[tuple[int, str], ExchangedImages]  # by class and part


@dataclass(frozen=True)
class PartAnswers:
    """Answers of the network to the parts of all classes of a run, read from the tables of its steps.

    Attributes:
        reader: of the images.
        level: of p, up to which a part is noted.
    """

    reader: PartReader
    level: float

    @cached_property
    def parts_alone(self) -> pa.Table:
        """The table of images of which one part was kept."""
        step = KeptPartUnits(self.reader).step
        return self.reader.work.store.table(step, step)

    @cached_property
    def first(self) -> PartFeatures:
        """Features of images of which the first part was kept."""
        found = PartFeatures.of(self.parts_alone, next(iter(self.reader.parts)), rest=False)
        assert found is not None
        return found

    @cached_property
    def whole(self) -> list[Interval]:
        """Area of each class by whole images."""
        features = np.asarray(self.reader.work.store.array("features")[self.first.row])
        return self.estimate_areas(PartFeatures(self.first.target, self.first.row, features))

    @cached_property
    def alone(self) -> dict[str, list[Interval] | None]:
        """Area of each class by each part alone."""
        features = {part: PartFeatures.of(self.parts_alone, part, rest=False) for part in self.reader.parts}
        return {part: None if one is None else self.estimate_areas(one) for part, one in features.items()}

    @cached_property
    def without(self) -> dict[str, list[Interval] | None]:
        """Area of each class by images without each part; of a part whose complement is one, by that alone."""
        areas = {part: self.alone.get(COMPLEMENTS.get(part, "")) for part in self.reader.parts}
        if self.absences:
            step = KeptPartUnits(self.reader, self.absences).step
            table = self.reader.work.store.table(step, step)
            for part in self.absences:
                if (features := PartFeatures.of(table, part, rest=True)) is not None:
                    areas[part] = self.estimate_areas(features)
        return areas

    def estimate_areas(self, features: PartFeatures) -> list[Interval]:
        """Estimate the area of each class by some features."""
        work, corpus = self.reader.work, self.reader.work.corpus
        return features.areas(work.groups, corpus.image_numbers, corpus.source_numbers, work.settings.seed)

    @cached_property
    def absences(self) -> tuple[str, ...]:
        """Parts that images are shown without, which decides nothing: those that are noted of a class."""
        receivers, lenders = self.exchanges
        numbers = self.list_measured(receivers)
        if len(numbers) < 2:
            return ()
        measured = [
            [self.make_evidence(i, part, receivers, lenders) for part in self.reader.questions] for i in numbers
        ]
        noted = self.compare(numbers, [[one.effect for one in line] for line in measured])[1]
        parts = (part for j, part in enumerate(self.reader.questions) if noted[:, j].any())
        return tuple(filter(is_shown_missing, parts))

    @cached_property
    def exchanges(self) -> tuple[Exchanges, Exchanges]:
        """Other images with the part of each class, and its images with parts of others."""
        return read_exchanges(self.reader)

    def list_measured(self, receivers: Exchanges) -> list[int]:
        """List the numbers of the classes that can be measured."""
        first = next(iter(self.reader.parts))
        return [
            i
            for i, group in enumerate(self.reader.work.groups)
            if self.whole[i].n and (group.target, first) in receivers and receivers[group.target, first].rise.n
        ]

    def compare(
        self, numbers: Sequence[int], effects: Sequence[Sequence[LogitEffect]]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Compare classes under all parts, see `compare_parts`."""
        names = self.reader.questions
        areas = [[None if own is None else own[i] for own in map(self.alone.get, names)] for i in numbers]
        return compare_parts(names, areas, effects, self.level, read_natural_parts(), read_natural_sets())

    def make_evidence(
        self, i: int, part: str, receivers: Exchanges, lenders: Exchanges, others: float | None = None,
        rest: Interval | None = None,
    ) -> PartEvidence:  # fmt: skip
        """Make the evidence on a part of a class; nothing is noted yet."""
        target, own = self.reader.work.groups[i].target, self.alone.get(part)
        none = ExchangedImages((), self.reader.work.corpus.source_numbers)
        borrowed = lenders.get((target, part), none)
        return make_evidence(part, None if own is None else own[i], rest, others, receivers[target, part], borrowed)


def make_sufficiency(answers: PartAnswers, references: Mapping[str, float]) -> Sufficiency:
    """Make the profiles of all classes, with what their files tell and the words of the region.

    Args:
        references: the largest area of reference classes, of each part that was measured on them.

    Raises:
        UsageError: fewer than two classes can be measured.
    """
    profiles, reader = make_profiles(answers, references), answers.reader
    if not profiles:
        raise UsageError(
            "nothing to compare with",
            got="fewer than two classes that can be measured",
            rule="at least 2 classes of 2 images each, from 2 sources",
        )
    files = find_file_rules(reader.work.corpus, reader.work.settings.seed)
    region = "" if reader.masks is None else reader.masks.words
    return Sufficiency(order_profiles(profiles), answers.level, reader.images, files, region)


def make_profiles(answers: PartAnswers, references: Mapping[str, float]) -> tuple[ClassProfile, ...]:
    """Make the profiles of the classes that can be measured from the tables of all steps; none of fewer than two.

    Args:
        references: the largest area of reference classes, of each part that was measured on them.
    """
    reader, first, whole = answers.reader, answers.first, answers.whole
    groups, given = reader.work.groups, answers.exchanges[0]
    numbers = answers.list_measured(given)
    if len(numbers) < 2:
        return ()
    compares = class_strategy(len(numbers)).compares_classes

    def evidence(i: int, part: str) -> PartEvidence:
        own, rest = answers.alone.get(part), answers.without.get(part)
        middle = (
            float(np.median([own[k].value for k in numbers if k != i])) if own and compares else references.get(part)
        )
        return answers.make_evidence(i, part, *answers.exchanges, middle, None if rest is None else rest[i])

    measured = [[evidence(i, part) for part in reader.questions] for i in numbers]
    p, noted = answers.compare(numbers, [[one.effect for one in line] for line in measured])
    return tuple(
        ClassProfile(
            name=groups[i].name,
            target=groups[i].target,
            n=int((first.target == groups[i].target).sum()),
            whole=whole[i].value,
            whole_low=whole[i].low,
            whole_high=whole[i].high,
            parts=tuple(
                replace(
                    one,
                    p=float(p[a, j]),
                    noted=bool(noted[a, j] and (compares or not one.is_ordinary)),
                )
                for j, one in enumerate(measured[a])
            ),
        )
        for a, i in enumerate(numbers)
    )


def read_exchanges(reader: PartReader) -> tuple[Exchanges, Exchanges]:
    """Read the exchanges of each class and part: other images with its part, and its images with parts of others."""
    sources = reader.work.corpus.source_numbers
    given: dict[tuple[int, str], list[ExchangeRow]] = {}
    lent: dict[tuple[int, str], list[ExchangeRow]] = {}
    for row in reader.work.store.table(ExchangeUnits(reader).step, ExchangeUnits(reader).step).to_pylist():
        given.setdefault((row["target"], row["part"]), []).append(row)
        lent.setdefault((row["own"], row["part"]), []).append(row)
    first, second = ({key: ExchangedImages(rows, sources) for key, rows in lines.items()} for lines in (given, lent))
    return first, second
