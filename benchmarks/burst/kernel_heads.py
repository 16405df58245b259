"""Heads of several kernel sizes on one frozen body: do sizes pay, beside one size and beside rank?

The body of `swift` is frozen; its features (the 48 of its last level and the 96 that this level receives) are computed
once a batch for all heads. Each head has a layer of its own, 3 x 3 to WIDTH channels with ReLU, and kernels that sum to
1, and begins with the same resting kernels (a frame as it is). A repeated size is a sum of separable kernels of that
size: {5, 5, 5} has rank 3. Heads of a seed see the same bursts in the same order, a third of them not aligned, and the
learning rate falls to zero. Each is tried on unseen photographs: still and aligned, still and not aligned, moving.

Said before the first run: a difference counts from COUNTS dB on, where its 95 % interval, seeds and photographs both
random, excludes 0; it is small where the interval lies within COUNTS of 0.

    python benchmarks/burst/kernel_heads.py --photographs FOLDER --test FOLDER --out FILE.jsonl [--seed 0 --seed 1]
        [--steps 1600]
    python benchmarks/burst/kernel_heads.py --out FILE.jsonl --table

A seed whose heads were all tried at its end is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from klarsicht.burst.align.alignment import align
from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.heads import Features, HeadShape, InputFrames, UnitHead
from klarsicht.burst.network.unet import Network, upsample_twice
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.motion import TRAINING_MOTIONS
from klarsicht.burst.synthesis.scenes import Geometry, Light, scenes
from klarsicht.burst.synthesis.synthesis import KINDS, NOISES, Recipe, draw_batch
from klarsicht.burst.training.batches import TrainingBatch, batch_number
from klarsicht.burst.training.losses import psnr_loss
from klarsicht.ground import devices
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.seeding import generator, integer
from klarsicht.numerics.imaging.sensor_noise import GAINS
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

COUNTS = 0.2  # dB
WIDTH = 96  # channels of a head's own layer
BURSTS, SIDE, USES, RATE = 2, 96, 4, 1e-3
FRAME = Geometry(scale=2, height=96, width=144, reach=16)  # the middle of a photograph
CONDITIONS = {"still, aligned": ("still", True), "still, not aligned": ("still", False), "moving": ("moving", True)}
TRIALS = (0.5, 1.0)  # shares of the steps after which the heads are tried
PAIRS = (
    ("15", "5"),
    ("1, 5, 15", "5"),
    ("5, 5, 5", "5"),
    ("full 5", "5"),
    ("15, 15, 15", "15"),
    ("1, 5, 15", "15"),
    ("1, 5, 15", "15, 15, 15"),
    ("full 5", "5, 5, 5"),
)
Values = npt.NDArray[np.float64]


class SummedKernels(KernelSpec):
    """Kernels of sizes of which one may repeat."""

    def __post_init__(self) -> None:
        pass


HEADS = {
    "5": SummedKernels((5,)),
    "15": SummedKernels((15,)),
    "5, 5, 5": SummedKernels((5, 5, 5)),
    "15, 15, 15": SummedKernels((15, 15, 15)),
    "1, 5, 15": SummedKernels((1, 5, 15)),
    "full 5": SummedKernels((5,), separable=False),
}


class SizedHead(nn.Module):
    """A layer of its own, and kernels."""

    def __init__(self, inputs: int, frames: int, spec: KernelSpec) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, WIDTH, 3, padding=1)
        nn.init.kaiming_normal_(self.layer.weight, nonlinearity="relu")
        nn.init.zeros_(self.layer.bias)
        self.kernels = UnitHead(HeadShape(WIDTH, 0, frames, 1, 1.0), spec)

    def forward(self, features: Tensor, burst: InputFrames) -> Tensor:
        merged: Tensor = self.kernels(Features(torch.relu(self.layer(features)), features), burst).merged
        return merged


@dataclass(frozen=True)
class FrozenBody:
    """The body of a network."""

    network: Network

    @property
    def channels(self) -> int:
        """Of the features."""
        last = self.network.body.up[-1]
        return last.first.in_channels + last.third.out_channels

    @torch.no_grad()
    def features(self, frames: Tensor, agreement: Tensor, read: Tensor, shot: Tensor) -> tuple[Tensor, InputFrames]:
        """Compute the input and the output of the last level, (B, c, h, w), and the frames that kernels multiply."""
        network, body = self.network, self.network.body
        with torch.autocast("cpu", torch.bfloat16, enabled=devices.bf16_is_faster(torch.device("cpu"))):
            originals = network._pad_frames(frames, None, agreement)
            burst = originals.append_mean()
            x, *skips = reversed(body.encode(network._build_input(originals, burst, read, shot)))
            for level, skip in zip(body.up, skips, strict=True):
                given = torch.cat([upsample_twice(x), skip], 1)
                x = level(given)
        return torch.cat([given, x], 1), burst


@dataclass(frozen=True)
class HeadTask:
    """The loss of a head: the logarithm of the error, as displayed."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], step: int) -> Tensor:
        features, frames, valid, trust, truth, exposure = batch
        return psnr_loss(model(features, InputFrames(frames, valid, trust)).float(), truth, exposure)


