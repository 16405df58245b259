"""Decisions of people on the classes of a run, and the members of artifacts that follow from them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from klarsicht.explorer.class_results import ClassResults
from klarsicht.explorer.run_reader import RunReader
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.decisions import (
    ARTIFACT,
    DECISIONS_FILE,
    LEGITIMATE,
    Change,
    ClassDecision,
    DecisionLog,
)

CARRIES, OPEN, NOT_CARRYING = ("yes", "undecided", "no")


@dataclass(frozen=True)
class ClassDecisions:
    """Decisions on the classes of a run, by an author."""

    reader: RunReader
    results: ClassResults
    author: str = "unknown"

    @property
    def log(self) -> DecisionLog:
        return DecisionLog(self.reader.store.path)

    @property
    def stamp(self) -> Hashable:
        """Value that changes with the decisions."""
        return self.reader.stamp(DECISIONS_FILE)

    @property
    def record_count(self) -> int:
        """Number of records of decisions: a page that knows as many, and wrote the next, has missed none."""
        return self.reader.keep("records", self.stamp, lambda: len(self.log.records()))

    def by_target(self) -> dict[int, ClassDecision]:
        """Return the decisions by output."""
        return self.reader.keep("decisions", self.stamp, self.log.decisions)

    def members(self, target: int) -> tuple[int, ...]:
        """Return the rows that carry the artifact of a class: those decided by a person, else those that were found."""
        decision = self.by_target().get(target)
        return self.results.line(target).found if decision is None or decision.members is None else decision.members

    def further_members(self, target: int) -> tuple[tuple[int, ...], ...]:
        """Return the rows that carry each further artifact of a class; none where a person decided it legitimate."""
        decision = self.by_target().get(target)
        return () if decision is not None and decision.is_legitimate else self.results.line(target).further

    def carrier_status(self, target: int) -> str:
        """Return the status of the members of a class: CARRIES where a person decided or a detector found that they
        carry an artifact, NOT_CARRYING where a person decided that it belongs to the class, else OPEN."""
        decision = self.by_target().get(target, ClassDecision(target, ""))
        if decision.decision:
            return {ARTIFACT: CARRIES, LEGITIMATE: NOT_CARRYING}.get(decision.decision, OPEN)
        by_person, verdict = decision.members is not None, self.results.line(target).verdict
        return CARRIES if by_person or (verdict is not None and verdict.artifactual) else OPEN

    def decide(
        self, target: int, *, decision: str | None = None, artifact: str | None = None, note: str | None = None,
        add: Sequence[int] = (), remove: Sequence[int] = (),
    ) -> int:  # fmt: skip
        """Record a decision on a class; returns the number of the record.

        A decision that the class carries an artifact, and each change of members, records the rows that the audit
        names, so that it stays as it is when the run is quantified again.

        Args:
            decision, artifact, note: see ClassDecision; None leaves the field as it is.
            add, remove: rows that carry the artifact after all, or do not.

        Raises:
            UsageError: no such class, or a row that is no image of the class.
        """
        line, named = self.results.line(target), np.array([*add, *remove], np.int64)
        if len(named) and not (known := np.isin(named, self.reader.images().rows_of(target))).all():
            raise UsageError("no image of this class", got=f"row {named[int(np.argmin(known))]}")
        base = line.found if add or remove or decision == ARTIFACT else None
        rows = {"add": tuple(sorted(set(add))), "remove": tuple(sorted(set(remove)))}
        return self.log.append(Change(target, line.name, decision, artifact, note, base, **rows), self.author)
