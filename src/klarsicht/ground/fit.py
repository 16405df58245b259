"""The training loop, in the open: step, schedule, moving average, checkpoint, resume; one process or many.

A step's batch depends on its number alone, so a run that was killed at any moment and started again gives the same
losses, to the bit, as one that was left in peace (same machine, threads and number of processes).

    FOLDER/state.pt       weights, their moving average, the optimiser, the step; replaced as a whole
    FOLDER/curve.jsonl    one line a step, and what was watched at each checkpoint
    FOLDER/lock           held by the process that writes
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from klarsicht.ground.devices import World, world
from klarsicht.ground.disk import locked, sync, write_atomically, writing
from klarsicht.ground.errors import ModelError, RunMismatch, StoreError, UsageError
from klarsicht.ground.progress import progress

T = TypeVar("T")
Batch = tuple[Tensor, ...]

FLOOR = 0.01  # share of the rate that the last steps keep
ELSEWHERE = "Choose another --out."
DEPTH = 3  # batches that each worker makes ahead


class Task(Protocol):
    """What is learned."""

    def batch(self, step: int, rank: int) -> Batch:
        """Of one step in one process; depends on nothing else. Called from other threads, ahead of its time."""

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        """A scalar; calls model(...), and nothing else of the model."""

    def watch(self, step: int, model: nn.Module) -> Mapping[str, float]:
        """Called at each checkpoint, in the first process, with the averaged model in evaluation mode."""


@dataclass(frozen=True)
class Plan:
    """How to learn. rate: Adam's, reached after `warmup` steps, kept for the share `hold` of the run, then falling in
    a straight line to a hundredth. clip: largest norm of a gradient. memory: of the moving average. every: steps
    between checkpoints. bf16: convolutions in bfloat16, where the processor gains by it; not part of what a resumed run
    must agree in."""

    steps: int
    rate: float = 4e-4
    warmup: int = 150
    hold: float = 0.4
    clip: float = 1.0
    memory: float = 0.998
    every: int = 500
    bf16: bool = False

    def __post_init__(self) -> None:
        shares = 0 <= self.hold < 1 and 0 <= self.memory < 1
        if min(self.steps, self.every, self.warmup) < 1 or min(self.rate, self.clip) <= 0 or not shares:
            rule = "steps, every and warmup at least 1, rate and clip positive, hold and memory in [0, 1)"
            raise UsageError("plan of a fit", got=self, rule=rule)

    def rate_at(self, step: int) -> float:
        falling = (1 - step / self.steps) / (1 - self.hold)
        return self.rate * min(1, (step + 1) / self.warmup) * min(1, max(FLOOR, falling))

    def memory_at(self, step: int) -> float:
        """Short at first: the average must forget where the weights began."""
        return min(self.memory, (1 + step) / (10 + step))


class Learner:
    """A model with what changes as it learns: step, optimiser, moving average."""

    def __init__(self, model: nn.Module, task: Task, plan: Plan, world: World) -> None:
        self.task, self.plan, self.world, self.step = task, plan, world, 0
        self.model = model.to(world.device).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.spread = world.spread(self.model)
        self.optimiser = torch.optim.Adam(self.model.parameters(), plan.rate, betas=(0.9, 0.99))

    def learn(self, batch: Batch) -> float:
        """One step; its loss, the mean over the processes. Raises ModelError where it is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate_at(self.step)
        batch = tuple(x.to(self.world.device, non_blocking=True) for x in batch)
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.plan.bf16):
            loss = self.task.loss(self.spread, batch, self.step)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self.model.parameters(), self.plan.clip)
        value = self.world.mean(loss)
        require_finite(self.step, value, norm.item())
        self.optimiser.step()
        self.follow()
        self.step += 1
        return value

    @torch.no_grad()
    def follow(self) -> None:
        """The moving average, a step closer to the weights."""
        share = 1 - self.plan.memory_at(self.step)
        for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(weight, share)
        for kept, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(buffer)

    def save(self, path: Path) -> None:
        """Replaces the file as a whole."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with writing(path):
            torch.save(self.state(), temporary)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "plan": asdict(self.plan),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def resume(self, path: Path) -> None:
        """Raises StoreError for a file that holds no such state, RunMismatch for another plan or model."""
        state = _loaded(path, self.world.device)
        differ = [k for k, value in asdict(self.plan).items() if k != "bf16" and state["plan"].get(k) != value]
        if differ:
            got = f"{differ[0]} was {state['plan'].get(differ[0])}, is now {getattr(self.plan, differ[0])}"
            raise RunMismatch(f"{path.parent} holds another run", got=got, remedy=ELSEWHERE)
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise RunMismatch(
                f"{path.parent} holds another model", got=error, remedy="Choose another --out."
            ) from error
        self.step = state["step"]


def fit(model: nn.Module, task: Task, plan: Plan, folder: Path, workers: int = 1) -> nn.Module:
    """Learns, or goes on where a former run in that folder stopped; returns the averaged model.

    workers: threads that make batches.

    Raises:
        ModelError: a loss or gradient that is not finite; the last checkpoint stays.
        RunMismatch, RunLocked, StoreError, DiskFull: the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with world() as here, locked(folder / "lock") if here.rank == 0 else nullcontext():
        learner, state, curve = Learner(model, task, plan, here), folder / "state.pt", Curve(folder / "curve.jsonl")
        if state.exists():
            learner.resume(state)
        if here.rank == 0:
            curve.cut(learner.step)
        with progress("training", plan.steps, learner.step) as advance:
            for batch in ahead(lambda step: task.batch(step, here.rank), range(learner.step, plan.steps), workers):
                loss, step = learner.learn(batch), learner.step
                if here.rank == 0:
                    curve.add(step - 1, {"loss": loss})
                if here.rank == 0 and (step % plan.every == 0 or step == plan.steps):
                    curve.add(step - 1, dict(task.watch(step, learner.average)))
                    learner.save(state)
                advance()
        return learner.average


