"""Shards: processes that each do a fixed share of the units of a run, by a number of their own."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine.disk import hold_lock
from klarsicht.ground.ranges import parse_digits

FROM_ENVIRONMENT = "auto"
PLACE = "{}"  # of a shard in a command
SHARD_HELP = (
    "K/N, as 3/16: the K-th of N equal shares of the work, in a folder that all see; auto: from SLURM_ARRAY_TASK_ID "
    "and SLURM_ARRAY_TASK_COUNT, or RANK and WORLD_SIZE. Without it, the same command does what is left."
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

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


@dataclass(frozen=True)
class Sharing:
    """Work on a run of one process alone, or of a shard: one of several that each do a fixed share of the units, and
    what is no unit in turns. turn: file that the one whose turn it is has locked."""

    shard: Shard | None = None
    turn: Path | None = None

    def once(self, name: str, action: Callable[[], object]) -> None:
        """Do an action of this name. Each shard does it, one at a time, so that after the first there is nothing left
        to do."""
        with nullcontext() if self.turn is None else hold_lock(self.turn, patience=math.inf):
            action()

    def own(self, units: Iterable[int]) -> list[int]:
        """Select the units of this share, every count-th; alone, all."""
        return [unit for unit in units if self.shard is None or unit % self.shard.count == self.shard.index]

    def end_unit(self, step: str) -> None:
        """Note the end of a unit of a step."""


@dataclass(frozen=True)
class Shares:
    """Number of shares of a step that shards work on, and the command of one of them, with {} for its number."""

    count: int
    command: str

    def list_missing(self, units: Iterable[int]) -> list[Shard]:
        """List the shares of units that are not done."""
        return [Shard(index, self.count) for index in sorted({unit % self.count for unit in units})]

    def command_of(self, shard: Shard) -> str:
        """Return the command that makes a share."""
        return self.command.replace(PLACE, str(shard))


def own_command(words: Sequence[str]) -> str:
    """Return the command line of this process, with PLACE for its shard; from Python, the call's argument."""
    program = Path(words[0])
    if program.stem != "klarsicht" and program.parts[-2:] != ("klarsicht", "__main__.py"):
        return f'the same call with shard="{PLACE}"'
    line = shlex.join(["klarsicht", *words[1:]])
    return re.sub(r"--shard[ =]\S+", f"--shard {PLACE}", line)


def _read_pair(environment: Mapping[str, str], number: str, count: str) -> tuple[int, int] | None:
    """Read a number and a count, 1 or more; None where one of them is no such number."""
    one, of = _read_number(environment, number), _read_number(environment, count)
    return None if one is None or not of else (one, of)


def _read_number(environment: Mapping[str, str], name: str) -> int | None:
    return parse_digits(environment.get(name, "").strip())
