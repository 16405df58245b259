"""Measure for every class of a run which part of its images suffices the model to tell it from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.report import page
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.explanation.steps import step_units
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results.rows import WHOLE_IMAGE, ExchangeRow
from klarsicht.audit.results.sufficiency import (
    SUFFICIENCY_FILE,
    ClassProfile,
    PartEvidence,
    Sufficiency,
    compare_parts,
    order_profiles,
)
from klarsicht.audit.results.verdicts import LEVEL
from klarsicht.audit.verdicts.quantification.part_figures import write_part_figures
from klarsicht.audit.verdicts.quantification.quantification import open_run
from klarsicht.audit.verdicts.quantification.sufficiency_units import ExchangeUnits, KeptPartUnits, PartReader
from klarsicht.ground.arrays import Bools, Doubles, Ints, Rows
from klarsicht.ground.errors import UsageError
from klarsicht.ground.progress import note
from klarsicht.ground.ranges import SHOWN_IMAGES
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.intervals import Interval, block_mean_interval, roc_area_score

PROFILE_IMAGES = 64  # of a class, by default


@check_arguments
def measure_sufficiency(
    run: str | Path | RunStore, *, images: int = PROFILE_IMAGES, level: float = LEVEL, workers: int = 1,
    data: Any = None, classifier: Classifier | None = None, shard: str | None = None, device: str = ANY_DEVICE,
) -> Sufficiency:  # fmt: skip
    """Measure the profile of every class of a finished run, and write it as JSON, as a table and into its report.

    Args:
        images: most images of a class to show, each once whole and once for every part; half as many images of other
            classes get its parts, each twice.
        run, level, workers, data, classifier, shard, device: see quantification.quantify.

    Raises:
        UsageError: the number of images is out of range, fewer than two classes have two images of two sources, and as
            quantify does.
        RunMismatch: model or data differ from those of the run.
    """
    SHOWN_IMAGES.require("images", images)
    with open_run(run, level=level, workers=workers, data=data, classifier=classifier, shard=shard, device=device) as (
        audit,
        work,
    ):
        reader = PartReader(work, images)
        run_units(audit, reader, workers)
        found = make_sufficiency(reader, level)
        audit.sharing.once(f"shortcuts.{images}.{level}", lambda: write_sufficiency(reader, found))
    return found


def write_sufficiency(reader: PartReader, sufficiency: Sufficiency) -> None:
    """Write profiles as JSON, as a table and into the report."""
    store = reader.work.store
    store.write_json(SUFFICIENCY_FILE, sufficiency.to_json())
    store.write_table("shortcuts", sufficiency.to_table())
    write_part_figures(reader, sufficiency)
    page.write_report(store)


def run_units(audit: Audit, reader: PartReader, workers: int) -> None:
    """Show the images, class by class; units that are done stay done."""
    work, units = reader.work, partition(len(reader.work.groups), 1)
    steps = (KeptPartUnits(reader), "images with one part left"), (ExchangeUnits(reader), "parts on other images")
    for step, label in steps:
        if work.store.done_units(step.step) != {*range(len(units))}:
            note(f"{label}: at most {most_images_shown(reader, step):,} images will be shown to the network")
        step_units.run_step(audit, work.store, step, step.step, units, workers, label)


def most_images_shown(reader: PartReader, step: KeptPartUnits | ExchangeUnits) -> int:
    """Bound the number of images that the units of a step that are not done show to the network."""
    todo = [i for i in range(len(reader.work.groups)) if not reader.work.store.is_done(step.step, i)]
    if isinstance(step, KeptPartUnits):
        return len(reader.parts) * sum(len(reader.class_rows(i)) for i in todo)
    return len(reader.parts) * 2 * sum(reader.most_exchanged for _ in todo)


@dataclass(frozen=True)
class KeptScores:
    """Scores of images of which one part was kept.

    Attributes:
        target, row: int (n,), class and row of the run of each image.
        level: float (n,), score of its own class.
        predicted: bool (n,), whether it is predicted as its class.
        comparison_rows: int (m,), positions of the images that other classes are told from.
        levels: float (m, K), of these.
    """

    target: Ints
    row: Rows
    level: Doubles
    predicted: Bools
    comparison_rows: Rows
    levels: Doubles

    @classmethod
    def of(cls, table: pa.Table, part: str) -> KeptScores:
        """Select the rows of the table `kept` of one part."""
        some = table.filter(pc.equal(table["part"], part))
        told = np.flatnonzero(pc.greater(pc.list_value_length(some["levels"]), 0).to_numpy())
        levels = some["levels"].combine_chunks().flatten().to_numpy().reshape(len(told), -1)
        target, row, level, predicted = (some[name].to_numpy() for name in ("target", "row", "level", "predicted"))
        return cls(target, row, level, predicted, told, levels)

    def area(self, group: Group, images: Ints, sources: Ints) -> Interval:
        """Estimate the area under the ROC curve of a class's score, for its images against those that do not carry it.

        Args:
            group: the class with all of its rows.
            images, sources: int (N,), numbers of the image and of the source of each row of the run.
        """
        target, own = group.target, self.target == group.target
        others = self.comparison_rows[~own[self.comparison_rows]]
        free = ~np.isin(images[self.row[others]], images[group.rows])
        values = np.concatenate([self.level[own], self.levels[~own[self.comparison_rows]][free, target]])
        positive = np.arange(len(values)) < own.sum()
        return roc_area_score(values, positive, sources[np.concatenate([self.row[own], self.row[others[free]]])])


@dataclass(frozen=True)
class ExchangedRises:
    """Rises of a class on images of other classes that got one part of an image of it.

    Attributes:
        rows: of the table `exchanged`.
    """

    rows: Sequence[ExchangeRow]

    def rise(self, sources: Ints) -> Interval:
        """Estimate the mean rise; images of one source, be they receivers or donors, count as one, whichever gives the
        wider interval."""
        values = np.array([row["rise"] for row in self.rows])
        blocks = (sources[[row[name] for row in self.rows]] for name in ("row", "donor"))
        return max((block_mean_interval(values, of) for of in blocks), key=lambda found: found.high - found.low)

    def share(self, name: Literal["taken", "taken_control"]) -> float:
        """Compute the share of the images that are predicted as the class."""
        return float(np.mean([row[name] for row in self.rows]))


def make_sufficiency(reader: PartReader, level: float) -> Sufficiency:
    """Make the profiles from the tables of both steps.

    Raises:
        UsageError: fewer than two classes can be measured.
    """
    work, names = reader.work, list(reader.parts)
    images, sources = work.corpus.image_numbers, work.corpus.source_numbers
    kept = work.store.table(KeptPartUnits(reader).step, KeptPartUnits(reader).step)
    levels = {part: KeptScores.of(kept, part) for part in (WHOLE_IMAGE, *names)}
    exchanged: dict[tuple[int, str], list[ExchangeRow]] = {}
    for row in work.store.table(ExchangeUnits(reader).step, ExchangeUnits(reader).step).to_pylist():
        exchanged.setdefault((row["target"], row["part"]), []).append(row)
    swaps = {key: ExchangedRises(rows) for key, rows in exchanged.items()}
    groups = [
        group
        for group in work.groups
        if (group.target, names[0]) in swaps
        and levels[WHOLE_IMAGE].area(group, images, sources).n
        and swaps[group.target, names[0]].rise(sources).n
    ]
    if len(groups) < 2:
        raise UsageError(
            "nothing to compare with",
            got=f"{len(groups)} class(es) that can be measured",
            rule="at least 2 classes of 2 images each, from 2 sources",
        )
    areas = [[levels[part].area(group, images, sources) for part in names] for group in groups]
    rises = [[swaps[group.target, part].rise(sources) for part in names] for group in groups]
    p, noted = compare_parts(areas, rises, level)
    middle = [
        [float(np.median([line[j].value for k, line in enumerate(areas) if k != i])) for j in range(len(names))]
        for i in range(len(groups))
    ]
    profiles = tuple(
        ClassProfile(
            name=group.name,
            target=group.target,
            n=int((levels[WHOLE_IMAGE].target == group.target).sum()),
            whole=levels[WHOLE_IMAGE].area(group, images, sources).value,
            parts=tuple(
                PartEvidence(
                    part=part,
                    area=areas[i][j].value,
                    low=areas[i][j].low,
                    high=areas[i][j].high,
                    others=middle[i][j],
                    recognised=float(levels[part].predicted[levels[part].target == group.target].mean()),
                    shift=rises[i][j].value,
                    shift_low=rises[i][j].low,
                    shift_high=rises[i][j].high,
                    taken=swaps[group.target, part].share("taken"),
                    taken_control=swaps[group.target, part].share("taken_control"),
                    p=None if p is None else float(p[i, j]),
                    noted=bool(noted[i, j]),
                )
                for j, part in enumerate(names)
            ),
        )
        for i, group in enumerate(groups)
    )
    return Sufficiency(order_profiles(profiles), level, reader.images)
