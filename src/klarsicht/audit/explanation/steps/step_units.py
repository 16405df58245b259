"""Run the units of a step of a run that are not done yet: here, on an engine, or the share of a shard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from klarsicht.audit.explanation.engines import parse_engine
from klarsicht.audit.explanation.executor import Results, run_here, run_units
from klarsicht.audit.explanation.remote_units import run_on_engine
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.ground.errors import ShareMade
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.shards import Shares, Sharing, own_command
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
    checksums of what they wrote, which the function `checksums` extracts from what a unit returns. A shard runs its own
    share; raises ShareMade where shares of others are missing then."""
    sharing, number = audit.sharing, {unit.start: i for i, unit in enumerate(units)}
    sharing.once(f"{step}.begun", lambda: begin_step(store, step, len(units), sharing))

    def mark(unit: range, result: Any) -> None:
        store.mark_done(step, number[unit.start], checksums(result))
        sharing.end_unit(step)

    left = [units[i] for i in sharing.own(sorted(find_undone(store, step, len(units))))]
    if left:
        run_units(
            work, left, workers=workers, threads=audit.settings.threads, label=label, on_done=mark,
            run=select_place(audit.settings, store),
        )  # fmt: skip
    sharing.once(f"{step}.finished", lambda: end_step(store, step, len(units), sharing))


def select_place(settings: AuditSettings, store: RunStore) -> Callable[..., Results[Any]]:
    """Return the function that runs units where the settings say."""
    engine = parse_engine(settings.engine)
    return run_here if engine is None else partial(run_on_engine, engine, store, settings.may_take_gpu)


def find_undone(store: RunStore, step: str, units: int) -> set[int]:
    """Find the units of a step without a marker."""
    return set(range(units)) - store.done_units(step)


def begin_step(store: RunStore, step: str, units: int, share: Sharing) -> None:
    """Record the size of a step, and into how many shares it is divided."""
    store.update_manifest(steps=store.manifest["steps"] | {step: units})
    if share.shard is not None and find_undone(store, step, units):
        store.write_shares(store.shares() | {step: Shares(share.shard.count, own_command(sys.argv))})


def end_step(store: RunStore, step: str, units: int, share: Sharing) -> None:
    """Record that a step is done. Raises ShareMade: shares of others are missing."""
    shares = store.shares()
    if share.shard is not None and (undone := find_undone(store, step, units)):
        missing = ", ".join(map(str, Shares(share.shard.count, "").list_missing(undone)))
        remedy = "Then give this command again for the steps after it, or once without --shard."
        raise ShareMade(f"share {share.shard} of {step} is made", rule=f"to be made: {missing}", remedy=remedy)
    store.finish_step(step, units)
    if step in shares:
        store.write_shares({name: one for name, one in shares.items() if name != step})