@dataclass(frozen=True)
class Lessons:
    """Bursts to teach with: the same for each head, by seed and number."""

    library: tuple[Light, ...]
    seed: int

    def draw(self, index: int) -> TrainingBatch:
        """Draw bursts of one motion, two of three aligned."""
        rng = generator(self.seed, "kernel heads", index)
        motion = TRAINING_MOTIONS[("still", "shaken", "moving", "occluded")[rng.integers(4)]]
        geometry = Geometry(2, SIDE, SIDE, 16)
        recipe = Recipe(KINDS["grey"], motion, NOISES["wide"], geometry, orientations=8)
        drawn = draw_batch(self.library, recipe, rng, BURSTS)
        parts = (drawn.frames, drawn.truth, drawn.exposure, drawn.read, drawn.shot, drawn.valid)
        frames, truth, exposure, read, shot, valid = (torch.from_numpy(x) for x in parts)
        agreement = torch.ones(*frames.shape[:2], SIDE, SIDE)
        if rng.random() < 2 / 3:
            alignment = align(frames, read, shot, valid)
            frames, agreement = alignment.apply(frames), alignment.agreement()
        return TrainingBatch(frames, agreement, truth, exposure, read, shot, valid)


@dataclass(frozen=True, eq=False)
class Question:
    """A burst of a test, its features computed once for all heads and seeds."""

    features: Tensor
    burst: InputFrames
    truth: Light
    exposure: float

    @torch.no_grad()
    def answered(self, head: nn.Module) -> float:
        """PSNR in dB."""
        picture = head(self.features.float(), self.burst)[0].float().numpy()
        return psnr(tone_mapped(picture, self.exposure), tone_mapped(self.truth, self.exposure))


def question(body: FrozenBody, made: BenchmarkSet, k: int, gain: int, aligned: bool) -> Question:
    w, level = float(made.exposure(k, True)), GAINS[gain]
    frames = torch.from_numpy(made.burst(k, level, w).frames)[None]
    read, shot = torch.tensor([level.read]), torch.tensor([level.shot])
    agreement = torch.ones(*frames.shape[:2], *frames.shape[-2:])
    if aligned:
        alignment = align(frames, read, shot, torch.ones(frames.shape[:2], dtype=torch.bool))
        frames, agreement = alignment.apply(frames), alignment.agreement()
    features, burst = body.features(frames, agreement, read, shot)
    return Question(features.bfloat16(), burst, made.truth(k, w), w)


Questions = dict[str, dict[int, list[Question]]]


def questions(body: FrozenBody, folder: Path) -> Questions:
    """By condition and gain, for each photograph."""
    book = photographs.read_folder(folder, FRAME).photographs
    sets = {motion: benchmark_set(f"grey-{motion}", book, 7, FRAME) for motion, _ in CONDITIONS.values()}
    return {
        name: {gain: [question(body, sets[motion], k, gain, aligned) for k in range(len(book))] for gain in GAINS}
        for name, (motion, aligned) in CONDITIONS.items()
    }


