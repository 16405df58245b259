"""Rows of the tables that `audit quantify` and `audit shortcuts` write before they give verdicts."""

from __future__ import annotations

from typing import TypedDict

from klarsicht.audit.results.suspect_rows import ClusterRow


class FewClassMeasures(TypedDict):
    """Columns of the table `classes` that are measured where a run has too few classes to be compared.

    `natural` says whether windows may be shared by nature, with its two figures, see `detectors.natural_windows`.
    `apart` is the detection by which the class stands out most among reference classes, with its p and that of what is
    left, see `detectors.reference_classes`. Elsewhere true, NaN and empty.
    """

    natural: bool
    correlation: float
    left: float
    apart: str
    apart_p: float
    apart_left: float


_ClassColumns = TypedDict(
    "_ClassColumns", {"class": str, "target": int, "n": int, "repeats": list[int], "skipped": str}
)


class ClassRow(_ClassColumns, FewClassMeasures):
    """Row of the table `classes`: images examined, rows that repeat another image, and why a class was skipped or
    ""."""


class SignRow(TypedDict):
    """Row of the table `signs`: a detection in a class. `score` is in nats, `rows` are its members in the run;
    `places`, `height` and `width` as in `Detection`, places flat: row, column, row, column."""

    target: int
    sign: str
    score: float
    rows: list[int]
    places: list[float]
    height: float
    width: float


class EffectRow(TypedDict):
    """Row of the table `effects`: the effect of a detection's artifact, see `class_verdict.UseResult`; NaN for None."""

    target: int
    sign: str
    how: str
    rank: int
    images: int
    shift: float
    low: float
    high: float
    z: float
    flips: float
    flips_control: float
    flips_low: float
    p_tiles: float
    change: str
    covered: float
    explained: float
    recognition: float
    remainder: float
    separation: float


class FurtherSignRow(SignRow):
    """Row of detections in what is left of a called class: `artifact` counts the artifacts of the class, from 2."""

    artifact: int


class FurtherEffectRow(EffectRow):
    """Row of the effect of a further artifact: `artifact` as in `FurtherSignRow`."""

    artifact: int


SHARED_CONTENT = "shared"
"""Change that puts on what carriers share; see interventions.shared_content."""

NO_EFFECT = EffectRow(
    target=-1, sign="", how="", rank=-1, images=0, shift=0.0, low=0.0, high=0.0, z=float("nan"), flips=0.0,
    flips_control=0.0, flips_low=0.0, p_tiles=1.0, change="", covered=float("nan"), explained=float("nan"),
    recognition=float("nan"), remainder=float("nan"), separation=float("nan"),
)  # fmt: skip
"""Of a class in which nothing was inserted."""


class FollowedEffect(TypedDict):
    """Columns of the effect of the cluster that the model follows, on images of other classes; see
    `ranking.ClusterEffect`. `effect` and `effect_z` are its shift and z: `shift` and `z` are those of the cluster's own
    images."""

    effect: float
    effect_z: float
    follows: float
    stability: float
    low: float
    high: float
    runner_up: float
    rank: int
    images: int
    flips: float
    flips_control: float


class SpecificityColumns(TypedDict):
    """Columns of `Specificity`; None where several classes are audited."""

    runner: str | None
    margin: float | None
    margin_low: float | None
    margin_high: float | None
    uplift: float | None
    uplift_control: float | None
    own: float | None
    peer: str | None
    peer_effect: float | None
    ahead: int | None


class FollowedRow(ClusterRow, FollowedEffect, SpecificityColumns):
    """Row of the table `followed`: the cluster of a class that the model follows."""


class ExchangeRow(TypedDict):
    """Row of the table `exchanged`: an image of another class with one part of an image of the class.

    `rise` is the score of the class less that with the same part of another image of the image's own class; `taken` and
    `taken_control` say whether it is predicted as the class, `stays` and `stays_control` whether as its own, `own`.
    `row`, `donor` and `control` are rows of the run.
    """

    target: int
    part: str
    own: int
    row: int
    donor: int
    control: int
    rise: float
    taken: bool
    taken_control: bool
    stays: bool
    stays_control: bool


WHOLE_IMAGE = "whole image"
"""Name of the part that is everything."""
