"""Groups of images that a run or a person names, and their accuracy before and after a correction."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

import numpy as np

from klarsicht.audit.cleaning.artifacts.artifact import Artifact
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.models.audited_run import AuditedRun, LabelledCorpus
from klarsicht.audit.cleaning.models.group_accuracy import (
    HELD_OUT_PICTURES,
    GroupComparison,
    OwnImages,
    Sides,
    compare,
    compare_groups,
    limit_groups,
    predict_classes,
)
from klarsicht.audit.explanation.data import locations, manifest
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.label_cells import LabelCells
from klarsicht.audit.explanation.data.manifest import ColumnNames
from klarsicht.audit.explanation.data.splits import TEST
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.results.surroundings import is_examined, read_surroundings
from klarsicht.ground.arrays import Rows
from klarsicht.ground.errors import CorpusError, InputError, UsageError

GROUP_TABLES: Final = (".csv", ".parquet")
GROUP_COLUMN: Final = "group"  # of a table of its own
WITH_BLANKS: Final = LabelCells(";")  # where labels may be several they may be none; cells are not divided here
OTHER_PICTURES: Final = "images of another corpus"
BLOCK: Final = 64  # images that are read at once
RULE: Final = "a column of a corpus that is a CSV or parquet table, or such a table with the columns path,group"


def read_groups(groups: str, corpus: Corpus, place: str, path_column: str = "") -> Sides:
    """Read the group of each image of a corpus; -1 for images with a blank.

    Args:
        groups: a column of the corpus's table, or a table with the columns path,group.
        place: of the corpus.
        path_column: the column of paths of the corpus's table, where it is not the usual one.

    Raises:
        UsageError: the corpus is no table.
        InputError: no such column, images without a line, or fewer than two groups.
    """
    of_its_own = groups.lower().endswith(GROUP_TABLES)
    table = groups if of_its_own else place
    if not table.lower().endswith(GROUP_TABLES):
        remedy = "Give a table: --groups groups.csv."
        raise UsageError("no table with groups", got=f"{groups!r}, and a corpus in {place}", rule=RULE, remedy=remedy)
    names = ColumnNames(label=GROUP_COLUMN) if of_its_own else ColumnNames(path_column, groups)
    try:
        columns = manifest.read_columns(table, WITH_BLANKS, names)
    except CorpusError as error:
        what = f"no groups in {table}: {error.what}".replace("the manifest", "the table")
        raise InputError(what, got=error.got, rule=RULE, remedy="Name another column or table by --groups.") from error
    group_of = dict(zip(map(os.path.normpath, columns["path"]), columns["label"], strict=True))
    folder = locations.parent(table)
    group_of |= {os.path.normpath(locations.join(folder, path)): group for path, group in group_of.items()}
    values = [
        group_of.get(key, group_of.get(os.path.normpath(path)))
        for key, path in zip(corpus.keys, corpus.paths, strict=True)
    ]
    if None in values:
        raise InputError(
            "images without a line in the table of groups",
            got=f"{values.count(None)} of {len(values)}: {corpus.paths[values.index(None)]}",
            rule="one line an image, blank where its group is not known", remedy=f"Complete {table}.",
        )  # fmt: skip
    group_names = sorted({one for one in values if one})
    if len(group_names) < 2:
        remedy = "Name another column by --groups."
        raise InputError(
            "no groups to compare", got=", ".join(group_names) or "blanks", rule="two or more", remedy=remedy
        )
    number = {name: i for i, name in enumerate(group_names)}
    return Sides(np.array([number.get(one or "", -1) for one in values]), dict(enumerate(group_names)))


def read_run_groups(run: AuditedRun, groups: str) -> Sides:
    """Read the group of each image of a run, see `read_groups`."""
    settings = run.audit.settings
    return read_groups(groups, run.audit.corpus, str(settings.data), settings.path_column or "")


def names_sides(run: AuditedRun) -> bool:
    """Say whether a run names sides: `audit shortcuts` found a shortcut in the surroundings of its classes."""
    return is_examined(run.store) and read_surroundings(run.store).found


def tests_sides(run: AuditedRun) -> bool:
    """Say whether a run names sides, and the model was tested on them."""
    return names_sides(run) and any(one.taken.n for one in read_surroundings(run.store))


def relies_on_sides(run: AuditedRun) -> bool:
    """Say whether the model of a run is shown to follow the surroundings of a class."""
    return is_examined(run.store) and bool(read_surroundings(run.store).relied_on)


def compare_class_groups(
    run: AuditedRun, artifact: Artifact, correction: Correction, seed: int, groups: str | None = None
) -> tuple[GroupComparison, ...]:
    """Compare the groups of the images on which nothing of a correction was fitted or chosen: those of the class and of
    its side, where the run names sides, and those that a person names; nothing where there are neither."""
    names, held_out = dict(enumerate(run.audit.names)), np.asarray(artifact.part == TEST)
    comparisons: list[GroupComparison] = []
    if names_sides(run):
        own_images = OwnImages.of(run, seed, None, held_out, only_held_out=True)
        comparisons += compare_groups(run.audit.classifier, correction, own_images, names, names, seed, artifact.target)
    if groups is not None:
        comparisons.append(compare_pictures(run, correction, read_run_groups(run, groups), np.flatnonzero(held_out)))
    return tuple(comparisons)


def compare_true_groups(
    run: AuditedRun, correction: Correction, data: str, groups: str, most: int | None = None, seed: int = 0
) -> GroupComparison:
    """Compare the groups of another corpus that a person names, with at most so many images of each, drawn by a seed.
    Raises as `read_groups`, and CorpusError for labels that the run does not know."""
    other = run.open_other(data)
    sides = read_groups(groups, other.corpus, data, run.audit.settings.path_column or "")
    rows = limit_groups(other.labels, sides.numbers, most, seed)
    return compare_pictures(run, correction, sides, rows, OTHER_PICTURES, other)


def compare_pictures(
    run: AuditedRun, correction: Correction, sides: Sides, rows: Rows, kind: str = HELD_OUT_PICTURES,
    of: LabelledCorpus | None = None,
) -> GroupComparison:  # fmt: skip
    """Compare the groups of pictures of a run, or of another corpus, as they are; without those whose label or group is
    not known."""
    of = of or run.labelled_corpus
    corpus, labels, classifier = of.corpus, of.labels, run.audit.classifier
    rows = rows[(labels[rows] >= 0) & (sides.numbers[rows] >= 0)]
    if not len(rows):
        raise InputError("no image to compare groups on", got="no label or group of any", rule=RULE)
    images, classes = InputImages.of(corpus, classifier), np.unique(labels[labels >= 0])
    answers = [
        predict_classes(
            classifier,
            one,
            (images.as_inputs(rows[a : a + BLOCK]) for a in range(0, len(rows), BLOCK)),
            classes,
        )
        for one in (None, correction)
    ]
    on, everything = replace(sides, numbers=sides.numbers[rows]), np.ones(len(rows), bool)
    return compare(kind, answers, labels[rows], on, dict(enumerate(run.audit.names)), everything)
