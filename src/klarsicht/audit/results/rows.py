"""Rows of the tables that `audit quantify` writes before it gives verdicts."""

from __future__ import annotations

from typing import TypedDict

ClassRow = TypedDict("ClassRow", {"class": str, "target": int, "n": int, "repeats": list[int], "skipped": str})
"""Row of the table `classes`: images examined, rows of the run that repeat another image, and why a class was skipped;
empty where it was not."""


class SignRow(TypedDict):
    """Row of the table `signs`: a detection in a class.

    `sign` is its name, `score` in nats, `rows` are its members in the run; `places`, `height` and `width` as in
    `Detection`, places flat: row, column, row, column.
    """

    target: int
    sign: str
    score: float
    rows: list[int]
    places: list[float]
    height: float
    width: float


class EffectRow(TypedDict):
    """Row of the table `effects`: the effect of a detection's artifact; see `LogitEffect`."""

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


NO_EFFECT = EffectRow(
    target=-1, sign="", how="", rank=-1, images=0, shift=0.0, low=0.0, high=0.0, z=float("nan"), flips=0.0,
    flips_control=0.0, flips_low=0.0, p_tiles=1.0,
)  # fmt: skip
"""Of a class in which nothing was inserted."""
