"""Training loop: step, learning-rate schedule, moving average of weights, checkpoint, resume; one process or several.

The batch of a step depends on the step's number only, so a resumed run gives bit-identical losses. FOLDER/state.pt
holds the training state, FOLDER/curve.jsonl one line per step and the metrics of each checkpoint."""

from __future__ import annotations

import copy
import io
import json
import math
import sys
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

from klarsicht.ground.errors import ModelError, RunMismatch, StoreError, UsageError
from klarsicht.ground.machine.devices import World, world
from klarsicht.ground.machine.disk import (
    hold_lock,
    remove_leftovers,
    translate_read_errors,
    translate_write_errors,
    write_atomically,
)
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.progress import progress

T = TypeVar("T")
Batch = tuple[Tensor, ...]

LEAST_RATE = 0.01  # least learning rate, as a share of the largest
OTHER_OUT = "Choose another --out."
BATCHES_AHEAD = 3  # batches that each worker prefetches


class Task(Protocol):
    """Learning task: batches, loss and validation metrics."""

    def batch(self, step: int, rank: int) -> Batch:
        """Make the batch of one step in one process, which depends on nothing else, ahead of time in another thread."""

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        """Compute the scalar training loss. It may only call model(...), and use nothing else of the model."""

    def validate(self, step: int, model: nn.Module) -> Mapping[str, float]:
        """Compute validation metrics with the averaged model in evaluation mode, at each checkpoint in process 0."""


@dataclass(frozen=True)
class Plan:
    """Optimisation settings; UsageError for values out of range.

    Attributes:
        rate: learning rate of Adam, reached linearly after `warmup` steps, constant for the share `hold` of the
            `steps`,
            then falling linearly to a hundredth.
        clip: largest norm of the gradient.
        memory: decay of the moving average of the weights, in [0, 1).
        every: steps between checkpoints.
        bf16: run convolutions in bfloat16; a resumed run may differ in it.
    """

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
            raise UsageError("the training plan is invalid", got=self, rule=rule)

    def rate_at(self, step: int) -> float:
        falling = (1 - step / self.steps) / (1 - self.hold)
        return self.rate * min(1, (step + 1) / self.warmup) * min(1, max(LEAST_RATE, falling))

    def memory_at(self, step: int) -> float:
        """Return the decay of the moving average at a step; small at first, so that initial weights are forgotten."""
        return min(self.memory, (1 + step) / (10 + step))


