"""Cost of `burst denoise` by step: CPU seconds a megapixel of the sensor, of a hand-held burst of one photograph.

The photograph, continued by its mirror images, is seen by a camera that shifts and turns from frame to frame, while a
patch of it moves; RGGB frames with noise of gain 1, as DNGs. What a step calls is counted as a step of its own, where
it is one; the rest is what no step holds. One thread.

    python benchmarks/burst/cost_by_step.py PHOTOGRAPH [--megapixels 3] [--frames 8] [--memory 2] [--bursts FOLDER]
        [--option fast=1] ...

--bursts: a folder that keeps the drawn burst, which is not drawn again. --option: settings of the run, by name.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy.ndimage import map_coordinates

import denoise as raw
from klarsicht.burst.align import placement
from klarsicht.burst.denoising import denoise, hot_pixels, interpolated_frames, pipeline
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.merging import (
    filters,
    merge_tile,
    motion_check,
    residual_noise,
    sure,
    tiles,
    unmeasured_colours,
)
from klarsicht.burst.noise import sources
from klarsicht.ground.machine import memory
from klarsicht.numerics.imaging.sensor_noise import GAINS

SHIFT, TURN = 1.5, np.radians(0.08)  # deviations from frame to frame: pixels, radians
PATCH = 150  # pixels: side of what moves
BALANCE = np.array([0.5, 1, 1, 2 / 3], np.float32)  # of R, G, G, B
STEPS: dict[str, list[tuple[Any, str]]] = {
    "reading": [(pipeline, "load_frames")],
    "noise and hot pixels": [(sources, "find_noise"), (hot_pixels, "replace_hot_pixels")],
    "alignment": [(pipeline, "_place_frames")],
    "interpolation of the mosaic": [(interpolated_frames, "interpolate_window")],
    "resampling": [
        (pipeline, "store_aligned"), (placement.Placement, "agreement"), (placement.Placement, "coincidence"),
    ],
    "choice of tiles": [(tiles, "choose_grid")],
    "network": [(filters.NetworkFilter, "compute_weights")],
    "application of kernels": [(filters.NetworkWeights, "__call__"), (filters.NetworkWeights, "centre_weights")],
    "mean of the frames": [(merge_tile.Estimates, "merge_mean")],
    "reference filtered alone": [(merge_tile.Estimates, "filter_reference")],
    "tests of windows": [(motion_check, "check_estimates"), (motion_check, "mean_residual")],
    "Stein's estimate": [(sure, "apply_risk_shares")],
    "colours that were not measured": [(unmeasured_colours.UnmeasuredColours, "fit")],
    "noise that is left": [(merge_tile.TileMerger, "simulate_noise"), (placement.Placement, "interpolate_noise"),
                           (merge_tile.Estimates, "_draw_noise"), (residual_noise, "accumulate_moments")],
    "the rest of tiles": [(merge_tile.TileMerger, "__call__")],
    "writing": [(denoise, "write_outputs")],
}  # fmt: skip
WHOLE_STEPS = {"reference filtered alone", "noise that is left"}
"""Steps that count all that they call."""


class Clock:
    """CPU seconds by step, each without those of the steps that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.open: list[str] = []
        self.last = time.process_time()

    def _turn(self) -> None:
        now, step = time.process_time(), self.open[-1] if self.open else "the rest"
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self.last
        self.last = now

    def timed(self, step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def done(*given: Any, **named: Any) -> Any:
            self._turn()
            self.open.append(self.open[-1] if self.open and self.open[-1] in WHOLE_STEPS else step)
            try:
                return work(*given, **named)
            finally:
                self._turn()
                self.open.pop()

        return done

    def install(self) -> None:
        for step, places in STEPS.items():
            for owner, name in places:
                if not hasattr(owner, name):
                    continue
                found = owner.__dict__[name]
                if isinstance(found, classmethod):
                    setattr(owner, name, classmethod(self.timed(step, found.__func__)))
                else:
                    setattr(owner, name, self.timed(step, found))


def draw_burst(photograph: Path, folder: Path, megapixels: float, frames: int) -> None:
    """Write the burst."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5) // 4 * 4
    height = round(width * 3 / 4) // 4 * 4
    light = (np.asarray(Image.open(photograph).convert("RGB")) / np.float32(255)) ** 2.2
    rng = np.random.default_rng(5)
    angles = np.cumsum(TURN * rng.standard_normal(frames))
    shifts = np.cumsum(SHIFT * rng.standard_normal((frames, 2)), 0)
    y, x = np.indices((height, width), np.float32)
    own = {50728: (1, 2, 1, 1, 2, 3), 51041: (GAINS[1].shot, GAINS[1].read ** 2)}
    tags = [(*tag[:3], own.get(tag[0], tag[3]), tag[4]) for tag in raw.tags()]  # type: ignore[call-overload]
    for i in range(frames):
        angle, (dy, dx) = angles[i] - angles[0], shifts[i] - shifts[0]
        v, u = y - height / 2, x - width / 2
        at_y = height / 2 + np.cos(angle) * v + np.sin(angle) * u + dy
        at_x = width / 2 - np.sin(angle) * v + np.cos(angle) * u + dx
        inside = (abs(y - height / 3) < PATCH / 2) & (abs(x - width / 3 - 12 * i) < PATCH / 2)
        at_y, at_x = np.where(inside, y, at_y), np.where(inside, x + 300 - 12 * i, at_x)
        mosaic = np.empty((height, width), np.float32)
        for k, (r, q) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            place = (at_y[r::2, q::2], at_x[r::2, q::2])
            plane = map_coordinates(light[..., (0, 1, 1, 2)[k]], place, order=3, mode="mirror")
            mosaic[r::2, q::2] = BALANCE[k] * np.maximum(plane, 0)
        noisy = GAINS[1].sample(mosaic, np.random.default_rng([1, i]))
        counts = np.clip(np.rint(noisy * (raw.WHITE - raw.BLACK) + raw.BLACK), 0, raw.WHITE).astype(np.uint16)
        tifffile.imwrite(folder / f"{i:02}.dng", counts, photometric=32803, extratags=tags, metadata=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--megapixels", type=float, default=3)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--memory", type=float, default=2)
    parser.add_argument("--bursts", type=Path)
    parser.add_argument("--option", action="append", default=[])
    asked = parser.parse_args()
    settings = {name: json.loads(value) for name, value in (option.split("=") for option in asked.option)}
    with tempfile.TemporaryDirectory() as name:
        folder = (asked.bursts or Path(name)) / f"{asked.photograph.stem}-{asked.megapixels:g}-{asked.frames}"
        if not folder.is_dir():
            folder.mkdir(parents=True)
            if not os.fork():  # what drawing takes is not the command's
                draw_burst(asked.photograph, folder, asked.megapixels, asked.frames)
                os._exit(0)
            os.wait()
        memory.keep_freed_memory()  # as the command does
        clock = Clock()
        clock.install()
        start = time.process_time()
        known = DenoiseSettings(memory=asked.memory, threads=1, **settings)
        for line in denoise.denoise([folder], Path(name) / "out.dng", known):
            print(line)
        total = time.process_time() - start
        clock._turn()
    print("| step | CPU s a megapixel | share |\n|---|---|---|")
    for step, seconds in sorted(clock.seconds.items(), key=lambda one: -one[1]):
        print(f"| {step} | {seconds / asked.megapixels:.2f} | {100 * seconds / total:.0f} % |")
    print(f"| all | {total / asked.megapixels:.2f} | {raw.peak(os.getpid()):.2f} GB at most |")


if __name__ == "__main__":
    main()
