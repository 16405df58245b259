"""Quality of X-Trans bursts with hot pixels, with and without their replacement, through `burst denoise`; PSNR in dB.

Bursts as those of `x_trans.py` (still, noise told to the command), of every photograph in a folder. One sample of the
sensor in a thousand is too bright by .1 to 1 (uniform), in every frame; or none is. PSNR after white balance, as
displayed, in the whole picture. Also counted: hot samples, those found, and samples called hot that are not.

    python benchmarks/burst/x_trans_hot_pixels.py FOLDER [--gain 1 --gain 4]
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import hot_pixels
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.benchmark_sets import benchmark_set
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel
from x_trans import BALANCE, GEOMETRY, Light, write

SHARE = 1e-3
ROWS = ("none hot, not searched", "none hot", "hot, not searched", "hot")


def result_of(files: list[Path], level: NoiseLevel, search: bool) -> tuple[Light, set[tuple[int, int]]]:
    """The result (3, H, W) in the camera's colours, and the rows and columns of the samples called hot."""
    called: set[tuple[int, int]] = set()
    find = hot_pixels.find_hot_pixels

    def found(burst: LoadedBurst, noise: tuple[NoiseLevel, ...]) -> hot_pixels.Places:
        places = find(burst, noise) if search else np.zeros((0, 3), np.int64)
        called.update((y, x) for _, y, x in places.tolist())
        return places

    settings = DenoiseSettings(noise=f"{level.read},{level.shot}", reference="1", threads=1)
    with ExitStack() as changes:
        changes.enter_context(patch.object(hot_pixels, "find_hot_pixels", found))
        result = changes.enter_context(denoise_frames(files, files[0].parent / "out.dng", settings))
        H, W = result.burst.header.size
        return Renderer(result.spool, result.burst.header).linear_window(Window(0, H, 0, W)), called


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--gain", type=int, action="append")
    asked = parser.parse_args()
    book = read_folder(asked.photographs, GEOMETRY)
    made = benchmark_set("rgb-still", book.photographs, 7, GEOMETRY)
    print(f"| photograph, gain | {' | '.join(ROWS)} | hot | found | called so wrongly, none hot / hot |")
    print("|---" * (len(ROWS) + 4) + "|")
    for gain in asked.gain or (1, 4):
        table, sums = [], np.zeros(4, int)
        for k, name in enumerate(book.names):
            truth, size = tone_mapped(made.frames[k, 0], 1.0), made.frames.shape[-2:]
            rng = np.random.default_rng([5, k])
            hot = np.where(rng.random(size) < SHARE, rng.uniform(0.1, 1, size), 0).astype(np.float32)
            planted = {(y, x) for y, x in np.argwhere(hot > 0).tolist()}
            reached, called = [], []
            for more in (0.0, hot):
                for search in (False, True):
                    with tempfile.TemporaryDirectory() as folder:
                        rng = np.random.default_rng([3, k, gain])
                        files = write(Path(folder), made.frames[k] / BALANCE, GAINS[gain], rng, more)
                        picture, places = result_of(files, GAINS[gain], search)
                    reached.append(psnr(tone_mapped(picture * BALANCE, 1.0), truth))
                    called.append(places)
            counts = [len(planted), len(called[3] & planted), len(called[1]), len(called[3] - planted)]
            table.append(reached)
            sums += counts
            print_row(f"{name}, {gain}", reached, counts)
        print_row(f"mean or sum, {gain}", list(np.mean(table, 0)), list(sums))


def print_row(name: str, reached: list[float], counts: list[int]) -> None:
    cells = " | ".join(f"{value:.2f}" for value in reached)
    print(f"| {name} | {cells} | {counts[0]} | {counts[1]} | {counts[2]} / {counts[3]} |", flush=True)


if __name__ == "__main__":
    main()
