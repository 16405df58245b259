"""Read the detections that verdicts rest on: those of whole classes, and those of what is left of called ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import VARYING
from klarsicht.ground.run_folder.store import RunStore

FURTHER_STEPS = "further-"  # beginning of the names of the steps that examine what is left of called classes
NEAR_PLACE = 0.1  # of height and width
FEWEST_WITH_STRAY = 5  # windows, one of which may lie elsewhere: that of a repeated pattern may match it a step aside
DetectionRows = dict[tuple[int, int], list[SignRow]]  # by output and number of the artifact, from 1


def list_called(found: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """List the verdicts on classes that are called artifactual, by output."""
    return tuple(sorted((one for one in found if one.artifactual and one.rows), key=lambda one: one.target))


def name_further_step(called: Iterable[Verdict], level: float) -> str:
    """Name the step, and its table, that examines called classes without these members of their first artifacts."""
    asked = (
        float(level),
        [(verdict.target, verdict.rows) for verdict in called],
    )  # a number of numpy is written otherwise
    return FURTHER_STEPS + hashlib.sha256(repr(asked).encode()).hexdigest()[:8]


def read_detections(store: RunStore, found: Quantification) -> DetectionRows:
    """Read the rows of detections of each class, and of each of its further artifacts; empty in a run without them. The
    detection of a mark that several searches found has the windows of all."""
    searches: DetectionRows = {}
    rows: list[SignRow] = store.table("signs", "signs").to_pylist() if store.has_table("signs", "signs") else []
    for row in rows:
        searches.setdefault((row["target"], 1), []).append(row)
    step = name_further_step([_as_first_found(one, searches) for one in list_called(found)], found.level)
    if store.has_table(step, step):
        for row in store.table(step, step).to_pylist():
            searches.setdefault((row["target"], row.pop("artifact")), []).append(row)
    artifacts = ((one.target, number, one) for of in found for number, one in enumerate(of.artifacts, 1))
    return searches | {
        (target, number): _join_searches(target, one, searches) for target, number, one in artifacts if one.searches
    }


def _as_first_found(verdict: Verdict, searches: DetectionRows) -> Verdict:
    """Return a verdict with the images that the search of the whole class found."""
    if not verdict.searches:
        return verdict
    number, sign = verdict.searches[0]
    return replace(verdict, rows=tuple(_row_of(sign, searches[verdict.target, number])["rows"]))


def _join_searches(target: int, verdict: Verdict, searches: DetectionRows) -> list[SignRow]:
    """List the detections of the search that measured an artifact, its own with the windows of all searches."""
    of_search = [(sign, searches[target, number]) for number, sign in verdict.searches]
    parts = [_row_of(sign, rows) for sign, rows in of_search]
    sign, signs = next(one for one in of_search if one[0] == verdict.detection.sign)
    order = np.argsort(np.concatenate([row["rows"] for row in parts]))
    extent = np.max([(row["height"], row["width"]) for row in parts], axis=0)
    places = np.concatenate([np.reshape(row["places"], (-1, 2)) for row in parts])
    if len(places) == len(order):
        places = np.clip(places[order], 0, 1 - extent)
    whole: SignRow = {
        **_row_of(sign, signs), "rows": list(verdict.rows),
        "places": places.ravel().tolist() if len(places) == len(order) else [],
        "height": float(extent[0]), "width": float(extent[1]),
    }  # fmt: skip
    return [whole, *(row for row in signs if row["sign"] != sign)]


def _row_of(sign: str, rows: Iterable[SignRow]) -> SignRow:
    """Return the row of a detection."""
    return next(row for row in rows if row["sign"] == sign)


def read_places(store: RunStore, found: Quantification) -> dict[tuple[int, int], str]:
    """Read where each artifact lies in its images, in words, by output and number; see `describe_places`."""
    detections = read_detections(store, found)
    places = {}
    for line in found.lines:
        which = line.verdict.target, line.number
        row = next((row for row in detections.get(which, ()) if row["sign"] == line.verdict.detection.sign), None)
        places[which] = describe_places(row) if row and line.is_detected else ""
    return places


def describe_places(row: SignRow) -> str:
    """Say where the windows of a detection lie: "top right" where nine in ten of their centres, or all but one of
    FEWEST_WITH_STRAY at least, are within NEAR_PLACE of the median in height and width, else "at varying places"; empty
    of a detection without windows."""
    if not row["places"]:
        return ""
    half_extent = np.array([row["height"], row["width"]]) / 2
    centres = np.array(row["places"]).reshape(-1, 2) + half_extent
    median = np.median(centres, axis=0)
    strays = len(centres) - int((np.abs(centres - median) <= NEAR_PLACE).all(1).sum())
    if strays > max(len(centres) // 10, len(centres) >= FEWEST_WITH_STRAY):
        return VARYING
    down, across = np.clip(3 * median, 0, 2).astype(int)
    return f"{('top', '', 'bottom')[down]} {('left', '', 'right')[across]}".strip() or "in the centre"
