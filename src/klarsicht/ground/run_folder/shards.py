"""Several processes that share the work on one run, each with a number of its own: shards."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from klarsicht.ground.errors import UsageError
from klarsicht.ground.progress import note
from klarsicht.ground.ranges import parse_digits
from klarsicht.ground.run_folder.claims import Claims

LOOK = 0.5  # seconds between two looks at the work of others
NOTED_AFTER_S = 20.0  # seconds of waiting after which a line says so
FROM_ENVIRONMENT = "auto"
SHARD_HELP = (
    "K/N, as 3/16: the K-th of N processes that share this run's folder, on any machines; auto: from "
    "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, or RANK and WORLD_SIZE. Results do not depend on it."
)


@dataclass(frozen=True)
class Shard:
    """Number of a process, 0 to count - 1, among those that share a run."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Shard:
        """Read a shard as the option `--shard` writes it: K/N with 1 <= K <= N, or auto, from the environment. Raises
        UsageError: another text, or variables that say no shard."""
        if text.strip() == FROM_ENVIRONMENT:
            return cls.from_environment(environment)
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            rule = "K/N with K from 1 to N, or auto"
            raise UsageError("--shard is not a shard", got=repr(text), rule=rule, remedy="Give 3/16, for instance.")
        return cls(int(match[1]) - 1, int(match[2]))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Shard:
        """Read the shard of this process from the variables of a job array, which may begin at any number and have
        steps, of a launcher of ranks, or of both: then each rank of each task is a shard. Raises UsageError: neither
        pair is set."""
        task = _read_pair(environment, "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
        rank = _read_pair(environment, "RANK", "WORLD_SIZE")
        if task is None and rank is None:
            got = "no SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT, no RANK with WORLD_SIZE"
            rule = "two numbers, set by the launcher"
            raise UsageError("--shard auto finds no shard", got=got, rule=rule, remedy="Give --shard K/N.")
        number, tasks = task or (0, 1)
        if task is not None:
            first = _read_number(environment, "SLURM_ARRAY_TASK_MIN") or 0
            step = _read_number(environment, "SLURM_ARRAY_TASK_STEP") or 1
            number = (number - first) // step % tasks
        place, ranks = rank or (0, 1)
        return cls(number * ranks + place % ranks, tasks * ranks)

    def order(self, units: Sequence[int]) -> list[int]:
        """Order units: first those of this shard, every count-th, then those of the shards after it."""
        return sorted(units, key=lambda unit: ((unit - self.index) % self.count, unit))

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


@dataclass(frozen=True)
class Sharing:
    """Work on a run that is shared with other processes, or without claims, of one process alone. All do the same steps
    in the same order: work for one process is passed by `once`; units of a step are taken by claims."""

    shard: Shard | None = None
    claims: Claims | None = None

    def once(self, name: str, action: Callable[[], object]) -> None:
        """Let one process do an action of this name, or another one where it dies; the others wait for its end."""
        if self.claims is None:
            action()
            return
        waiting = ShardWait(name)
        while not self.claims.is_finished(name):
            if not self.claims.take(name):
                waiting.sleep()
                continue
            try:
                if not self.claims.is_finished(name):
                    action()
                    self.claims.finish(name)
            finally:
                self.claims.release(name)

    def order(self, units: Sequence[int]) -> list[int]:
        return list(units) if self.shard is None else self.shard.order(units)

    def take(self, name: str) -> bool:
        """Take the claim of a unit; a process alone has every claim."""
        return self.claims is None or self.claims.take(name)

    def holds(self, name: str) -> bool:
        """Tell whether this process still holds a claim."""
        return self.claims is None or self.claims.holds(name)

    def release(self, name: str) -> None:
        if self.claims is not None:
            self.claims.release(name)


class ShardWait:
    """Wait for the work of other processes, of which a line tells where it takes long."""

    def __init__(self, what: str) -> None:
        self.what, self.began, self.is_noted = what, time.monotonic(), False

    def sleep(self) -> None:
        """Sleep for LOOK seconds; print a line once where NOTED_AFTER_S have passed."""
        time.sleep(LOOK)
        if not self.is_noted and time.monotonic() - self.began > NOTED_AFTER_S:
            note(f"waits for other shards: {self.what}")
            self.is_noted = True


def _read_pair(environment: Mapping[str, str], number: str, count: str) -> tuple[int, int] | None:
    """Read a number and a count, 1 or more; None where one of them is no such number."""
    one, of = _read_number(environment, number), _read_number(environment, count)
    return None if one is None or not of else (one, of)


def _read_number(environment: Mapping[str, str], name: str) -> int | None:
    return parse_digits(environment.get(name, "").strip())
