"""Is one network better than another? The same bursts through both, the difference of each photograph, intervals.

    python benchmarks/burst/paired_networks.py FOLDER BEFORE AFTER [--kind grey] [--motion still --motion tripod]
        [--draws 2]

BEFORE, AFTER: networks' files or names. Bursts of eight frames of 128 pixels of each photograph of the folder, at the
largest scale from 4 down to 2 that fits it, exposure drawn, noise of the gains of the protocol. PSNR of AFTER less that
of BEFORE in dB, as displayed; 95 % intervals over photographs, by bootstrap.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.align.alignment import align
from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.unet import Network
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.motion import TRAINING_MOTIONS
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import KPN, scenes
from klarsicht.burst.synthesis.synthesis import KINDS, Recipe, SyntheticBurst, draw_burst
from klarsicht.ground.machine.devices import bf16_is_faster
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

SMALLEST_SCALE = 2
RESAMPLES = 10_000


def always(level: NoiseLevel, rng: np.random.Generator) -> NoiseLevel:
    """Return that level."""
    return level


@torch.no_grad()
def decibels(networks: list[Network], made: SyntheticBurst) -> list[float]:
    """Compute the PSNR of each network on one burst, aligned once."""
    burst = made.burst
    frames, valid = (torch.from_numpy(x)[None] for x in (burst.frames, burst.valid))
    read, shot = (torch.tensor([level]) for level in (burst.noise.read, burst.noise.shot))
    alignment = align(frames, read, shot, valid)
    aligned, agreement, found = alignment.apply(frames), alignment.agreement(), []
    for network in networks:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_faster(torch.device("cpu"))):
            picture = network(aligned, read, shot, valid, agreement).merged[0].float().numpy()
        found.append(psnr(tone_mapped(picture, made.exposure), tone_mapped(made.truth, made.exposure)))
    return found


def interval(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Compute the 95 % interval of the mean by bootstrap."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(len(differences), size=(RESAMPLES, len(differences)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("networks", nargs=2)
    parser.add_argument("--kind", default="grey", choices=list(KINDS))
    parser.add_argument("--motion", action="append", choices=list(TRAINING_MOTIONS))
    parser.add_argument("--draws", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    networks = [checkpoints.load_network(Path(name)).eval() for name in asked.networks]
    book = read_folder(asked.photographs, replace(KPN, scale=SMALLEST_SCALE))
    library = scenes(book.photographs, KINDS[asked.kind].light)
    print(f"| {len(library)} photographs, motion, gain | before, dB | after, dB | after less before (95 %) | better |")
    print("|---|---|---|---|---|")
    for motion in asked.motion or ["still"]:
        recipe = Recipe(kind=KINDS[asked.kind], motion=TRAINING_MOTIONS[motion], smallest_scale=SMALLEST_SCALE)
        for gain, level in GAINS.items():
            noisy = replace(recipe, noise=partial(always, level))
            seeds = [[21, k, gain, draw] for k in range(len(library)) for draw in range(asked.draws)]
            each = [decibels(networks, draw_burst((library[s[1]],), noisy, np.random.default_rng(s))) for s in seeds]
            found = np.array(each).reshape(len(library), asked.draws, 2).mean(1)
            difference = found[:, 1] - found[:, 0]
            low, high = interval(difference)
            more = f"{difference.mean():+.2f} ({low:+.2f} to {high:+.2f})"
            cells = " | ".join([f"{mean:.2f}" for mean in found.mean(0)] + [more])
            print(f"| {motion}, {gain} | {cells} | {(difference > 0).sum()} of {len(library)} |", flush=True)


if __name__ == "__main__":
    main()