class Learner:
    """Training state: model, step, optimiser and moving average of the weights."""

    def __init__(self, model: nn.Module, task: Task, plan: Plan, world: World) -> None:
        self.task, self.plan, self.world, self.step = task, plan, world, 0
        self.model = model.to(world.device).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.distributed = world.wrap_model(self.model)
        self.optimiser = torch.optim.Adam(self.model.parameters(), plan.rate, betas=(0.9, 0.99))

    def train_step(self, batch: Batch) -> float:
        """Run one optimisation step; return its loss, averaged over the processes. Raises ModelError: it is not
        finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate_at(self.step)
        batch = tuple(x.to(self.world.device, non_blocking=True) for x in batch)
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.plan.bf16):
            loss = self.task.loss(self.distributed, batch, self.step)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self.model.parameters(), self.plan.clip)
        value = self.world.mean(loss)
        require_finite(self.step, value, norm.item())
        self.optimiser.step()
        self.update_average()
        self.step += 1
        return value

    @torch.no_grad()
    def update_average(self) -> None:
        """Update the exponential moving average of the weights; buffers are copied."""
        share = 1 - self.plan.memory_at(self.step)
        for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(weight, share)
        for kept, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(buffer)

    def save(self, path: Path) -> None:
        content = io.BytesIO()  # torch.save into a file hides why it could not be written
        torch.save(self.state(), content)
        write_atomically(path, content.getvalue())

    def state(self) -> dict[str, Any]:
        """Return the checkpoint as a dictionary; the same state gives the same bytes, resumed or not."""
        state = {
            "step": self.step,
            "plan": asdict(self.plan),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        return dict(_intern_names(state))

    def resume(self, path: Path) -> None:
        """Load a checkpoint. Raises StoreError: the file is none; RunMismatch: it has another plan or model."""
        state = _load_state(path, self.world.device)
        differ = [k for k, value in asdict(self.plan).items() if k != "bf16" and state["plan"].get(k) != value]
        if differ:
            got = f"{differ[0]} was {state['plan'].get(differ[0])}, is now {getattr(self.plan, differ[0])}"
            raise RunMismatch(f"{path.parent} holds another run", got=got, remedy=OTHER_OUT)
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise RunMismatch(f"{path.parent} holds another model", got=error, remedy=OTHER_OUT) from error
        self.step = state["step"]


def fit(model: nn.Module, task: Task, plan: Plan, folder: Path, workers: int = 1) -> nn.Module:
    """Train a model, or resume the run in the folder; returns the averaged model. `workers` threads make batches.
    Raises ModelError: a loss or gradient that is not finite; RunMismatch, RunLocked, StoreError, DiskFull: the
    folder."""
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with world() as here, hold_lock(folder / "lock") if here.rank == 0 else nullcontext():
        learner, state, curve = Learner(model, task, plan, here), folder / "state.pt", Curve(folder / "curve.jsonl")
        if state.exists():
            learner.resume(state)
        if here.rank == 0:
            remove_leftovers(folder)
            curve.truncate(learner.step)
        with progress("training", plan.steps, learner.step) as advance:
            for batch in prefetch(lambda step: task.batch(step, here.rank), range(learner.step, plan.steps), workers):
                loss, step = learner.train_step(batch), learner.step
                if here.rank == 0:
                    curve.add(step - 1, {"loss": loss})
                if here.rank == 0 and (step % plan.every == 0 or step == plan.steps):
                    curve.add(step - 1, dict(task.validate(step, learner.average)))
                    learner.save(state)
                advance()
        return learner.average


def measure_step_seconds(model: nn.Module, task: Task, plan: Plan, steps: Sequence[int], workers: int = 1) -> float:
    """Measure the wall-clock seconds per training step on a copy of the model, at these three steps or more, of which
    the first third is not timed. Raises UsageError: more than one process."""
    with world() as here:
        if here.size > 1:
            raise UsageError("a time limit needs one process", got=here.size, remedy="Give --steps instead.")
        learner = Learner(copy.deepcopy(model), task, plan, here)
        times = [time.perf_counter()]
        for batch in prefetch(lambda step: task.batch(step, 0), steps, workers):
            learner.train_step(batch)
            times.append(time.perf_counter())
    settled = max(2, len(steps) // 3)  # from here on all is compiled and allocated, and batches are prefetched
    return (times[-1] - times[settled]) / (len(steps) - settled)


def prefetch(make: Callable[[int], T], steps: Sequence[int], workers: int) -> Iterator[T]:
    """Yield `make(step)` for each step in order, computed ahead by other threads."""
    pool, depth = ThreadPoolExecutor(workers, "batches"), BATCHES_AHEAD * workers
    try:
        queue = deque(pool.submit(make, step) for step in steps[:depth])
        for done in range(len(steps)):
            if done + depth < len(steps):
                queue.append(pool.submit(make, steps[done + depth]))
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def require_finite(step: int, loss: float, norm: float) -> None:
    """Raise ModelError unless loss and gradient norm are finite."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        got, rule = f"loss {loss}, gradient norm {norm}", "both must be finite; the last checkpoint is kept"
        remedy = "Lower the rate, and start again in another folder."
        raise ModelError(f"training stopped at step {step}", got=got, rule=rule, remedy=remedy)


@dataclass(frozen=True)
class Curve:
    """Training curve: a file of JSON lines, each with its step."""

    path: Path

    def add(self, step: int, values: dict[str, float]) -> None:
        with translate_write_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Read the complete lines; an interrupted run may leave an incomplete last line."""
        with translate_read_errors(self.path):
            lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
            return [{**json.loads(line)} for line in lines]

    def truncate(self, step: int) -> None:
        """Remove the lines of this step and all later ones."""
        lines = self.read()
        with translate_read_errors(self.path):
            kept = [json.dumps(line) + "\n" for line in lines if line["step"] < step]
        write_atomically(self.path, "".join(kept).encode())


def _intern_names(value: Any) -> Any:
    """Copy nested dictionaries and lists with interned names: pickle writes the same object once, and an equal one,
    which a loaded name is, again."""
    if isinstance(value, dict):
        return {sys.intern(k) if isinstance(k, str) else k: _intern_names(inner) for k, inner in value.items()}
    return [_intern_names(inner) for inner in value] if isinstance(value, list) else value


def _load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Load a checkpoint file; raises StoreError where it is damaged."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        state["plan"] = dict(state["plan"])
        return {name: state[name] for name in ("step", "plan", "model", "average", "optimiser")}
    except Exception as error:  # torch raises nearly anything on damaged files
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise StoreError(f"cannot resume from {path}", got=reason, remedy="Remove it to start again.") from error
