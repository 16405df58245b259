"""Run the units of a step of a run that are not done yet, alone or with other processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from klarsicht.audit.explanation.executor import run_units
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.shards import ShardWait, Sharing
from klarsicht.ground.run_folder.store import RunStore


class SharedWork(Protocol):
    """Settings of work on a run, and how it is shared with other processes."""

    @property
    def settings(self) -> AuditSettings: ...

    @property
    def sharing(self) -> Sharing: ...


def run_step(
    audit: SharedWork, store: RunStore, work: Any, step: str, units: list[range], workers: int, label: str,
    checksums: Callable[[Any], Written] = lambda written: written,
) -> None:  # fmt: skip
    """Run the units of a step that are not done yet; each is marked when its results are on disk. Units return the
    checksums of what they wrote, which the function `checksums` extracts from what a unit returns.

    In a shared run, units are taken one by one, those of this shard first, then those that no living process holds; the
    step ends when all units are done, whoever did them.
    """
    sharing, number = audit.sharing, {unit.start: i for i, unit in enumerate(units)}
    sharing.once(f"{step}.begun", lambda: store.update_manifest(steps=store.manifest["steps"] | {step: len(units)}))

    def claim(unit: range) -> str:
        return f"{step}.{number[unit.start]}"

    def take(unit: range) -> bool:
        if store.is_done(step, number[unit.start]) or not sharing.take(claim(unit)):
            return False
        if store.is_done(step, number[unit.start]):  # by a process that gave its claim back just now
            sharing.release(claim(unit))
            return False
        return True

    def mark(unit: range, result: Any) -> None:
        written = checksums(result)
        if sharing.holds(claim(unit)):  # else this process was taken for dead, and another one marks the unit
            store.mark_done(step, number[unit.start], written)
        sharing.release(claim(unit))

    waiting = ShardWait(label)
    while numbers := sharing.order(sorted(set(range(len(units))) - store.done_units(step))):
        if (first := next((i for i in numbers if take(units[i])), None)) is None:
            waiting.sleep()
            continue
        run_units(
            work, [units[first], *(units[i] for i in numbers if i != first)], workers=workers,
            threads=audit.settings.threads, label=label, on_done=mark,
            admit=lambda unit, first=units[first]: unit == first or take(unit),  # type: ignore[misc]
        )  # fmt: skip
    sharing.once(f"{step}.finished", lambda: store.finish_step(step, len(units)))
