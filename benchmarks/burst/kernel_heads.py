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

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from kernel_comparison import (
    CONDITIONS,
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
from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.heads import Features, HeadShape, InputFrames, UnitHead
from klarsicht.burst.network.unet import Network, upsample_twice
from klarsicht.burst.training.losses import psnr_loss
from klarsicht.ground.fit import Learner
from klarsicht.ground.machine import devices
from klarsicht.ground.seeding import integer
from klarsicht.numerics.imaging.sensor_noise import GAINS
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

COUNTS = 0.2  # dB
WIDTH, USES = 96, 4  # channels of a head's own layer; steps that a batch serves
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
            originals = network._weigh_frames(frames, None, agreement)
            burst = originals.append_mean()
            x, *skips = reversed(body.encode(network._build_input(originals, read, shot)))
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


@dataclass(frozen=True, eq=False)
class TestedFeatures:
    """A burst of a test, its features computed once for all heads and seeds."""

    features: Tensor
    burst: InputFrames
    made: TestedBurst

    @classmethod
    def of(cls, body: FrozenBody, made: TestedBurst) -> TestedFeatures:
        features, burst = body.features(*made.given)
        return cls(features.bfloat16(), burst, made)


@torch.no_grad()
def measure(head: nn.Module, one: TestedFeatures) -> float:
    """PSNR in dB."""
    return one.made.psnr(head(one.features.float(), one.burst))


def taught(
    body: FrozenBody, steps: int, test: dict[str, dict[int, list[TestedFeatures]]], lessons: Lessons
) -> Iterator[tuple[str, Line]]:
    """Teach the heads of a seed."""

    def batches() -> Iterator[tuple[Tensor, ...]]:
        for given in lessons.each_step(steps, USES):
            features, burst = body.features(given.frames, given.agreement, given.read, given.shot)
            yield features.float(), *burst, given.truth, given.exposure

    plan, frames = make_plan(steps, 100), body.network.settings.frames + 1
    torch.manual_seed(integer(lessons.seed, "heads"))
    with devices.world() as world:
        learners = {
            name: Learner(
                SizedHead(body.channels, frames, spec).to(memory_format=torch.channels_last), HeadTask(), plan, world
            )
            for name, spec in HEADS.items()
        }
        yield from teach(learners, batches(), steps, test, measure)


def table(lines: list[Line]) -> None:
    """Print the differences of PAIRS, over all gains and by gain, and the PSNR of each head."""
    results = Results.of(lines, "head", list(HEADS))
    print(f"seeds {list(results.seeds)}, {results.steps} steps")
    for condition in CONDITIONS:
        print(f"\n{condition}: PSNR at gains {', '.join(map(str, GAINS))}")
        for head in HEADS:
            print(f"  {head:12}{results.format_psnr(head, condition)}")
        print(f"| {condition} | all gains | {' | '.join(f'gain {gain}' for gain in GAINS)} | by seed |")
        for one, other in PAIRS:
            print(f"| {{{one}}} less {{{other}}} | {results.format_difference(one, other, condition)} |")
    for head, condition in itertools.product(HEADS, CONDITIONS):
        halves = [line for line in lines if line["head"] == head and line["step"] != line["steps"]]
        ends = results.psnr(head, condition).mean()
        first = np.mean([list(line["psnr"][condition].values()) for line in halves])  # type: ignore[index]
        print(f"{head:12} {condition:20} from half of the steps to the end {ends - first:+.2f} dB")
    for head in HEADS:
        print(f"{head:12} {results.cpu_seconds(head):.0f} CPU s")


def main() -> None:
    given = make_parser(__doc__, steps=1600).parse_args()
    torch.set_num_threads(1)
    if not given.table:
        body = FrozenBody(checkpoints.load_network("swift"))
        test = make_test(given.test, partial(TestedFeatures.of, body))
        teach_seeds(given, "head", list(HEADS), partial(taught, body, given.steps, test))
    table(read_lines(given.out))


if __name__ == "__main__":
    main()