def seconds_a_step(model: nn.Module, task: Task, plan: Plan, steps: Sequence[int], workers: int = 1) -> float:
    """Of the wall clock, batches made ahead, tried on a copy of the model; steps: three or more, as they may come."""
    with world() as here:
        if here.size > 1:
            raise UsageError("a time limit", got=f"{here.size} processes", remedy="Give the number of steps instead.")
        learner = Learner(copy.deepcopy(model), task, plan, here)
        times = [time.perf_counter()]
        for batch in ahead(lambda step: task.batch(step, 0), steps, workers):
            learner.learn(batch)
            times.append(time.perf_counter())
    settled = max(2, len(steps) // 3)  # by then all is compiled and allocated, and batches wait
    return (times[-1] - times[settled]) / (len(steps) - settled)


def ahead(make: Callable[[int], T], steps: Sequence[int], workers: int) -> Iterator[T]:
    """What `make` gives for each step, in order, made by other threads while this one works."""
    pool, depth = ThreadPoolExecutor(workers, "batches"), DEPTH * workers
    try:
        waiting = deque(pool.submit(make, step) for step in steps[:depth])
        for done in range(len(steps)):
            if done + depth < len(steps):
                waiting.append(pool.submit(make, steps[done + depth]))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def require_finite(step: int, loss: float, norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise ModelError(
            f"training stopped at step {step}",
            got=f"loss {loss}, norm of the gradient {norm}",
            rule="both must be finite; the last checkpoint is kept",
            remedy="Lower the rate, and start again in another folder.",
        )


@dataclass(frozen=True)
class Curve:
    """A file of JSON lines, each with its step."""

    path: Path

    def add(self, step: int, values: dict[str, float]) -> None:
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Whole lines only: a kill may leave half of the last."""
        lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        return [json.loads(line) for line in lines]

    def cut(self, step: int) -> None:
        """Forgets that step and what came after it."""
        kept = [json.dumps(line) + "\n" for line in self.read() if line["step"] < step]
        write_atomically(self.path, "".join(kept).encode())


def _loaded(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        return {name: state[name] for name in ("step", "plan", "model", "average", "optimiser")}
    except Exception as error:  # torch raises nearly anything on damaged files
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise StoreError(f"cannot resume from {path}", got=reason, remedy="Remove it to begin anew.") from error
