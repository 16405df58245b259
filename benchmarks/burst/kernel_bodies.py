"""Bodies taught from scratch with one kernel size and with several: does what heads of a frozen body show hold there?

Two networks of the preset `swift`, alike but for their kernels, {15} and {1, 5, 15}: taught the same grey bursts in the
same order from their first weights on, a third of them not aligned, with a learning rate that falls to zero, and tried
on unseen photographs as in kernel_heads.py: still and aligned, still and not aligned, moving.

Said before the first run: a difference counts from .2 dB on, where its 95 % interval, seeds and photographs both
random, excludes 0; it is small where the interval lies within .2 dB of 0.

    python benchmarks/burst/kernel_bodies.py --photographs FOLDER --test FOLDER --out FILE.jsonl [--seed 0 --seed 1]
        [--steps 4000] [--width .5] [--count 24]
    python benchmarks/burst/kernel_bodies.py --out FILE.jsonl --table

A seed whose networks were both tried at its end is not run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from kernel_comparison import (
    CONDITIONS,
    TRIALS,
    Lessons,
    Line,
    Results,
    TestedBurst,
    make_parser,
    make_plan,
    make_test,
    read_lines,
    teach,
    teach_seeds,
)
from klarsicht.burst.network.unet import PRESETS, Network, NetworkSettings
from klarsicht.burst.training.batches import TrainingBatch
from klarsicht.burst.training.losses import psnr_loss
from klarsicht.ground.fit import Learner
from klarsicht.ground.machine import devices
from klarsicht.ground.seeding import integer
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

USES = 8  # steps that a batch serves
SIZES = {"15": (15,), "1, 5, 15": (1, 5, 15)}


@dataclass(frozen=True)
class BodyTask:
    """The loss of a network: the logarithm of the error, as displayed."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], step: int) -> Tensor:
        given = TrainingBatch(*batch)
        out = model(given.frames, given.read, given.shot, given.valid, given.agreement)
        return psnr_loss(out.merged.float(), given.truth, given.exposure)


@torch.no_grad()
def measure(network: nn.Module, one: TestedBurst) -> float:
    """PSNR in dB."""
    frames, agreement, read, shot = one.given
    return one.psnr(network(frames, read, shot, None, agreement).merged)


def taught(
    width: float, steps: int, test: dict[str, dict[int, list[TestedBurst]]], lessons: Lessons
) -> Iterator[tuple[str, Line]]:
    """Teach the networks of a seed."""
    plan, settings = make_plan(steps, 150), NetworkSettings(width=width)
    with devices.world() as world:
        learners = dict[str, Learner]()
        for name, sizes in SIZES.items():
            torch.manual_seed(integer(lessons.seed, "bodies"))  # bodies begin with the same weights
            network = Network(settings, replace(PRESETS["swift"], spec=KernelSpec(sizes)))
            learners[name] = Learner(network.to(memory_format=torch.channels_last), BodyTask(), plan, world)
        for name, found in teach(learners, (tuple(x) for x in lessons.each_step(steps, USES)), steps, test, measure):
            yield name, {"width": width, **found}


def table(lines: list[Line]) -> None:
    """Print the difference, over all gains, by gain and by seed, at half of the steps and at their end."""
    for share in TRIALS:
        results = Results.of(lines, "sizes", list(SIZES), share)
        print(f"\nseeds {list(results.seeds)}, after steps {results.steps}")
        for condition in CONDITIONS:
            for sizes in SIZES:
                print(f"{condition:20}{sizes:10}{results.format_psnr(sizes, condition)}")
            print(f"| {condition} | {results.format_difference('1, 5, 15', '15', condition)} |")
    for sizes in SIZES:
        print(f"{sizes:10} {results.cpu_seconds(sizes):.0f} CPU s")


def main() -> None:
    parser = make_parser(__doc__, steps=4000)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--count", type=int, help="photographs of the test, the first ones")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.table:
        test = make_test(given.test, lambda made: made, given.count)
        teach_seeds(given, "sizes", list(SIZES), partial(taught, given.width, given.steps, test))
    table(read_lines(given.out))


if __name__ == "__main__":
    main()
