"""Examine the surroundings in a run: which images follow what nearly their whole class shares, and does the model?"""

from __future__ import annotations

import numpy as np

from klarsicht.audit.explanation.steps import step_units
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results.surroundings import (
    EXCEPTIONS_FILE,
    SURROUNDINGS_FILE,
    ClassSurroundings,
    CompositeRow,
    ExceptionalImage,
    PlacesRow,
    Surroundings,
)
from klarsicht.audit.verdicts.quantification.exception_figures import write_exception_figures
from klarsicht.audit.verdicts.quantification.natural_surroundings import rank_among_natural
from klarsicht.audit.verdicts.quantification.surroundings_units import SurroundingsUnits
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.progress import note
from klarsicht.numerics.statistics.intervals import share_interval


def examine_surroundings(audit: Audit, work: DetectionUnits, workers: int) -> Surroundings | None:
    """Find own places and exceptions in a run, show the model composites, and write what was found; None where
    classes, images or pixels are too few, or classes too many."""
    units = SurroundingsUnits(work)
    if units.shortfall:
        note(f"surroundings are not examined: {units.shortfall}")
        return None
    step_units.run_step(audit, work.store, units, units.step, [range(1)], workers, "surroundings")
    result = make_surroundings(work)
    audit.sharing.once("surroundings.written", lambda: write_surroundings(work, result))
    if result.found:
        audit.sharing.once("exceptions.drawn", lambda: write_exception_figures(work, result))
    return result


def write_surroundings(work: DetectionUnits, found: Surroundings) -> None:
    """Write what was found as JSON, and the exceptions as CSV where there is a shortcut to be an exception of."""
    work.store.write_json(SURROUNDINGS_FILE, found.to_json())
    if found.found and found.exceptions:
        work.store.write_bytes(EXCEPTIONS_FILE, found.to_csv().encode())


def make_surroundings(work: DetectionUnits) -> Surroundings:
    """Make the result from the tables of the step."""
    step = SurroundingsUnits.step
    places: list[PlacesRow] = work.store.table("places", step, [*PlacesRow.__annotations__][:4]).to_pylist()
    composites: list[CompositeRow] = work.store.table("composites", step).to_pylist()
    (separate,) = work.store.table("separate", step)["separate"].to_pylist()
    names, paths = {group.target: group.name for group in work.groups}, work.store.texts("corpus", "path")
    odd = sorted((row for row in places if row["side"] != row["target"]), key=lambda row: row["margin"])
    classes = tuple(
        describe_class(
            name,
            target,
            [row for row in places if row["target"] == target],
            [row for row in composites if row["target"] == target],
            names,
        )
        for target, name in names.items()
    )
    exceptions = tuple(
        ExceptionalImage(paths[row["row"]], names[row["target"]], names[row["side"]], row["margin"]) for row in odd
    )
    return Surroundings(classes, exceptions, separate, rank_among_natural(separate))


def describe_class(
    name: str, target: int, places: list[PlacesRow], composites: list[CompositeRow], names: dict[int, str]
) -> ClassSurroundings:
    """Count exceptions of a class, and what the model says of its composites."""
    sides = [row["side"] for row in places if row["side"] != target]
    return ClassSurroundings(
        name=name,
        target=target,
        n=len(places),
        exceptions=len(sides),
        other=names[max(set(sides), key=sides.count)] if sides else "",
        taken=share_interval(np.array([row["predicted"] == row["side"] for row in composites], bool)),
        taken_control=share_interval(np.array([row["predicted_control"] == row["side"] for row in composites], bool)),
        stays=share_interval(np.array([row["predicted"] == target for row in composites], bool)),
    )
