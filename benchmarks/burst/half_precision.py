"""Time that bfloat16 saves in `burst denoise`, and its cost in dB: the command with and without --exact.

Bursts of eight grey frames of photographs, exposure 1; PSNR in dB as displayed, and CPU seconds of the whole command,
one thread, the two interleaved.

    python benchmarks/burst/half_precision.py FOLDER [--count 6] [--gain 1 --gain 4]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.quality import measure_quality
from klarsicht.burst.synthesis.benchmark_sets import benchmark_set
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.numerics.imaging.sensor_noise import GAINS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--gain", type=int, action="append")
    asked = parser.parse_args()
    book = read_folder(asked.photographs)
    made = benchmark_set("grey-still", book.photographs[: asked.count], 7, book.geometry)
    print("| gain | bfloat16, dB | less --exact (least) | CPU s | --exact, CPU s |")
    print("|---" * 5 + "|")
    for gain in asked.gain or list(GAINS):
        found = np.zeros((len(made), 2, 2))
        for k in range(len(made)):
            burst, truth = made.burst(k, GAINS[gain], 1.0), made.truth(k, 1.0)
            for column, exact in enumerate((False, True)):
                with tempfile.TemporaryDirectory() as name:
                    files = [Path(name) / f"{i}.tif" for i in range(len(burst.frames))]
                    for file, frame in zip(files, burst.frames, strict=True):
                        tifffile.imwrite(file, frame[0])
                    noise = f"{burst.noise.read},{burst.noise.shot}"
                    settings = DenoiseSettings(noise=noise, reference="1", linear=True, threads=1, exact=exact)
                    begun = time.process_time()
                    with denoise_frames(files, Path(name) / "out.tif", settings) as result:
                        seconds = time.process_time() - begun
                        picture = result.spool.read_window(0, Window(0, truth.shape[1], 0, truth.shape[2]))[:1]
                quality = measure_quality(picture, truth, 1.0, np.zeros(truth.shape[1:], bool))
                found[k, column] = quality.psnr, seconds
        less, mean = found[:, 0, 0] - found[:, 1, 0], found.mean(0)
        cells = f"{mean[0, 0]:.2f} | {less.mean():+.3f} ({less.min():+.3f})"
        print(f"| {gain} | {cells} | {np.median(found[:, 0, 1]):.2f} | {np.median(found[:, 1, 1]):.2f} |", flush=True)


if __name__ == "__main__":
    main()
