"""Loss in decibels where files cut noise off at black: bursts as 16-bit sRGB PNGs, through `burst denoise`.

    python benchmarks/burst/clipped_files.py FOLDER [--count 6] [--gain 4]
    python benchmarks/burst/clipped_files.py FOLDER --noise [--count 24]

Eight RGB frames of each photograph, exposure drawn from .1 to 1. PSNR in dB, as displayed, against the light that was
not cut off: of the network alone (tests and Stein's weights left out), of the command with the noise told, and with the
noise found blind. --noise: the noise found blind in bursts of a fifth of the light, grey and RGB, still and shaken: the
factor by which its variance is off at the worst brightness between the 5th and the 95th percentile.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt

from command_quality import untested
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.noise import estimation
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry, Photograph
from klarsicht.burst.synthesis.synthesis import KINDS, Recipe, SyntheticBurst, draw_burst
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

SMALL, LARGE = Geometry(2, 144, 144, reach=8), Geometry(2, 192, 192, reach=8)
OF_NOISE = Geometry(2, 160, 160, reach=8)
DARK = -0.7  # log10 of the exposure
Light = npt.NDArray[np.float32]


def always(level: NoiseLevel, rng: np.random.Generator) -> NoiseLevel:
    """Return that level."""
    return level


def fitting(photograph: Photograph, geometry: Geometry) -> Geometry:
    """Return the geometry, or the small one where its crop does not fit."""
    return geometry if min(photograph.shape[:2]) >= geometry.crop[0] else SMALL


def encode(light: Light) -> npt.NDArray[np.uint16]:
    """Convert linear light (C, H, W) to 16-bit sRGB codes (H, W, C), cut off at black and white."""
    x = np.clip(light, 0, 1)
    codes = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)
    return np.ascontiguousarray(np.rint(codes * 65535).astype(np.uint16).transpose(1, 2, 0))


def draw_photograph(photograph: Photograph, k: int, gain: int) -> SyntheticBurst:
    """Draw a burst of a photograph."""
    rng = np.random.default_rng([8, k, gain])
    exposure, kind = rng.uniform(-1, 0), KINDS["rgb"]
    noise, geometry = partial(always, GAINS[gain]), fitting(photograph, LARGE)
    recipe = Recipe(kind, MOTIONS["still"], noise, geometry, exposures=(exposure, exposure))
    return draw_burst((kind.light(photograph),), recipe, rng)


def reached(made: SyntheticBurst, gain: int) -> list[float]:
    """Compute the PSNR of the network alone, of the command told the noise, and of the command."""
    level, found = GAINS[gain], []
    told = DenoiseSettings(checkpoint="swift", noise=f"{level.read},{level.shot}", reference="1", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.png" for i in range(len(made.burst.frames))]
        for file, frame in zip(files, made.burst.frames, strict=True):
            file.write_bytes(imagecodecs.png_encode(encode(frame)))
        blind = told.model_copy(update={"noise": None})
        for settings, alone in ((told, untested()), (told, nullcontext()), (blind, nullcontext())):
            with alone, denoise_frames(files, Path(folder) / "out.tif", settings) as result:
                H, W = made.truth.shape[1:]
                picture = result.spool.read_window(0, Window(0, H, 0, W))[:3]
            found.append(psnr(*(tone_mapped(x, made.exposure) for x in (picture, made.truth))))
    return found


def noise_factor(photograph: Photograph, k: int, gain: int) -> float:
    """Compute the factor by which the blind estimate of a dark burst is off."""
    kind, motion, level = KINDS[("grey", "rgb")[k % 2]], MOTIONS[("still", "shaken")[k // 2 % 2]], GAINS[gain]
    recipe = Recipe(kind, motion, partial(always, level), fitting(photograph, OF_NOISE), exposures=(DARK, DARK))
    made = draw_burst((kind.light(photograph),), recipe, np.random.default_rng([6, k, gain]))
    frames = (np.rint(np.clip(made.burst.frames, 0, 1) * 65535) / 65535).astype(np.float32)
    light = np.linspace(*np.quantile(made.truth, [0.05, 0.95]), 30)
    ratio = estimation.estimate([frames]).noise.variance(light) / level.variance(light)
    return float(np.exp(np.abs(np.log(ratio)).max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--noise", action="store_true")
    asked = parser.parse_args()
    pictures = read_folder(asked.photographs, SMALL).photographs[: asked.count]
    for gain in asked.gain or list(GAINS):
        if asked.noise:
            off = np.array([noise_factor(picture, k, gain) for k, picture in enumerate(pictures)])
            more = f"{(off > 1.25).sum()} of {len(off)} by more than a quarter"
            print(f"gain {gain}: median {np.median(off):.2f}, worst {off.max():.2f}, {more}", flush=True)
        else:
            found = [reached(draw_photograph(picture, k, gain), gain) for k, picture in enumerate(pictures)]
            alone, told, blind = np.mean(found, 0)
            print(f"gain {gain}: network alone {alone:.2f}, told {told:.2f}, blind {blind:.2f}", flush=True)


if __name__ == "__main__":
    main()
