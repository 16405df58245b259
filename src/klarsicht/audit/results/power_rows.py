"""Rows of the tables that `audit power` writes."""

from __future__ import annotations

from typing import TypedDict


class TrialRow(TypedDict):
    """Row of the table of trials: an artifact of a kind that was planted in a share of the images of one class.

    `planted` counts the images that carry it; `p` and `sign` are of the strongest detection; `found` says that the
    class was called artifactual for images most of which carry the artifact; `f1` compares both sets of images;
    `detectors` are those that would have called it so by themselves.
    """

    kind: str
    prevalence: float
    target: int
    planted: int
    p: float
    sign: str
    found: bool
    f1: float
    detectors: list[str]


class VerdictColumns(TypedDict):
    """Columns of the verdict on a class of a fine-tuned copy; see `class_verdict.Verdict`."""

    artifactual: bool
    poisoned: bool
    sign: str | None
    tried: str | None
    z: float | None
    p_use: float | None
    low: float | None


class CourseRow(VerdictColumns):
    """Row of the table of courses: an artifact planted before a fine-tuning, or a clean class with an empty kind.

    `rise` and `turned` are the effect of the artifact on held-out images of other classes, `_before` that in the model
    before the fine-tuning; `used` and `learned` as in `FinetunedResults`. None where nothing was planted, or no verdict
    was given.
    """

    course: int
    kind: str
    prevalence: float | None
    target: int
    planted: int | None
    used: bool | None
    learned: bool | None
    rank: int | None
    rise: float | None
    rise_before: float | None
    turned: float | None
    turned_before: float | None
    f1: float | None
    accuracy_before: float
    accuracy: float


class LearnedCounts(TypedDict):
    """Numbers of artifacts of one kind and prevalence that were planted before a fine-tuning."""

    planted: int
    artifactual: int
    used: int
    learned: int
    poisoned: int


class LearnedLine(TypedDict):
    """Line of the report on artifacts of one kind that fine-tuned copies learned."""

    kind: str
    limit: str
    counts: list[LearnedCounts]


class PowerRow(TypedDict):
    """Row of the table `power`: the detection limit of one kind, and found/planted at each prevalence. `learned` is
    None and `notes` are empty where no copy was fine-tuned."""

    kind: str
    limit: str
    prevalences: list[float]
    detectors: str
    cells: list[str]
    shares: list[float]
    learned: LearnedLine | None
    notes: tuple[str, ...]
