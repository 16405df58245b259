"""Findings: artifacts that a person named, each with all classes that carry it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from klarsicht.explorer.explored_run import ExploredRun


@dataclass(frozen=True)
class Finding:
    """An artifact by name.

    Attributes:
        artifact: its name; empty for classes whose artifact nobody named, of which each is a finding.
        classes: (output, class, number of members) of those that carry it.
        first: rows of some members, of every class in turn.
    """

    artifact: str
    classes: tuple[tuple[int, str, int], ...]
    first: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"images": sum(count for _, _, count in self.classes)}


def list_findings(run: ExploredRun, shown: int = 12) -> list[Finding]:
    """List the artifacts that were decided; those in most images first.

    Args:
        shown: members to show of each.
    """
    decided = {target: one for target, one in run.decisions().items() if one.is_artifact and target in run.lines()}
    named: dict[str, list[int]] = {}
    for target, decision in decided.items():
        named.setdefault(decision.artifact or f"class {target}", []).append(target)
    found = []
    for targets in named.values():
        members = {target: run.members(target) for target in targets}
        each = max(1, shown // len(targets))
        first = [row for rows in members.values() for row in rows[:each]][:shown]
        classes = tuple((target, run.line(target).name, len(rows)) for target, rows in members.items())
        found.append(Finding(decided[targets[0]].artifact, classes, tuple(first)))
    return sorted(found, key=lambda one: -sum(count for _, _, count in one.classes))
