"""Comparison of kernels that are taught side by side: the bursts taught and tried, the steps, the file of results, and
intervals in which seeds and photographs are both random. For kernel_heads.py and kernel_bodies.py."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import stdtrit
from torch import Tensor

from klarsicht.burst.align.alignment import align
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.motion import TRAINING_MOTIONS
from klarsicht.burst.synthesis.scenes import Geometry, Light, scenes
from klarsicht.burst.synthesis.synthesis import KINDS, NOISES, Recipe, draw_batch
from klarsicht.burst.training.batches import TrainingBatch, batch_number
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.machine import devices
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import GAINS

BURSTS, SIDE, RATE = 2, 96, 1e-3
FRAME = Geometry(scale=2, height=96, width=144, reach=16)  # the middle of a photograph
CONDITIONS = {"still, aligned": ("still", True), "still, not aligned": ("still", False), "moving": ("moving", True)}
TRIALS = (0.5, 1.0)  # shares of the steps after which all are tried
Values = npt.NDArray[np.float64]
Line = dict[str, object]
T = TypeVar("T")


def align_frames(frames: Tensor, read: Tensor, shot: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Align frames (B, N, C, H, W): they and their agreement (B, N, H, W)."""
    alignment = align(frames, read, shot, valid)
    return alignment.apply(frames), alignment.agreement()


def full_agreement(frames: Tensor) -> Tensor:
    """Agreement (B, N, H, W) of frames that are taken as they are."""
    return torch.ones(*frames.shape[:2], *frames.shape[-2:])


@dataclass(frozen=True)
class Lessons:
    """Bursts to teach with: the same for all that are compared, by seed and number."""

    library: tuple[Light, ...]
    seed: int

    def draw(self, index: int) -> TrainingBatch:
        """Draw bursts of one motion, two of three aligned."""
        rng = generator(self.seed, "kernel heads", index)
        motion = TRAINING_MOTIONS[("still", "shaken", "moving", "occluded")[rng.integers(4)]]
        geometry = Geometry(2, SIDE, SIDE, 16)
        recipe = Recipe(KINDS["grey"], motion, NOISES["wide"], geometry, orientations=8)
        drawn = draw_batch(self.library, recipe, rng, BURSTS)
        frames, truth, exposure, read, shot, valid = map(torch.from_numpy, drawn)
        agreement = full_agreement(frames)
        if rng.random() < 2 / 3:
            frames, agreement = align_frames(frames, read, shot, valid)
        return TrainingBatch(frames, agreement, truth, exposure, read, shot, valid)

    def each_step(self, steps: int, uses: int) -> Iterator[TrainingBatch]:
        """Draw the bursts of each step, turned: each batch serves so many of them."""
        kept: dict[int, TrainingBatch] = {}
        for step in range(steps):
            number = batch_number(step, uses)
            if number not in kept:
                kept = {n: batch for n, batch in kept.items() if n > number - 16}
                kept[number] = self.draw(number)
            yield kept[number].transform(int(generator(self.seed, "turns", step).integers(8)))


def make_plan(steps: int, warmup: int) -> Plan:
    """Make the plan of the learning rate: to zero at the last step."""
    bf16 = devices.bf16_is_faster(torch.device("cpu"))
    return Plan(steps, RATE, warmup=warmup, hold=0.25, memory=0.99, bf16=bf16)


@dataclass(frozen=True, eq=False)
class TestedBurst:
    """A burst of a test with its truth, B = 1. given: frames, agreement, read and shot noise."""

    given: tuple[Tensor, ...]
    truth: Light
    exposure: float

    def psnr(self, picture: Tensor) -> float:
        """Measure a result (1, C, H, W), in dB."""
        result = picture[0].float().numpy()
        return psnr(tone_mapped(result, self.exposure), tone_mapped(self.truth, self.exposure))


def make_burst(made: BenchmarkSet, k: int, gain: int, aligned: bool) -> TestedBurst:
    w, level = float(made.exposure(k, True)), GAINS[gain]
    frames = torch.from_numpy(made.burst(k, level, w).frames)[None]
    read, shot = torch.tensor([level.read]), torch.tensor([level.shot])
    agreement = full_agreement(frames)
    if aligned:
        frames, agreement = align_frames(frames, read, shot, torch.ones(frames.shape[:2], dtype=torch.bool))
    return TestedBurst((frames, agreement, read, shot), made.truth(k, w), w)


def make_test(
    folder: Path, prepare: Callable[[TestedBurst], T], count: int | None = None
) -> dict[str, dict[int, list[T]]]:
    """Make the bursts of a test from the photographs of a folder, or its first ones, by condition and gain."""
    book = photographs.read_folder(folder, FRAME).photographs[:count]
    sets = {motion: benchmark_set(f"grey-{motion}", book, 7, FRAME) for motion, _ in CONDITIONS.values()}
    return {
        name: {gain: [prepare(make_burst(sets[motion], k, gain, aligned)) for k in range(len(book))] for gain in GAINS}
        for name, (motion, aligned) in CONDITIONS.items()
    }