def taught(body: FrozenBody, lessons: Lessons, steps: int, asked: Questions) -> Iterator[dict[str, object]]:
    """Teach the heads of a seed; a line for each head each time that it is tried."""
    bf16 = devices.bf16_is_faster(torch.device("cpu"))
    plan = Plan(steps, RATE, warmup=100, hold=0.25, memory=0.99, bf16=bf16)
    frames = body.network.settings.frames + 1
    torch.manual_seed(integer(lessons.seed, "heads"))
    kept: dict[int, TrainingBatch] = {}
    with devices.world() as world:
        learners = {
            name: Learner(
                SizedHead(body.channels, frames, spec).to(memory_format=torch.channels_last), HeadTask(), plan, world
            )
            for name, spec in HEADS.items()
        }
        spent = dict.fromkeys(learners, 0.0)
        for step in range(steps):
            number = batch_number(step, USES)
            if number not in kept:
                kept = {n: batch for n, batch in kept.items() if n > number - 16}
                kept[number] = lessons.draw(number)
            given = kept[number].transform(int(generator(lessons.seed, "turns", step).integers(8)))
            features, burst = body.features(given.frames, given.agreement, given.read, given.shot)
            batch = (features.float(), *burst, given.truth, given.exposure)
            for name, learner in learners.items():
                began = time.thread_time()
                learner.train_step(batch)
                spent[name] += time.thread_time() - began
            if step + 1 in [int(share * steps) for share in TRIALS]:
                for name, learner in learners.items():
                    told = {
                        condition: {
                            str(gain): [round(one.answered(learner.average), 3) for one in some]
                            for gain, some in by_gain.items()
                        }
                        for condition, by_gain in asked.items()
                    }
                    line = {"seed": lessons.seed, "steps": steps, "step": step + 1, "head": name}
                    yield {**line, "cpu_s": round(spent[name], 1), "psnr": told}


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


def table(lines: list[dict[str, object]]) -> None:
    """Print the differences of PAIRS, over all gains and by gain, and the PSNR of each head."""
    last = {(line["seed"], line["head"]): line for line in lines if line["step"] == line["steps"]}
    seeds = sorted({seed for seed in {seed for seed, _ in last} if all((seed, head) in last for head in HEADS)})
    print(f"seeds {seeds}, {sorted({line['steps'] for line in last.values()})} steps")

    def found(head: str, condition: str) -> Values:
        """PSNR by seed, gain and photograph."""
        by_gain = [last[seed, head]["psnr"][condition] for seed in seeds]  # type: ignore[index]
        return np.array([[one[str(gain)] for gain in GAINS] for one in by_gain])

    for condition in CONDITIONS:
        print(f"\n{condition}: PSNR at gains {', '.join(map(str, GAINS))}")
        for head in HEADS:
            print(f"  {head:12}{' / '.join(f'{x:.2f}' for x in found(head, condition).mean((0, 2)))}")
        print(f"| {condition} | all gains | {' | '.join(f'gain {gain}' for gain in GAINS)} | by seed |")
        for one, other in PAIRS:
            apart = found(one, condition) - found(other, condition)
            cells = [crossed_interval(x) for x in (apart.mean(1), *apart.swapaxes(0, 1))]
            told = " | ".join(f"{m:+.2f} ({low:+.2f}, {high:+.2f})" for m, low, high in cells)
            by_seed = ", ".join(f"{x:+.2f}" for x in apart.mean((1, 2)))
            print(f"| {{{one}}} less {{{other}}} | {told} | {by_seed} |")
    for head, condition in itertools.product(HEADS, CONDITIONS):
        halves = [line for line in lines if line["head"] == head and line["step"] != line["steps"]]
        ends = found(head, condition).mean()
        first = np.mean([list(line["psnr"][condition].values()) for line in halves])  # type: ignore[index]
        print(f"{head:12} {condition:20} from half of the steps to the end {ends - first:+.2f} dB")
    for head in HEADS:
        print(f"{head:12} {np.mean([last[seed, head]['cpu_s'] for seed in seeds]):.0f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if not given.table:
        body = FrozenBody(checkpoints.load_network("swift"))
        asked = questions(body, given.test)
        library = scenes(photographs.read_folder(given.photographs, FRAME).photographs, KINDS["grey"].light)
        for seed in given.seed or range(5):
            done = {line["head"] for line in lines if line["seed"] == seed and line["step"] == line["steps"]}
            if done == set(HEADS):
                continue
            lines = [line for line in lines if line["seed"] != seed]
            given.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
            for line in taught(body, Lessons(library, seed), given.steps, asked):
                lines.append(line)
                with given.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    table(lines)


if __name__ == "__main__":
    main()
