"""Findings: artifacts that a person named, each with all classes that carry it, and classes that seem to share one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klarsicht.audit.results.words import VerdictKind
from klarsicht.explorer.class_results import ClassLine
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.likeness import LEAST_LIKENESS, feature_shift, group_alike, shift_likeness
from klarsicht.explorer.relevance_maps import choose_evenly
from klarsicht.ground.arrays import Doubles
from klarsicht.ground.run_folder.decisions import UNDECIDED, UNSURE

FEATURES = "features"  # the array of a run in which classes are compared
MOST_COMPARED = 200  # classes, the most urgent first
SHIFT_IMAGES = 128  # members, and other images, of which a shift is taken, at most
SHOWN_MEMBERS = 12  # of a finding
READ_CLASSES = 16  # whose features are read at once


@dataclass(frozen=True)
class Finding:
    """An artifact by name, or classes that seem to share one.

    Attributes:
        artifact: its name; empty for classes whose artifact nobody named, of which each is a finding.
        classes: (output, class, number of members) of those that carry it.
        first, images: rows of some members, see make_finding, and the number of different members.
        likeness: mean cosine between the classes' shifts; None where a person decided.
        alike: where a person decided, (output, class, number of members, likeness) of undecided classes.
    """

    artifact: str
    classes: tuple[tuple[int, str, int], ...]
    first: tuple[int, ...]
    images: int
    likeness: float | None = None
    alike: tuple[tuple[int, str, int, float], ...] = ()


@dataclass(frozen=True)
class Findings:
    """Findings of a run.

    Attributes:
        decided: by a person, those in most images first.
        proposed: groups of two or more undecided classes, the largest first.
        alone: number of undecided classes that were compared, and are like no other.
        why: why classes were not compared; empty where they were.
    """

    decided: tuple[Finding, ...]
    proposed: tuple[Finding, ...]
    alone: int
    why: str


def list_findings(run: ExploredRun) -> Findings:
    """List the artifacts that were decided, and propose groups of undecided classes whose
    members differ alike from other images of their class."""
    lines, decisions = run.results.lines(), run.decisions.by_target()
    targets_by_name: dict[str, list[int]] = {}
    for target, decision in decisions.items():
        if decision.is_artifact and target in lines:
            targets_by_name.setdefault(decision.artifact or f"class {target}", []).append(target)
    undecided = {target for target, one in decisions.items() if one.decision in (UNDECIDED, UNSURE)}
    noted = [line.target for line in noted_lines(run)]
    open_ = [target for target in noted if target not in decisions or target in undecided]
    if not run.reader.store.has_array(FEATURES):
        found = [make_finding(run, targets, decisions[targets[0]].artifact) for targets in targets_by_name.values()]
        return Findings(sort_by_images(found), (), 0, "the run stores no features" if open_ else "")
    compared = [*open_, *(target for targets in targets_by_name.values() for target in targets)][: 2 * MOST_COMPARED]
    stamp = (*compared, run.results.stamp, run.decisions.stamp)
    likeness = run.reader.keep("likeness", stamp, lambda: shift_likeness(class_shifts(run, compared)))
    at = {target: i for i, target in enumerate(compared)}
    decided, used_targets = [], set[int]()
    for targets in targets_by_name.values():
        own = [at[target] for target in targets if target in at]
        mean = {one: float(likeness[at[one], own].mean()) for one in open_} if own else {}
        alike = sorted((one for one in open_ if mean.get(one, 0) >= LEAST_LIKENESS), key=lambda one: -mean[one])
        told = tuple((*class_entry(run, one), mean[one]) for one in alike)
        used_targets |= set(alike)
        decided.append(make_finding(run, targets, decisions[targets[0]].artifact, alike=told))
    rest = [target for target in open_ if target not in used_targets]
    within = likeness[np.ix_([at[one] for one in rest], [at[one] for one in rest])]
    groups = group_alike(within)
    proposed = []
    for group in (group for group in groups if len(group) > 1):
        between = within[np.ix_(group, group)][~np.eye(len(group), dtype=bool)]
        proposed.append(make_finding(run, [rest[i] for i in group], "", likeness=float(between.mean())))
    alone = sum(len(group) == 1 for group in groups)
    proposed.sort(key=lambda one: -len(one.classes))
    return Findings(sort_by_images(decided), tuple(proposed), alone, "")


def noted_lines(run: ExploredRun) -> list[ClassLine]:
    """Return the lines of classes in which something was found, the most urgent first, MOST_COMPARED at most; where the
    run is not quantified, of those whose cluster raises them."""
    lines = list(run.results.lines().values())
    noted = [line for line in lines if line.verdict is not None and line.verdict.has_group]
    if not noted and all(line.verdict is None for line in lines):
        noted = [line for line in lines if line.kind == VerdictKind.RAISES]
    return noted[:MOST_COMPARED]


def class_shifts(run: ExploredRun, targets: Sequence[int]) -> Doubles:
    """Compute the shifts (k, D) of k classes in the model's features; see `likeness.feature_shift`."""
    features, shifts = run.reader.store.array(FEATURES), []
    for start in range(0, len(targets), READ_CLASSES):
        groups = []
        for target in targets[start : start + READ_CLASSES]:
            members = np.array(run.decisions.members(target), np.int64)
            others = np.setdiff1d(run.reader.images().rows_of(target), members)
            groups.append([choose_evenly(rows, SHIFT_IMAGES) for rows in (members, others)])
        rows = np.unique(np.concatenate([some for group in groups for some in group]))
        values = np.asarray(features[rows], np.float32)
        shifts += [feature_shift(*(values[np.searchsorted(rows, some)] for some in group)) for group in groups]
    return np.array(shifts).reshape(len(shifts), features.shape[1])


def class_entry(run: ExploredRun, target: int) -> tuple[int, str, int]:
    """Return output, name and number of members of a class."""
    return target, run.results.line(target).name, len(run.decisions.members(target))


def make_finding(
    run: ExploredRun, targets: Sequence[int], artifact: str, *, likeness: float | None = None,
    alike: tuple[tuple[int, str, int, float], ...] = (),
) -> Finding:  # fmt: skip
    """Make the finding of some classes, with SHOWN_MEMBERS of their members: those of most classes first (in a
    screening all classes have the same images), and of every class in turn."""
    members = [run.decisions.members(target) for target in targets]
    common = Counter(row for rows in members for row in rows)
    most = sorted(common, key=lambda row: -common[row])[:SHOWN_MEMBERS] if common and max(common.values()) > 1 else ()
    in_turn = dict.fromkeys([*most, *(rows[i] for i in range(SHOWN_MEMBERS) for rows in members if i < len(rows))])
    images = len(common)
    entries = tuple(class_entry(run, one) for one in targets)
    return Finding(artifact, entries, tuple(in_turn)[:SHOWN_MEMBERS], images, likeness, alike)


def sort_by_images(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: -one.images))
