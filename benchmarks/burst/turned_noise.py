"""Noise of turned frames that is found blind, over the true one, and what it costs in dB.

The bursts of turned.py, without zoom, through the command: once with the noise found in the frames, once told.

    python benchmarks/burst/turned_noise.py FOLDER [--count 6] [--turn 0.3 --turn 1 --turn 2] [--gain 1 --gain 4]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.quality import measure_quality
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Photograph
from klarsicht.burst.synthesis.synthesis import KINDS
from klarsicht.numerics.imaging.sensor_noise import GAINS
from turned import FRAMES, GEOMETRY, drawn


def measured(photograph: Photograph, k: int, degrees: float, gain: int) -> tuple[float, float]:
    """Compute the variance found over the true one, and PSNR less that with the noise told."""
    scene, rng, level = KINDS["grey"].light(photograph), np.random.default_rng([14, k]), GAINS[gain]
    scene = scene.swapaxes(-1, -2) if scene.shape[-2] > scene.shape[-1] else scene
    height, width = GEOMETRY.crop
    y, x = ((room - need) // 2 for room, need in zip(scene.shape[-2:], (height, width), strict=True))
    clean, _ = drawn(scene[:, y : y + height, x : x + width], degrees, 0.0, rng)
    light, still = np.linspace(*np.quantile(clean, [0.05, 0.95]), 30), np.zeros(clean.shape[1:], bool)
    found, psnr = 0.0, []
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{i}.tif" for i in range(FRAMES)]
        for file, frame in zip(files, level.sample(clean, rng), strict=True):
            tifffile.imwrite(file, frame)
        for noise in (None, f"{level.read},{level.shot}"):
            settings = DenoiseSettings(checkpoint="swift", noise=noise, reference="1", linear=True, threads=1)
            with denoise_frames(files, Path(name) / "out.tif", settings) as result:
                H, W = result.spool.size
                picture = result.spool.read_window(0, Window(0, H, 0, W))[:1]
                found = found or float(np.mean(result.noise.mean.variance(light) / level.variance(light)))
            psnr.append(measure_quality(picture, clean[:1], 1.0, still).psnr)
    return found, psnr[0] - psnr[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--turn", type=float, action="append")
    parser.add_argument("--gain", type=int, action="append")
    asked = parser.parse_args()
    book = read_folder(asked.folder).photographs[: asked.count]
    print("| turn, gain | variance over the true one (most) | dB less than told (least) |\n|---|---|---|")
    for degrees in asked.turn or (0.3, 1.0, 2.0):
        for gain in asked.gain or (1, 4):
            found = np.array([measured(one, k, degrees, gain) for k, one in enumerate(book)])
            (variance, off), most, least = found.mean(0), found[:, 0].max(), found[:, 1].min()
            print(f"| {degrees:g} deg, {gain} | {variance:.2f} ({most:.2f}) | {off:+.2f} ({least:+.2f}) |", flush=True)


if __name__ == "__main__":
    main()