def teach(
    learners: Mapping[str, Learner],
    batches: Iterator[tuple[Tensor, ...]],
    steps: int,
    test: Mapping[str, Mapping[int, Sequence[T]]],
    measure: Callable[[torch.nn.Module, T], float],
) -> Iterator[tuple[str, Line]]:
    """Teach all learners on the same batches; after TRIALS of the steps: name, step, CPU seconds and PSNR of each."""
    spent = dict.fromkeys(learners, 0.0)
    for step, batch in enumerate(batches, 1):
        for name, learner in learners.items():
            began = time.thread_time()
            learner.train_step(batch)
            spent[name] += time.thread_time() - began
        if step in [int(share * steps) for share in TRIALS]:
            for name, learner in learners.items():
                found = {
                    condition: {
                        str(gain): [round(measure(learner.average, one), 3) for one in some]
                        for gain, some in by_gain.items()
                    }
                    for condition, by_gain in test.items()
                }
                yield name, {"step": step, "cpu_s": round(spent[name], 1), "psnr": found}


def crossed_interval(values: Values) -> tuple[float, float, float]:
    """Estimate the mean of values (seeds, photographs) with its 95 % interval, both random: the variance of the mean is
    (M_seeds + M_photographs - M_rest) / (S P), M the mean squares of a two-way table with one value a cell, at least
    that of either alone; Student's t with the degrees of freedom of Satterthwaite."""
    S, P = values.shape
    mean = values.mean()
    rows, columns = values.mean(1) - mean, values.mean(0) - mean
    rest = values - mean - rows[:, None] - columns
    squares = np.array([P * (rows**2).sum() / (S - 1), S * (columns**2).sum() / (P - 1), (rest**2).sum()])
    squares[2] /= (S - 1) * (P - 1)
    signed = squares * [1, 1, -1]
    total = max(signed.sum(), squares[:2].max())
    freedom = total**2 / (squares**2 / [S - 1, P - 1, (S - 1) * (P - 1)]).sum()
    half = float(stdtrit(max(1.0, freedom), 0.975) * np.sqrt(total / (S * P)))
    return float(mean), float(mean) - half, float(mean) + half


@dataclass(frozen=True)
class Results:
    """Lines of results after a share of the steps, by seed and by what was compared."""

    lines: dict[tuple[int, str], Line]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, lines: Sequence[Line], key: str, names: Sequence[str], share: float = 1.0) -> Results:
        """Take the lines of the seeds that have all names (under the key) after a share of the steps."""
        last = {
            (int(line["seed"]), str(line[key])): line  # type: ignore[call-overload]
            for line in lines
            if line["step"] == int(share * line["steps"])  # type: ignore[operator]
        }
        seeds = sorted({seed for seed, _ in last if all((seed, name) in last for name in names)})
        return cls(last, tuple(seeds))

    @property
    def steps(self) -> list[int]:
        return sorted({int(line["step"]) for line in self.lines.values()})  # type: ignore[call-overload]

    def psnr(self, name: str, condition: str) -> Values:
        """PSNR by seed, gain and photograph."""
        by_gain = [self.lines[seed, name]["psnr"][condition] for seed in self.seeds]  # type: ignore[index]
        return np.array([[one[str(gain)] for gain in GAINS] for one in by_gain])

    def format_psnr(self, name: str, condition: str) -> str:
        """Format the mean PSNR by gain."""
        return " / ".join(f"{x:.2f}" for x in self.psnr(name, condition).mean((0, 2)))

    def format_difference(self, one: str, other: str, condition: str) -> str:
        """Format cells of a table: one less the other over all gains, by gain, and by seed."""
        apart = self.psnr(one, condition) - self.psnr(other, condition)
        cells = [crossed_interval(x) for x in (apart.mean(1), *apart.swapaxes(0, 1))]
        intervals = " | ".join(f"{m:+.2f} ({low:+.2f}, {high:+.2f})" for m, low, high in cells)
        return f"{intervals} | {', '.join(f'{x:+.2f}' for x in apart.mean((1, 2)))}"

    def cpu_seconds(self, name: str) -> float:
        return float(np.mean([self.lines[seed, name]["cpu_s"] for seed in self.seeds]))


def make_parser(description: str | None, steps: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--table", action="store_true")
    return parser


def read_lines(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def teach_seeds(
    given: argparse.Namespace, key: str, names: Sequence[str], taught: Callable[[Lessons], Iterator[tuple[str, Line]]]
) -> None:
    """Teach each seed whose names are not all in the file at its end; its lines are added to the file."""
    library = scenes(photographs.read_folder(given.photographs, FRAME).photographs, KINDS["grey"].light)
    lines = read_lines(given.out)
    for seed in given.seed or range(5):
        if {line[key] for line in lines if line["seed"] == seed and line["step"] == line["steps"]} == set(names):
            continue
        lines = [line for line in lines if line["seed"] != seed]
        given.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for name, found in taught(Lessons(library, seed)):
            lines.append({"seed": seed, "steps": given.steps, key: name, **found})
            with given.out.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
