"""Estimation of noise from frames with blown highlights: failures, and relative errors of read and shot noise.

    python benchmarks/burst/blown_highlights.py FOLDER [--frames 1 --frames 3] [--gain 4] [--light 1.5] [--seed 29]

Frames of 176 x 176 pixels of each photograph, shaken, with so many times its light and the noise of that gain, cut off
at black and white, as sRGB of 8 bits. The share of white samples; how often there is no estimate; the error of the read
deviation, where it is said to be identifiable (the number of photographs), and of the shot coefficient over the planted
ones, median and ninth decile over photographs; and how often the shot coefficient is off by more than a half.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.noise import estimation
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry, Photograph
from klarsicht.burst.synthesis.synthesis import KINDS, Recipe, draw_burst
from klarsicht.ground.errors import KlarsichtError
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel
from klarsicht.numerics.imaging.tone import inverse_tone_curve, tone_curve

GEOMETRY = Geometry(2, 176, 176, reach=8)
LIGHTS = (1.0, 1.5, 2.0, 3.0)  # times that of the photograph
FAR_OFF = 0.5
Frames = npt.NDArray[np.float32]


def always(level: NoiseLevel, rng: np.random.Generator) -> NoiseLevel:
    """Return that level."""
    return level


def draw_frames(photograph: Photograph, count: int, gain: int, light: float, seed: list[int]) -> Frames:
    """Draw frames (N, 3, H, W) as they are read from files of 8 bits."""
    kind, exposure, noise = KINDS["rgb"], float(np.log10(light)), partial(always, GAINS[gain])
    recipe = Recipe(kind, MOTIONS["shaken"], noise, GEOMETRY, count, count, (exposure, exposure))
    made = draw_burst((kind.light(photograph),), recipe, np.random.default_rng(seed))
    codes = np.rint(255 * tone_curve(np.clip(made.burst.frames, 0, 1)))
    light_of_codes: Frames = inverse_tone_curve(codes / 255).astype(np.float32)
    return light_of_codes


def relative_errors(frames: Frames, level: NoiseLevel) -> tuple[float, float]:
    """Compute the errors of read and shot over what was planted; NaN where there is no estimate, or none of read."""
    try:
        found = estimation.estimate([frames])
    except KlarsichtError:
        return np.nan, np.nan
    read = abs(found.noise.read / level.read - 1) if found.read_known else np.nan
    return read, abs(found.noise.shot / level.shot - 1)


def row(photographs: tuple[Photograph, ...], count: int, gain: int, light: float, seed: int) -> str:
    """Measure one line of the table."""
    drawn = [
        draw_frames(photograph, count, gain, light, [seed, k, gain, round(100 * light), count])
        for k, photograph in enumerate(photographs)
    ]
    errors = np.array([relative_errors(frames, GAINS[gain]) for frames in drawn])
    white = np.mean([np.mean(frames >= 1) for frames in drawn])
    read, shot = (x[~np.isnan(x)] for x in errors.T)
    parts = [f"{np.median(x):.1%}, {np.quantile(x, 0.9):.1%}" for x in (read, shot)]
    far, failed = int((shot > FAR_OFF).sum()), len(errors) - len(shot)
    return f"| {count} | {gain} | {light:g} | {white:.0%} | {failed} | {parts[0]} ({len(read)}) | {parts[1]} | {far} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--frames", type=int, action="append")
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--light", type=float, action="append")
    parser.add_argument("--seed", type=int, default=29)
    asked = parser.parse_args()
    photographs = read_folder(asked.photographs, GEOMETRY).photographs
    print("| frames | gain | light | white | failed | read off: median, 9th decile | shot off | by over half |")
    print("|---" * 8 + "|")
    for count in asked.frames or (1, 3):
        for gain in asked.gain or (1, 4, 8):
            for light in asked.light or LIGHTS:
                print(row(photographs, count, gain, light, asked.seed), flush=True)


if __name__ == "__main__":
    main()
