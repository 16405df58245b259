"""Do kernels of several sizes pay? One small U-Net with six heads, taught the same batches, compared photograph by
photograph.

Every contestant of a seed sees the same bursts in the same order, at a constant rate, and its averaged weights are
tried four times on the way: so one run compares at equal steps and, by the processor time each took, at equal cost.

    python benchmarks/burst/kernel_sizes.py --photos FOLDER --test KODAK --out results.jsonl [--colour grey] [--seed 0]
        [--steps 1000] [--width 0.125]
    python benchmarks/burst/kernel_sizes.py --out results.jsonl --table

A seed of a colour that is in the file is not run again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from klarsicht.burst.align.alignment import align
from klarsicht.burst.network.unet import PRESETS, Network, Preset
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.burst.training.batches import TrainingBatch
from klarsicht.burst.training.losses import Annealing, total_loss
from klarsicht.burst.training.training import TrainingData, TrainSettings
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.machine import devices
from klarsicht.ground.seeding import integer
from klarsicht.numerics.imaging.sensor_noise import GAINS
from klarsicht.numerics.pixel_kernels.spec import KernelSpec
from klarsicht.numerics.statistics.intervals import mean_interval

BASELINE = "kpn 5x5"
CONTESTANTS = {
    BASELINE: PRESETS["kpn"],
    "separable 9": replace(PRESETS["mkpn"], spec=KernelSpec((9,))),
    "mkpn 1-7": replace(PRESETS["mkpn"], spec=KernelSpec((1, 3, 5, 7))),
    "mkpn 1-9": PRESETS["mkpn"],
    "mkpn 1-9, sum": replace(PRESETS["mkpn"], spec=KernelSpec((1, 3, 5, 7, 9), averaged=False)),
    "bpn 15": PRESETS["bpn"],
}
TRIED = 4  # times in a run
FRAME = Geometry(scale=2, height=112, width=176, reach=16)  # the middle of a photograph


@dataclass(frozen=True)
class Task:
    """The loss of a contestant; nothing is drawn or watched here."""

    annealing: Annealing

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], step: int) -> Tensor:
        given = TrainingBatch(*batch)
        out = model(given.frames, given.read, given.shot, given.valid, given.agreement)
        weight = self.annealing.weight(step)
        return total_loss(out.merged.float(), out.per_frame, given.truth, given.exposure, given.valid, weight)


@dataclass(frozen=True, eq=False)
class Question:
    """One burst, aligned once for all contestants."""

    frames: Tensor
    agreement: Tensor
    read: Tensor
    shot: Tensor
    truth: np.ndarray
    exposure: float

    @torch.no_grad()
    def answered(self, network: nn.Module) -> float:
        """PSNR in dB."""
        picture = network(self.frames, self.read, self.shot, None, self.agreement).merged[0].float().numpy()
        return psnr(tone_mapped(picture, self.exposure), tone_mapped(self.truth, self.exposure))


def questions(made: BenchmarkSet) -> dict[int, list[Question]]:
    """By gain, for each photograph."""
    return {gain: [question(made, k, gain) for k in range(len(made))] for gain in GAINS}


def question(made: BenchmarkSet, k: int, gain: int) -> Question:
    w, level = float(made.exposure(k, True)), GAINS[gain]
    frames, read, shot = (torch.from_numpy(made.burst(k, level, w).frames)[None], *levels(level))
    alignment = align(frames, read, shot, torch.ones(1, frames.shape[1], dtype=torch.bool))
    return Question(alignment.apply(frames), alignment.agreement(), read, shot, made.truth(k, w), w)


def levels(level) -> tuple[Tensor, Tensor]:
    return torch.tensor([level.read]), torch.tensor([level.shot])


def contest(given: argparse.Namespace, colour: str, seed: int) -> Iterator[dict]:
    """A line for each contestant each time that it is tried."""
    settings = TrainSettings(
        colour=colour, noise="wide", size=96, steps=given.steps, uses=4, seed=seed, width=given.width
    )
    lesson = TrainingData.from_folder(given.photos, settings)
    batch = lesson.task(settings, Path("none")).batch
    asked = questions(benchmark_set(f"{colour}-still", photographs.read_folder(given.test).photographs, 7, FRAME))
    plan = Plan(
        given.steps,
        settings.rate,
        warmup=100,
        hold=0.999,
        memory=0.99,
        bf16=devices.bf16_is_faster(torch.device("cpu")),
    )
    with devices.world() as world:
        learners = {
            name: Learner(body(preset, settings, seed), Task(Annealing(given.steps)), plan, world)
            for name, preset in CONTESTANTS.items()
        }
        for learner in learners.values():
            copy.deepcopy(learner).train_step(batch(0, 0))  # compilers run outside the clock
    spent = dict.fromkeys(learners, 0.0)
    for step in range(given.steps):
        drawn = batch(step, 0)
        for name, learner in learners.items():
            spent[name] += seconds(lambda learner=learner, drawn=drawn: learner.train_step(drawn))
        if (step + 1) % (given.steps // TRIED) == 0:
            for name, learner in learners.items():
                told = {
                    str(gain): [round(q.answered(learner.average), 3) for q in some] for gain, some in asked.items()
                }
                yield {
                    "colour": colour,
                    "seed": seed,
                    "name": name,
                    "step": step + 1,
                    "cpu_s": spent[name],
                    "psnr": told,
                }


def body(preset: Preset, settings: TrainSettings, seed: int) -> Network:
    """Its first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(seed, "init"))
        return Network(settings.network, preset).to(memory_format=torch.channels_last)


def seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


Trials = dict[str, np.ndarray]  # contestant: PSNR by seed, gain, photograph


def report(lines: list[dict]) -> None:
    """Against the baseline, the mean over seeds for each photograph, 95 % interval over photographs."""
    for colour in dict.fromkeys(line["colour"] for line in lines):
        own = [line for line in lines if line["colour"] == colour]
        print(f"\n{colour}, seeds {sorted({line['seed'] for line in own})}, {max(line['step'] for line in own)} steps")
        told("equal steps", {name: at_the_end(own, name) for name in CONTESTANTS})
        told("equal time", {name: at_the_time_of_the_fastest(own, name) for name in CONTESTANTS})
        for name in CONTESTANTS:
            print(f"{name:14} {np.mean([x['cpu_s'] / x['step'] for x in own if x['name'] == name]):.3f} CPU s a step")


def told(title: str, trials: Trials) -> None:
    print(f"{title}: itself; dB above {BASELINE} at gains {', '.join(map(str, GAINS))}; at all; by seed")
    for name, found in trials.items():
        apart = found - trials[BASELINE]
        cells = [mean_interval(gain) for gain in apart.mean(0)] + [mean_interval(apart.mean((0, 1)))]
        cells = [f"{c.value:+.2f} ({c.low:+.2f}, {c.high:+.2f})" for c in cells]
        seeds = [f"{x:+.2f}" for x in apart.mean((1, 2))]
        print(f"{name:14} {found.mean():.2f}  {'  '.join(cells)}  {' '.join(seeds)}")


def curve(line: dict) -> np.ndarray:
    return np.array([line["psnr"][str(gain)] for gain in GAINS])


def at_the_end(lines: list[dict], name: str) -> np.ndarray:
    last = max(line["step"] for line in lines)
    return np.array([curve(line) for line in lines if line["name"] == name and line["step"] == last])


def at_the_time_of_the_fastest(lines: list[dict], name: str) -> np.ndarray:
    """Between two trials, at the time that the fastest contestant took for all its steps."""
    found = []
    for seed in sorted({line["seed"] for line in lines}):
        own = [line for line in lines if line["seed"] == seed]
        most = min(max(line["cpu_s"] for line in own if line["name"] == other) for other in CONTESTANTS)
        tried = sorted((line for line in own if line["name"] == name), key=lambda line: line["step"])
        place = float(np.interp(most, [line["cpu_s"] for line in tried], np.arange(len(tried))))
        low, high = tried[int(place)], tried[min(int(place) + 1, len(tried) - 1)]
        found.append(curve(low) + (place - int(place)) * (curve(high) - curve(low)))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--colour", action="append", choices=["grey", "rgb"])
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    for colour in [] if given.table else given.colour or ["grey", "rgb"]:
        for seed in given.seed or [0, 1, 2]:
            if not any((line["colour"], line["seed"]) == (colour, seed) for line in done):
                made = list(contest(given, colour, seed))
                with given.out.open("a") as file:
                    file.writelines(json.dumps(line) + "\n" for line in made)
                done += made
    report(done)


if __name__ == "__main__":
    main()
