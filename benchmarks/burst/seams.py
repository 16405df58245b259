"""Does a denoised picture show where its tiles meet? Steps of the error across borders of tiles, against those inside.

Bursts of eight grey frames, shaken by whole pixels, noise of a gain of the protocol, in tiles of --side pixels and once
more as a whole: flat grey, and photographs. 1 is no seam. The steps are those of the error, between neighbours, mean
square; the largest difference between tiles and whole is told as well. --raw: as Bayer DNGs, whose planes are tiled.
--sky: so many bursts of one smooth sky instead, of other noise, and the mean magnitude of the picture's own gradient
across the borders of tiles, and across those of the mesh that frames are aligned on, over the gradient elsewhere.

    python benchmarks/burst/seams.py [--photographs FOLDER] [--checkpoint NETWORK] [--gain 4] [--side 128] [--count 6]
        [--raw]
    python benchmarks/burst/seams.py --sky 6 --gain 8 --side 128 [--checkpoint NETWORK] [--exact]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

import denoise
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.merging import tiles
from klarsicht.burst.synthesis.photographs import packaged_photographs, read_folder
from klarsicht.burst.synthesis.scenes import grey_light
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

FRAMES, REACH = 8, 8
BLACK, WHITE = 16384, 65535
FLAT = (384, 576)
SKY = (256, 384)
EXACT = "--exact" in sys.argv
Light = npt.NDArray[np.float32]


def scenes(photographs: Path | None, count: int) -> Iterator[tuple[str, Light]]:
    """Names and linear light, wider than a frame by REACH on each side."""
    for grey in (0.05, 0.3):
        yield f"flat grey, {grey}", np.full([side + 2 * REACH for side in FLAT], grey, np.float32)
    book = read_folder(photographs) if photographs else packaged_photographs()
    for name, photograph in zip(book.names[:count], book.photographs, strict=False):
        yield name, grey_light(photograph)[0]


def burst(scene: Light, level: NoiseLevel, seed: int = 5) -> tuple[Light, Light]:
    """(N, H, W) noisy frames, and the truth of the first."""
    H, W = (side - 2 * REACH for side in scene.shape)
    rng = np.random.default_rng(seed)
    shifts = [(0, 0), *(2 * rng.integers(-REACH // 2, REACH // 2 + 1, (FRAMES - 1, 2))).tolist()]
    clean = np.stack([scene[REACH + y : REACH + y + H, REACH + x : REACH + x + W] for y, x in shifts])
    return level.sample(clean, rng), clean[0]


def made(frames: Light, level: NoiseLevel, checkpoint: str | None, side: int, raw: bool) -> tuple[Light, int]:
    """The planes (C, h, w) of the picture, in tiles of that side, and how many they were."""
    tiles.choose_grid = lambda size, halo, close, *_: tiles.Grid(size, (side, side), halo, close)
    settings = DenoiseSettings(
        checkpoint=checkpoint,
        noise=f"{level.read},{level.shot}",
        reference="1",
        linear=True,
        threads=1,
        exact=EXACT,
        bayer="planes",
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.{'dng' if raw else 'tif'}" for i in range(len(frames))]
        for file, frame in zip(files, frames, strict=True):
            write_raw(file, frame) if raw else tifffile.imwrite(file, frame)
        with denoise_frames(files, Path(folder) / "out.tif", settings) as found:
            H, W = found.spool.size
            count = len(tiles.Grid((H, W), (side, side), 0))
            return found.spool.read_window(0, Window(0, H, 0, W))[:-1], count


def write_raw(file: Path, frame: Light) -> None:
    """A sensor of 16 bits, whose black lies so high that no noise is cut off there."""
    levels = {50714: (BLACK,) * 4, 50717: WHITE}
    counts = np.clip(np.rint(frame * (WHITE - BLACK) + BLACK), 0, WHITE).astype(np.uint16)
    tags = [(*tag[:3], levels.get(tag[0], tag[3]), tag[4]) for tag in denoise.tags()]  # type: ignore[call-overload]
    tifffile.imwrite(file, counts, photometric=32803, extratags=tags, metadata=None)


def steps(error: Light, side: int) -> tuple[float, float]:
    """Mean square steps between neighbours, across borders of tiles and inside, both ways."""
    across, inside = [], []
    for values in [plane for both in error for plane in (both, both.T)]:
        step = np.square(np.diff(values, axis=0))
        borders = np.arange(side - 1, len(step), side)
        across.append(step[borders].ravel())
        inside.append(np.delete(step, borders, 0).ravel())
    return float(np.concatenate(across).mean()), float(np.concatenate(inside).mean())


def sky() -> Light:
    """A smooth sky, brighter towards the horizon and darker in the corners, wider than a frame by REACH."""
    y, x = np.mgrid[tuple(slice(-1, 1, 1j * (side + 2 * REACH)) for side in SKY)]
    return ((0.25 + 0.12 * y) * (1 - 0.15 * (x**2 + y**2))).astype(np.float32)


def gradients(picture: Light, side: int) -> list[float]:
    """Sum and count of the magnitudes of the gradient across borders of squares of that side, and elsewhere, both
    ways."""
    across, elsewhere = [], []
    for values in [plane for both in picture for plane in (both, both.T)]:
        step = np.abs(np.diff(values, axis=0))
        borders = np.arange(side - 1, len(step), side)
        across.append(step[borders].ravel())
        elsewhere.append(np.delete(step, borders, 0).ravel())
    return [
        value for part in (across, elsewhere) for value in (float(np.sum([p.sum() for p in part])), sum(map(len, part)))
    ]


def measure_sky(count: int, level: NoiseLevel, checkpoint: str | None, side: int, raw: bool) -> None:
    """Print the ratio of gradients, pooled over bursts, in tiles and as a whole."""
    print("| bursts so far | borders | across over elsewhere, in tiles | as a whole | largest difference |")
    print("|---|---|---|---|---|")
    pooled = {(squares, how): np.zeros(4) for squares in (side, STEP) for how in ("tiles", "whole")}
    most = 0.0
    for seed in range(count):
        frames, truth = burst(sky(), level, seed)
        parts = made(frames, level, checkpoint, side, raw)[0]
        whole = made(frames, level, checkpoint, 32 * max(truth.shape), raw)[0]
        most = max(most, float(np.abs(parts - whole).max()))
        for (squares, how), sums in pooled.items():
            sums += gradients(parts if how == "tiles" else whole, squares)
        for squares, name in ((side, "of tiles"), (STEP, "of the mesh")):
            a, b = ((s[0] / s[1]) / (s[2] / s[3]) for s in (pooled[squares, how] for how in ("tiles", "whole")))
            print(f"| {seed + 1} | {name} | {a:.3f} | {b:.3f} | {most:.1e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--gain", type=int, default=4)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--sky", type=int)
    parser.add_argument("--exact", action="store_true", help="the network in float32, as burst denoise --exact")
    asked = parser.parse_args()
    if asked.sky:
        measure_sky(asked.sky, GAINS[asked.gain], asked.checkpoint, asked.side, asked.raw)
        return
    print("| picture | tiles | steps across over inside, in tiles | as a whole | largest difference |")
    print("|---|---|---|---|---|")
    for name, scene in scenes(asked.photographs, asked.count):
        frames, truth = burst(scene, GAINS[asked.gain])
        truth = to_planes(truth) if asked.raw else truth[None]
        parts, count = made(frames, GAINS[asked.gain], asked.checkpoint, asked.side, asked.raw)
        whole, _ = made(frames, GAINS[asked.gain], asked.checkpoint, 32 * max(truth.shape), asked.raw)
        ratios = [across / inside for across, inside in (steps(p - truth, asked.side) for p in (parts, whole))]
        told = [f"{ratio:.3f}" for ratio in ratios]
        print(f"| {name} | {count} | {' | '.join(told)} | {np.abs(parts - whole).max():.1e} |", flush=True)


if __name__ == "__main__":
    main()
