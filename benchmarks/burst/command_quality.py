"""Does `klarsicht burst denoise` reach what the card of its network says? The card's bursts as raw files, through it.

Mosaics of photographs, as `klarsicht burst evaluate --set mosaic-still --exact` makes them (seed 7, exposure drawn), as
Bayer DNGs of 16 bits with their NoiseProfile; the output is read back. PSNR in dB of

    evaluated   what `evaluate` does: the network on the burst as floats
    as a sensor the same on what the files hold: rounded, and cut off at white
    untested    the command with its trust tests and Stein's weights left out: its own alignment, tiles, output rounded
    the command as it is

    python benchmarks/burst/command_quality.py [--photographs FOLDER] [--count 6] [--gain 1 --gain 2 --gain 4 --gain 8]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch

import denoise as raw
from klarsicht.burst.data.bayer import to_mosaic
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.evaluation.protocol import path_mask
from klarsicht.burst.files import reading
from klarsicht.burst.merging import motion_check, sure
from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.inference import denoise_burst
from klarsicht.burst.quality import measure_quality
from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.benchmark_sets import benchmark_set
from klarsicht.numerics.imaging.sensor_noise import GAINS

BLACK, WHITE = 16384, 65535  # a sensor whose noise is not cut off at black
LEVELS = {50714: (BLACK,) * 4, 50717: WHITE}
STEPS = ("evaluated", "as a sensor", "untested", "the command")
Light = npt.NDArray[np.float32]


def write(folder: Path, burst: Burst) -> None:
    """DNGs, 0.dng the reference."""
    for i, planes in enumerate(burst.frames):
        counts = np.clip(np.rint(to_mosaic(planes) * (WHITE - BLACK) + BLACK), 0, WHITE).astype(np.uint16)
        tags = [(*tag[:3], LEVELS.get(tag[0], tag[3]), tag[4]) for tag in raw.tags() if tag[0] != 51041]  # type: ignore[call-overload]
        tags.append((51041, 12, 2, (burst.noise.shot, burst.noise.read**2), True))
        tifffile.imwrite(folder / f"{i}.dng", counts, photometric=32803, extratags=tags, metadata=None)


def commanded(folder: Path) -> Light:
    """The planes of what the command writes."""
    list(denoise([folder], folder.parent / "out.dng", DenoiseSettings(reference="0.dng", threads=1, bayer="planes")))
    return reading.read(folder.parent / "out.dng").light


@contextmanager
def untested() -> Iterator[None]:
    """The filtered burst, whatever it is."""
    kept: list[tuple[Any, str, Callable[..., Any]]] = [
        (motion_check, "find_failing_pixels", motion_check.find_failing_pixels)
    ]
    kept += [
        (sure.Risk, "estimate_share", sure.Risk.estimate_share),
        (motion_check, "saturation_mask", motion_check.saturation_mask),
    ]
    motion_check.find_failing_pixels = lambda reference, _: np.zeros(reference.light.shape[1:], bool)
    sure.Risk.estimate_share = lambda self, estimate: np.ones(self.light.shape[1:], np.float32)  # type: ignore[method-assign]
    motion_check.saturation_mask = lambda reference, limits: np.zeros_like(reference)
    try:
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def reached(network: Any, burst: Burst, score: Callable[[Light], float]) -> list[float]:
    """By STEPS."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "burst"
        folder.mkdir()
        write(folder, burst)
        held = np.stack([reading.read(folder / f"{i}.dng").light for i in range(len(burst.frames))])
        pictures = [
            denoise_burst(network, burst, exact=True),
            denoise_burst(network, burst.with_frames(held), exact=True),
        ]
        with untested():
            pictures.append(commanded(folder))
        pictures.append(commanded(folder))
    return [score(picture) for picture in pictures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--gain", type=int, action="append")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    book = photographs.read_folder(asked.photographs) if asked.photographs else photographs.packaged_photographs()
    made = benchmark_set("mosaic-still", book.photographs[: asked.count], 7, book.geometry)
    network = checkpoints.load_network(Path("swift-raw"))
    print(f"| gain, mean of {len(made)} | {' | '.join(STEPS)} | the command less evaluated (worst) |")
    print("|---" * (len(STEPS) + 2) + "|")
    for gain in asked.gain or list(GAINS):
        rows = []
        for k in range(len(made)):
            w, truth = float(made.exposure(k, True)), made.truth(k, float(made.exposure(k, True)))
            path = path_mask(made.paths[k], truth.shape)
            rows.append(
                reached(
                    network,
                    made.burst(k, GAINS[gain], w),
                    lambda x: measure_quality(x, truth, w, path).psnr,  # noqa: B023
                )
            )
        found = np.array(rows)
        lost = found[:, -1] - found[:, 0]
        cells = " | ".join(f"{value:.2f}" for value in found.mean(0))
        print(f"| {gain} | {cells} | {lost.mean():+.2f} ({lost.min():+.2f}) |", flush=True)


if __name__ == "__main__":
    main()
