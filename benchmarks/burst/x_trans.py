"""Quality on X-Trans frames: bursts as raw files behind that mosaic, through `burst denoise`; PSNR in dB.

Frames of `rgb-still` and `rgb-moving` (seed 7, exposure 1, 144 x 192 pixels), in the colours of a camera whose red is
half and whose blue two thirds of green, as DNGs of 16 bits that are not cut off at black; noise of the gains of the
protocol, told to the command or found blind. Colours are compared after white balance, as displayed, with the light
before the mosaic. Rows: the reference interpolated, the mean of the frames where they agree, the network alone, the
command, and the command blind. Blocks of 32 x 32: how many are at most 1.02 times as wrong as the reference.

    python benchmarks/burst/x_trans.py FOLDER [--count 12] [--gain 1 --gain 4] [--motion still --motion moving]
        [--camera-colours] [--checkpoint NETWORK]

--camera-colours: each photograph is seen by a random mixture of four measured cameras, whose filters mix the colours;
the truth is what they see. Without it colours are those of sRGB, more saturated than a camera's. --checkpoint: instead
of the network that comes along.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import tifffile

import denoise as raw
from command_quality import BLACK, WHITE, untested
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import pipeline
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import reading
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.merging.filters import MeanFilter
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.benchmark_sets import benchmark_set
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.burst.synthesis.unprocessing import apply_colour_matrix, draw_camera
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

X_TRANS = "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"
GEOMETRY = Geometry(scale=2, height=144, width=192, reach=8)
BALANCE = np.array([2, 1, 1.5], np.float32)[:, None, None]
ROWS = ("reference", "mean", "network", "command", "blind")
BLOCK, LEAST = 32, 1.02
Light = npt.NDArray[np.float32]


def seen_by_camera(frames: Light, k: int) -> Light:
    """Mix the colours of frames (N, 3, H, W) as the camera of the k-th photograph does; white stays white."""
    return apply_colour_matrix(frames, draw_camera(np.random.default_rng([5, k])).matrix)


def sampled(light: Light) -> Light:
    """Sample RGB (3, H, W) through the mosaic, (H, W)."""
    letters = np.array(["RGB".index(letter) for letter in X_TRANS]).reshape(6, 6)
    H, W = light.shape[1:]
    seen: Light = np.take_along_axis(light, letters[np.arange(H)[:, None] % 6, np.arange(W) % 6][None], 0)[0]
    return seen


def write(
    folder: Path, frames: Light, level: NoiseLevel, rng: np.random.Generator, hot: Light | float = 0.0
) -> list[Path]:
    """Write DNGs of noisy samples, without a NoiseProfile. hot: what each sample of the sensor (H, W) has too much."""
    own = {33421: (6, 6), 33422: bytes("RGB".index(letter) for letter in X_TRANS), 50713: (1, 1), 50714: BLACK}
    own[50717] = WHITE
    counts = {33422: 36, 50714: 1}
    tags = [(t, k, counts.get(t, n), own.get(t, v), w) for t, k, n, v, w in raw.tags() if t != 51041]  # type: ignore[misc, call-overload]
    files = [folder / f"{i}.dng" for i in range(len(frames))]
    for file, frame in zip(files, frames, strict=True):
        noisy = level.sample(sampled(frame), rng) + hot
        codes = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE).astype(np.uint16)
        tifffile.imwrite(file, codes, photometric=32803, extratags=tags, metadata=None)
    return files


def result_of(files: list[Path], level: NoiseLevel | None, row: str, checkpoint: str | None) -> Light:
    """The result (3, H, W) in the camera's colours."""
    noise = None if level is None else f"{level.read},{level.shot}"
    settings = DenoiseSettings(noise=noise, reference="1", threads=1, checkpoint=checkpoint)
    with ExitStack() as changes:
        if row in ("mean", "network"):
            changes.enter_context(untested())
        if row == "mean":
            changes.enter_context(patch.object(pipeline, "select_filter", lambda *_: MeanFilter()))
        result = changes.enter_context(denoise_frames(files, files[0].parent / "out.dng", settings))
        H, W = result.burst.header.size
        return Renderer(result.spool, result.burst.header).linear_window(Window(0, H, 0, W))


def pictures(light: Light, level: NoiseLevel, rng: np.random.Generator, checkpoint: str | None) -> list[Light]:
    """The pictures of ROWS, of clean frames (N, 3, H, W)."""
    frames = light / BALANCE
    with tempfile.TemporaryDirectory() as name:
        files = write(Path(name), frames, level, rng)
        found = [reading.read(files[0]).light]
        found += [result_of(files, None if row == "blind" else level, row, checkpoint) for row in ROWS[1:]]
    return [picture * BALANCE for picture in found]


def blocks(values: Light) -> Light:
    Y, X = (side // BLOCK for side in values.shape[1:])
    means: Light = values[:, : Y * BLOCK, : X * BLOCK].reshape(3, Y, BLOCK, X, BLOCK).mean((0, 2, 4))
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--motion", action="append")
    parser.add_argument("--camera-colours", action="store_true")
    parser.add_argument("--checkpoint")
    asked = parser.parse_args()
    book = read_folder(asked.photographs, GEOMETRY).photographs[: asked.count]
    print(f"| motion, gain | {' | '.join(ROWS)} | command less the better of mean and network (least) | blocks kept |")
    print("|---" * (len(ROWS) + 3) + "|")
    for motion in asked.motion or ("still", "moving"):
        made = benchmark_set(f"rgb-{motion}", book, 7, GEOMETRY)
        for gain in asked.gain or (1, 4):
            reached, kept = [], []
            for k in range(len(book)):
                light = seen_by_camera(made.frames[k], k) if asked.camera_colours else made.frames[k]
                rng, truth = np.random.default_rng([3, k, gain]), light[0]
                found = pictures(light, GAINS[gain], rng, asked.checkpoint)
                reached.append([psnr(tone_mapped(x, 1.0), tone_mapped(truth, 1.0)) for x in found])
                errors = [blocks(np.square(x - truth)) for x in (found[0], found[3])]
                kept.append(errors[1] <= LEAST * errors[0])
            table = np.array(reached)
            over = table[:, 3] - table[:, 1:3].max(1)
            cells = " | ".join(f"{value:.2f}" for value in table.mean(0))
            share = f"{np.mean(kept):.2%}"
            print(f"| {motion}, {gain} | {cells} | {over.mean():+.2f} ({over.min():+.2f}) | {share} |", flush=True)


if __name__ == "__main__":
    main()
