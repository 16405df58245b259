"""Around pixels at white: is the share of clipped pixels counted in all channels together, or in each by itself?

    python benchmarks/burst/white_channels.py FOLDER [--count 24] [--gain 1 --gain 4] [--light 3] [--seed 31]

Eight RGB frames of 160 x 160 pixels of each photograph, shaken, with so many times its light, cut off at black and
white, as linear TIFF files of 16 bits through the command, the noise told. Photographs of which less than a hundredth
is white in some channel and not in all are left out. PSNR in dB as displayed, of the reference and of each form; what
a form gains over the first, with a 95 % interval over photographs (Student's t) and the least; and of the blocks of
32 x 32 pixels of each channel how many are more than 1.02 times as wrong as the reference, and the worst.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import tifffile
from scipy.ndimage import uniform_filter
from scipy.stats import t

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.merging.sure import BOX, Risk
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry, Photograph
from klarsicht.burst.synthesis.synthesis import KINDS, Recipe, draw_burst
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

GEOMETRY = Geometry(2, 160, 160, reach=8)
BLOCK, LEAST = 32, 1.02
CODE = 1 / 65535  # of the files: a smaller error is none
IN_PART = 0.01  # least share of pixels that are white in some channel and not in all
Light = npt.NDArray[np.float32]


def share_of_all(risk: Risk) -> Light:
    """Compute the share in the samples of all channels."""
    clipped = (risk.reference >= risk.limits.high).astype(np.float32).mean(0)
    return np.broadcast_to(uniform_filter(clipped, BOX, mode="nearest"), risk.reference.shape)


def share_where_all_clip(risk: Risk) -> Light:
    """Compute the share of the pixels that are clipped in every channel."""
    clipped = (risk.reference >= risk.limits.high).all(0).astype(np.float32)
    return np.broadcast_to(uniform_filter(clipped, BOX, mode="nearest"), risk.reference.shape)


FORMS: dict[str, Callable[[Risk], Light]] = {
    "all channels together": share_of_all,
    "where all clip": share_where_all_clip,
    "each by itself": Risk.clipped_share.fget,  # type: ignore[attr-defined]
}


def always(level: NoiseLevel, rng: np.random.Generator) -> NoiseLevel:
    """Return that level."""
    return level


def draw(photograph: Photograph, gain: int, light: float, seed: list[int]) -> tuple[Light, Light]:
    """Draw frames (N, 3, H, W), and their truth (3, H, W), both cut off."""
    kind, exposure = KINDS["rgb"], float(np.log10(light))
    recipe = Recipe(kind, MOTIONS["shaken"], partial(always, GAINS[gain]), GEOMETRY, exposures=(exposure, exposure))
    made = draw_burst((kind.light(photograph),), recipe, np.random.default_rng(seed))
    return np.clip(made.burst.frames, 0, 1), np.clip(made.truth, 0, 1)


def denoise(frames: Light, level: NoiseLevel) -> Light:
    """Denoise frames through files, and return the picture (3, H, W), cut off."""
    settings = DenoiseSettings(noise=f"{level.read},{level.shot}", reference="1", linear=True, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.tif" for i in range(len(frames))]
        for file, frame in zip(files, frames, strict=True):
            tifffile.imwrite(file, np.rint(frame * 65535).astype(np.uint16).transpose(1, 2, 0), photometric="rgb")
        with denoise_frames(files, Path(folder) / "out.tif", settings) as found:
            H, W = frames.shape[2:]
            return np.clip(found.spool.read_window(0, Window(0, H, 0, W))[:3], 0, 1)


def block_errors(picture: Light, truth: Light) -> Light:
    """Compute the mean square errors of blocks, (3, Y, X)."""
    square = np.square(picture - truth)
    Y, X = (side // BLOCK for side in square.shape[1:])
    means: Light = square[:, : Y * BLOCK, : X * BLOCK].reshape(3, Y, BLOCK, X, BLOCK).mean((2, 4))
    return means


def rows(photographs: tuple[Photograph, ...], gain: int, light: float, seed: int) -> list[str]:
    """Measure the lines of one gain, one for each form."""
    decibels, ratios = [], []
    for k, photograph in enumerate(photographs):
        frames, truth = draw(photograph, gain, light, [seed, k, gain])
        white = frames[0] >= 1
        if np.mean(white.any(0) & ~white.all(0)) < IN_PART:
            continue
        pictures = [frames[0]]
        for form in FORMS.values():
            with patch.object(Risk, "clipped_share", property(form)):
                pictures.append(denoise(frames, GAINS[gain]))
        decibels.append([psnr(tone_mapped(picture, 1.0), tone_mapped(truth, 1.0)) for picture in pictures])
        wrong = [np.maximum(block_errors(picture, truth), CODE**2) for picture in pictures]
        ratios.append([result / wrong[0] for result in wrong[1:]])
    found, beside = np.array(decibels), np.array(ratios)
    reference, n = found[:, 0].mean(), len(found)
    lines = []
    for i, form in enumerate(FORMS):
        gained = found[:, i + 1] - found[:, 1]
        half = t.ppf(0.975, n - 1) * gained.std(ddof=1) / n**0.5
        more = f"{gained.mean():+.2f} ± {half:.2f} ({gained.min():+.2f})" if i else ""
        worse = f"{(beside[:, i] > LEAST).sum()} of {beside[:, i].size} ({beside[:, i].max():.2f})"
        lines.append(f"| {gain} | {n} | {reference:.2f} | {form} | {found[:, i + 1].mean():.2f} | {more} | {worse} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--light", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=31)
    asked = parser.parse_args()
    photographs = read_folder(asked.photographs, GEOMETRY).photographs[: asked.count]
    print("| gain | photographs | reference | clipped share of | result | gained (least) | blocks worse (worst) |")
    print("|---" * 7 + "|")
    for gain in asked.gain or (1, 4):
        for line in rows(photographs, gain, asked.light, asked.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
