"""Learning curve of a training by stage, on bursts of the one photograph of the folder that is not taught.

    python benchmarks/burst/learning_curve.py --photos FOLDER STAGE.safetensors... [--bursts 16]

The same bursts for all stages (still; grey frames; `bursts` at each gain, exposure drawn), in float32; PSNR in dB, its
mean, and in brackets the standard error of what was gained on the stage before.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.inference import denoise_burst
from klarsicht.burst.network.unet import Network
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.synthesis import SyntheticBurst, draw_burst
from klarsicht.burst.training.training import TrainingData, TrainSettings
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path, nargs="+")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--bursts", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainSettings(colour="grey", size=128)
    lesson = TrainingData.from_folder(given.photos, settings)
    drawn = {
        gain: [burst(lesson, settings, level, gain, k) for k in range(given.bursts)] for gain, level in GAINS.items()
    }
    print("| stage | " + " | ".join(f"gain {gain}" for gain in GAINS) + " |\n|---|" + "---|" * len(GAINS))
    before = None
    for stage in track(given.stages, len(given.stages), "stages"):
        reached = answers(checkpoints.load_network(stage), drawn)
        cells = [cell(reached[gain], before and before[gain]) for gain in GAINS]
        print(f"| {stage.stem} | " + " | ".join(cells) + " |", flush=True)
        before = reached


def burst(lesson: TrainingData, settings: TrainSettings, level: NoiseLevel, gain: int, k: int) -> SyntheticBurst:
    recipe = replace(settings.recipe, motion=MOTIONS["still"], noise=partial(always, level))
    return draw_burst(lesson.preview_scenes, recipe, generator(0, "learning curve", gain, k))


def always(level: NoiseLevel, rng: np.random.Generator) -> NoiseLevel:
    return level


def answers(network: Network, drawn: dict[int, list[SyntheticBurst]]) -> dict[int, np.ndarray]:
    return {
        gain: np.array(
            [
                psnr(tone_mapped(denoise_burst(network, b.burst, True), b.exposure), tone_mapped(b.truth, b.exposure))
                for b in bursts
            ]
        )
        for gain, bursts in drawn.items()
    }


def cell(reached: np.ndarray, before: np.ndarray | None) -> str:
    if before is None:
        return f"{reached.mean():.2f}"
    gained = reached - before
    return f"{reached.mean():.2f} ({gained.std(ddof=1) / len(gained) ** 0.5:.2f})"


if __name__ == "__main__":
    main()
