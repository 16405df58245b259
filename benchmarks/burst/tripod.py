"""Gain of tripod bursts from the mean of their frames, which coincide, beside hand-held bursts, which must not lose.

Bursts of eight grey frames of photographs, exposure 1, noise of the gains of the protocol, through the code of the
command, files included: of a camera at rest, at rest while something moves, and hand-held. PSNR in dB as displayed, of
the mean of the frames, the network alone, the command as if frames were not known to coincide (before), and the command
as it is. Gained: now less before, mean with a 95 % interval and the least over photographs; the same on the path of
what moves; now less the best of the others. Blocks of 32 x 32: those at most 1.02 times as wrong as the reference, and
at most 1.1 times as wrong as the best of reference, mean and network.

    python benchmarks/burst/tripod.py FOLDER [--count 24] [--gain 1 --gain 4] [--motion shaken]
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import tifffile

from command_quality import untested
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import pipeline
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.evaluation.protocol import path_mask
from klarsicht.burst.merging.filters import MeanFilter
from klarsicht.burst.quality import measure_quality
from klarsicht.burst.synthesis.motion import TRAINING_MOTIONS, Motion, always_visible, tripod_camera
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry, Photograph
from klarsicht.burst.synthesis.synthesis import KINDS, CleanBurst, Recipe, clean_burst, random_crop
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

GEOMETRY = Geometry(scale=2, height=192, width=192, reach=8)
MOTIONS = {
    "tripod": TRAINING_MOTIONS["tripod"],
    "tripod, something moves": Motion(tripod_camera, always_visible),
    "shaken": TRAINING_MOTIONS["shaken"],
}
ROWS = ("mean", "network", "before", "now")
BLOCK, LEAST, AS_GOOD = 32, 1.02, 1.1
Light = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Found:
    """PSNR by ROWS, of all and on the path, (2, 4); mean square errors of blocks of the reference and by ROWS, (5, Y,
    X)."""

    psnr: npt.NDArray[np.float64]
    blocks: Light


def drawn(photographs: list[Photograph], k: int, motion: Motion) -> CleanBurst:
    """Draw the burst of the k-th photograph."""
    kind = KINDS["grey"]
    recipe = Recipe(kind, motion, geometry=GEOMETRY)
    rng = np.random.default_rng([12, k])
    crop, other = (random_crop(kind.light(photographs[i]), recipe, rng) for i in (k, k - 1))
    return clean_burst(crop, other, recipe, rng)


def pictures(noisy: Light, level: NoiseLevel) -> list[Light]:
    """Compute the pictures of ROWS, (H, W) each."""
    noise = f"{level.read},{level.shot}"
    settings = DenoiseSettings(checkpoint="swift", noise=noise, reference="1", linear=True, threads=1)
    found = []
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{i}.tif" for i in range(len(noisy))]
        for file, frame in zip(files, noisy, strict=True):
            tifffile.imwrite(file, frame)
        for row in ROWS:
            with ExitStack() as changes:
                if row != "now":
                    changes.enter_context(patch.object(Placement, "snap_to_pixels", lambda self: self))
                if row in ("mean", "network"):
                    changes.enter_context(untested())
                if row == "mean":
                    changes.enter_context(patch.object(pipeline, "select_filter", lambda *_: MeanFilter()))
                result = changes.enter_context(denoise_frames(files, Path(name) / "out.tif", settings))
                found.append(result.spool.read_window(0, Window(0, noisy.shape[1], 0, noisy.shape[2]))[0])
    return found


def measured(photographs: list[Photograph], k: int, gain: int, motion: Motion) -> Found:
    clean = drawn(photographs, k, motion)
    noisy = GAINS[gain].sample(clean.frames, np.random.default_rng([13, k, gain]))[:, 0]
    truth, made = clean.frames[0], pictures(noisy, GAINS[gain])
    path = path_mask(clean.path, truth.shape)
    quality = [measure_quality(picture[None], truth, 1.0, path) for picture in made]
    errors = np.stack([blocks(np.square(picture - truth[0])) for picture in (noisy[0], *made)])
    on_path = [np.nan if one.on_path is None else one.on_path for one in quality]
    return Found(np.array([[one.psnr for one in quality], on_path]), errors)


def blocks(values: Light) -> Light:
    means: Light = values.reshape(values.shape[0] // BLOCK, BLOCK, values.shape[1] // BLOCK, BLOCK).mean((1, 3))
    return means


def row(found: list[Found]) -> str:
    """Format the cells of a row."""
    psnr, errors = np.stack([one.psnr for one in found]), np.stack([one.blocks for one in found], 1)
    gained = psnr[:, 0, 3] - psnr[:, 0, 2]
    half = 1.96 * gained.std(ddof=1) / np.sqrt(len(gained))
    best = psnr[:, 0, 3] - psnr[:, 0, :3].max(1)
    path = np.nanmean(psnr[:, 1, 3] - psnr[:, 1, 2]) if np.isfinite(psnr[:, 1]).any() else np.nan
    kept = (errors[4] <= LEAST * errors[0]).mean()
    beside = errors[4] / errors[:3].min(0)
    cells = [f"{value:.2f}" for value in psnr[:, 0].mean(0)]
    cells.append(
        f"{gained.mean():+.2f} ({gained.mean() - half:+.2f}, {gained.mean() + half:+.2f}), {gained.min():+.2f}"
    )
    cells += [f"{path:+.2f}", f"{best.mean():+.2f} ({best.min():+.2f})", f"{kept:.2%}"]
    return " | ".join([*cells, f"{(beside <= AS_GOOD).mean():.1%} ({beside.max():.1f})"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--motion", choices=MOTIONS, action="append")
    asked = parser.parse_args()
    book = list(read_folder(asked.photographs, GEOMETRY).photographs[: asked.count])
    head = "gained (95 %), least | on the path | over the best (least) | blocks kept | as good as the best (worst)"
    print(f"| motion, gain | {' | '.join(ROWS)} | {head} |")
    print("|---" * (len(ROWS) + 6) + "|")
    for name in asked.motion or MOTIONS:
        for gain in asked.gain or list(GAINS):
            found = [measured(book, k, gain, MOTIONS[name]) for k in range(len(book))]
            print(f"| {name}, {gain} | {row(found)} |", flush=True)


if __name__ == "__main__":
    main()
