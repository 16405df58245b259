"""Bodies taught from scratch with one kernel size and with several: does what heads of a frozen body show hold there?

Two networks of the preset `swift`, alike but for their kernels, {15} and {1, 5, 15}: taught the same grey bursts in the
same order from their first weights on, a third of them not aligned, with a learning rate that falls to zero, and tried
on unseen photographs as in kernel_heads.py: still and aligned, still and not aligned, moving.

Said before the first run: a difference counts from .2 dB on, where its 95 % interval, seeds and photographs both
random, excludes 0; it is small where the interval lies within .2 dB of 0.

    python benchmarks/burst/kernel_bodies.py --photographs FOLDER --test FOLDER --out FILE.jsonl [--seed 0 --seed 1]
        [--steps 4000] [--width .5]
    python benchmarks/burst/kernel_bodies.py --out FILE.jsonl --table

A seed whose networks were both tried at its end is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kernel_heads import CONDITIONS, FRAME, TRIALS, USES, Lessons, Values, crossed_interval
from klarsicht.burst.align.alignment import align
from klarsicht.burst.network.unet import PRESETS, Network, NetworkSettings
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.scenes import Light, scenes
from klarsicht.burst.synthesis.synthesis import KINDS
from klarsicht.burst.training.batches import TrainingBatch, batch_number
from klarsicht.burst.training.losses import psnr_loss
from klarsicht.ground import devices
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.seeding import generator, integer
from klarsicht.numerics.imaging.sensor_noise import GAINS
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

RATE = 1e-3
SIZES = {"15": (15,), "1, 5, 15": (1, 5, 15)}


@dataclass(frozen=True)
class BodyTask:
    """The loss of a network: the logarithm of the error, as displayed."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], step: int) -> Tensor:
        given = TrainingBatch(*batch)
        out = model(given.frames, given.read, given.shot, given.valid, given.agreement)
        return psnr_loss(out.merged.float(), given.truth, given.exposure)


@dataclass(frozen=True, eq=False)
class AlignedBurst:
    """A burst of a test as networks take it, aligned once for all of them."""

    given: tuple[Tensor, ...]
    agreement: Tensor
    truth: Light
    exposure: float

    @torch.no_grad()
    def answered(self, network: nn.Module) -> float:
        """PSNR in dB."""
        frames, read, shot = self.given
        picture = network(frames, read, shot, None, self.agreement).merged[0].float().numpy()
        return psnr(tone_mapped(picture, self.exposure), tone_mapped(self.truth, self.exposure))


def aligned_burst(made: BenchmarkSet, k: int, gain: int, aligned: bool) -> AlignedBurst:
    w, level = float(made.exposure(k, True)), GAINS[gain]
    frames = torch.from_numpy(made.burst(k, level, w).frames)[None]
    read, shot = torch.tensor([level.read]), torch.tensor([level.shot])
    agreement = torch.ones(*frames.shape[:2], *frames.shape[-2:])
    if aligned:
        alignment = align(frames, read, shot, torch.ones(frames.shape[:2], dtype=torch.bool))
        frames, agreement = alignment.apply(frames), alignment.agreement()
    return AlignedBurst((frames, read, shot), agreement, made.truth(k, w), w)


AlignedBursts = dict[str, dict[int, list[AlignedBurst]]]


def aligned_bursts(folder: Path) -> AlignedBursts:
    """By condition and gain, for each photograph."""
    book = photographs.read_folder(folder, FRAME).photographs
    sets = {motion: benchmark_set(f"grey-{motion}", book, 7, FRAME) for motion, _ in CONDITIONS.values()}
    return {
        name: {gain: [aligned_burst(sets[motion], k, gain, aligned) for k in range(len(book))] for gain in GAINS}
        for name, (motion, aligned) in CONDITIONS.items()
    }


def taught(lessons: Lessons, steps: int, width: float, asked: AlignedBursts) -> Iterator[dict[str, object]]:
    """Teach the networks of a seed; a line for each of them each time that it is tried."""
    plan = Plan(steps, RATE, warmup=150, hold=0.25, memory=0.99, bf16=devices.bf16_is_faster(torch.device("cpu")))
    settings, kept = NetworkSettings(width=width), dict[int, TrainingBatch]()
    with devices.world() as world:
        learners, spent = dict[str, Learner](), dict.fromkeys(SIZES, 0.0)
        for name, sizes in SIZES.items():
            torch.manual_seed(integer(lessons.seed, "bodies"))  # bodies begin with the same weights
            network = Network(settings, replace(PRESETS["swift"], spec=KernelSpec(sizes)))
            learners[name] = Learner(network.to(memory_format=torch.channels_last), BodyTask(), plan, world)
        for step in range(steps):
            number = batch_number(step, USES)
            if number not in kept:
                kept = {n: batch for n, batch in kept.items() if n > number - 16}
                kept[number] = lessons.draw(number)
            batch = kept[number].transform(int(generator(lessons.seed, "turns", step).integers(8)))
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
                    line = {"seed": lessons.seed, "width": width, "steps": steps, "step": step + 1, "sizes": name}
                    yield {**line, "cpu_s": round(spent[name], 1), "psnr": told}


def table(lines: list[dict[str, object]]) -> None:
    """Print the difference, over all gains, by gain and by seed, at half of the steps and at their end."""
    for share in TRIALS:
        last = {(line["seed"], line["sizes"]): line for line in lines if line["step"] == int(share * line["steps"])}  # type: ignore[operator]
        seeds = sorted({seed for seed, _ in last if all((seed, sizes) in last for sizes in SIZES)})  # type: ignore[type-var]
        print(f"\nseeds {seeds}, after steps {sorted({int(line['step']) for line in last.values()})}")  # type: ignore[call-overload]

        def found(sizes: str, condition: str, last: object = last, seeds: object = seeds) -> Values:
            """PSNR by seed, gain and photograph."""
            by_gain = [last[seed, sizes]["psnr"][condition] for seed in seeds]  # type: ignore[index, attr-defined]
            return np.array([[one[str(gain)] for gain in GAINS] for one in by_gain])

        for condition in CONDITIONS:
            for sizes in SIZES:
                print(f"{condition:20}{sizes:10}{' / '.join(f'{x:.2f}' for x in found(sizes, condition).mean((0, 2)))}")
            apart = found("1, 5, 15", condition) - found("15", condition)
            cells = [crossed_interval(x) for x in (apart.mean(1), *apart.swapaxes(0, 1))]
            told = " | ".join(f"{m:+.2f} ({low:+.2f}, {high:+.2f})" for m, low, high in cells)
            print(f"| {condition} | {told} | {', '.join(f'{x:+.2f}' for x in apart.mean((1, 2)))} |")
    for sizes in SIZES:
        print(f"{sizes:10} {np.mean([line['cpu_s'] for line in last.values() if line['sizes'] == sizes]):.0f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if not given.table:
        asked = aligned_bursts(given.test)
        library = scenes(photographs.read_folder(given.photographs, FRAME).photographs, KINDS["grey"].light)
        for seed in given.seed or range(5):
            done = {line["sizes"] for line in lines if line["seed"] == seed and line["step"] == line["steps"]}
            if done == set(SIZES):
                continue
            lines = [line for line in lines if line["seed"] != seed]
            given.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
            for line in taught(Lessons(library, seed), given.steps, given.width, asked):
                lines.append(line)
                with given.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    table(lines)


if __name__ == "__main__":
    main()
