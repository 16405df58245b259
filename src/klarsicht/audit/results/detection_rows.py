"""Read the detections that verdicts rest on: those of whole classes, and those of what is left of called ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.ground.run_folder.store import RunStore

FURTHER_STEPS = "further-"  # beginning of the names of the steps that examine what is left of called classes
NEAR_PLACE = 0.1  # of height and width
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
    """Read the rows of detections of each class, and of each of its further artifacts; empty in a run without them."""
    detections: DetectionRows = {}
    rows: list[SignRow] = store.table("signs", "signs").to_pylist() if store.has_table("signs", "signs") else []
    for row in rows:
        detections.setdefault((row["target"], 1), []).append(row)
    step = name_further_step(list_called(found), found.level)
    if store.has_table(step, step):
        for row in store.table(step, step).to_pylist():
            detections.setdefault((row["target"], row.pop("artifact")), []).append(row)
    return detections


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
    """Say where the windows of a detection lie: "top right" where nine in ten of their centres are within NEAR_PLACE of
    the median in height and width, else "at varying places"; empty of a detection without windows."""
    if not row["places"]:
        return ""
    half_extent = np.array([row["height"], row["width"]]) / 2
    centres = np.array(row["places"]).reshape(-1, 2) + half_extent
    median = np.median(centres, axis=0)
    near = (np.abs(centres - median) <= NEAR_PLACE).all(1)
    if near.mean() < 0.9:
        return "at varying places"
    down, across = np.clip(3 * median, 0, 2).astype(int)
    return f"{('top', '', 'bottom')[down]} {('left', '', 'right')[across]}".strip() or "in the centre"
