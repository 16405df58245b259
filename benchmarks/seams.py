"""Does a denoised picture show where its tiles meet? Steps of the error across borders of tiles, against those inside.

Bursts of eight grey frames, shaken by whole pixels, noise of a gain of the protocol, in tiles of --side pixels and once
more as a whole: flat grey, and photographs. 1 is no seam. The steps are those of the error, between neighbours, mean
square; the largest difference between tiles and whole is told as well.

    python benchmarks/seams.py [--photographs FOLDER] [--checkpoint NETWORK] [--gain 4] [--side 128] [--count 6]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from klarsicht.burst import album, tiles
from klarsicht.burst.making import DenoiseSettings, denoised
from klarsicht.burst.scenes import grey_light
from klarsicht.burst.spool import Window
from klarsicht.numerics.noise import GAINS, NoiseLevel

FRAMES, REACH = 8, 8
FLAT = (384, 576)
Light = npt.NDArray[np.float32]


def scenes(photographs: Path | None, count: int) -> Iterator[tuple[str, Light]]:
    """Names and linear light, wider than a frame by REACH on each side."""
    for grey in (0.05, 0.3):
        yield f"flat grey, {grey}", np.full([side + 2 * REACH for side in FLAT], grey, np.float32)
    book = album.folder(photographs) if photographs else album.packaged()
    for name, photograph in zip(book.names[:count], book.photographs, strict=False):
        yield name, grey_light(photograph)[0]


def burst(scene: Light, level: NoiseLevel) -> tuple[Light, Light]:
    """(N, H, W) noisy frames, and the truth of the first."""
    H, W = (side - 2 * REACH for side in scene.shape)
    rng = np.random.default_rng(5)
    shifts = [(0, 0), *rng.integers(-REACH, REACH + 1, (FRAMES - 1, 2)).tolist()]
    clean = np.stack([scene[REACH + y : REACH + y + H, REACH + x : REACH + x + W] for y, x in shifts])
    return level.sample(clean, rng), clean[0]


def made(frames: Light, level: NoiseLevel, checkpoint: str | None, side: int) -> tuple[Light, int]:
    """The picture, in tiles of that side, and how many they were."""
    tiles.fitting = lambda size, halo, close, *_: tiles.Grid(size, (side, side), halo, close)
    settings = DenoiseSettings(
        checkpoint=checkpoint, noise=f"{level.read},{level.shot}", reference="1", linear=True, threads=1
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.tif" for i in range(len(frames))]
        for file, frame in zip(files, frames, strict=True):
            tifffile.imwrite(file, frame)
        with denoised(files, Path(folder) / "out.tif", settings) as found:
            H, W = found.spool.size
            count = len(tiles.Grid((H, W), (side, side), 0))
            return found.spool.window(0, Window(0, H, 0, W))[0], count


def steps(error: Light, side: int) -> tuple[float, float]:
    """Mean square steps between neighbours, across borders of tiles and inside, both ways."""
    across, inside = [], []
    for values in (error, error.T):
        step = np.square(np.diff(values, axis=0))
        borders = np.arange(side - 1, len(step), side)
        across.append(step[borders].ravel())
        inside.append(np.delete(step, borders, 0).ravel())
    return float(np.concatenate(across).mean()), float(np.concatenate(inside).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--gain", type=int, default=4)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--count", type=int, default=6)
    asked = parser.parse_args()
    print("| picture | tiles | steps across over inside, in tiles | as a whole | largest difference |")
    print("|---|---|---|---|---|")
    for name, scene in scenes(asked.photographs, asked.count):
        frames, truth = burst(scene, GAINS[asked.gain])
        parts, count = made(frames, GAINS[asked.gain], asked.checkpoint, asked.side)
        whole, _ = made(frames, GAINS[asked.gain], asked.checkpoint, max(truth.shape))
        ratios = [across / inside for across, inside in (steps(p - truth, asked.side) for p in (parts, whole))]
        told = [f"{ratio:.3f}" for ratio in ratios]
        print(f"| {name} | {count} | {' | '.join(told)} | {np.abs(parts - whole).max():.1e} |", flush=True)


if __name__ == "__main__":
    main()
