"""Brightness and error near the border of a picture, with and without the correction of kernels that reach beyond it.

    python benchmarks/burst/borders.py PHOTOGRAPHS --network swift --photographs 24

Bursts of five grey frames, shifted by up to six pixels, of photographs at half their brightness; three levels of noise.
A row is printed for each level: the mean of a row or column at 0, 1, 2, 4 and 8 pixels from the border over that of
the truth, and PSNR of linear light in the outer eight pixels and inside, without and with the correction.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from klarsicht import burst
from klarsicht.burst.network import inference
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVELS = (0.01, 0.006), (0.015, 0.02), (0.002, 0.0004)
DISTANCES = 0, 1, 2, 4, 8
REACH, RING, SIZE = 6, 8, (300, 420)


def draw_burst(file: Path, level: NoiseLevel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw frames (5, 1, H, W) and the light of the reference (1, H, W)."""
    light = 0.5 * (np.asarray(Image.open(file).convert("L").reduce(1), np.float32)[: SIZE[0], : SIZE[1]] / 255) ** 2.2
    H, W = (side - 2 * REACH for side in light.shape)
    places = [(0, 0), *rng.integers(-REACH, REACH + 1, (4, 2)).tolist()]
    clean = np.stack([light[None, REACH + y : REACH + y + H, REACH + x : REACH + x + W] for y, x in places])
    return (clean + rng.standard_normal(clean.shape) * np.sqrt(level.variance(clean))).astype(np.float32), clean[0]


def edges(picture: np.ndarray, distance: int) -> float:
    """Compute the mean of the rows and columns at a distance from the border."""
    ends = distance, -1 - distance
    return float(np.mean([picture[:, i].mean() for i in ends] + [picture[..., i].mean() for i in ends]))


def psnr(picture: np.ndarray, truth: np.ndarray, ring: bool) -> float:
    """Compute the PSNR of the outer RING pixels, or of the others."""
    inside = np.zeros(truth.shape, bool)
    inside[:, RING:-RING, RING:-RING] = True
    return float(-10 * np.log10(np.square(picture - truth)[inside ^ ring].mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="swift")
    parser.add_argument("--photographs", type=int, default=24)
    given = parser.parse_args()
    network = burst.load_network(given.network)
    files = sorted(p for p in given.folder.iterdir() if p.suffix.lower() in {".png", ".jpg"})[: given.photographs]
    corrected = inference.border_factors
    for level in (NoiseLevel(*pair) for pair in LEVELS):
        for name, factors in (("without", lambda kernels: kernels.frames.new_ones(1)), ("with", corrected)):
            inference.border_factors = factors
            rng, rows = np.random.default_rng(0), []
            for file in files:
                frames, truth = draw_burst(file, level, rng)
                picture = burst.denoise_burst(network, burst.Burst(frames, level))
                bright = [edges(picture, d) / edges(truth, d) for d in DISTANCES]
                rows.append([*bright, psnr(picture, truth, True), psnr(picture, truth, False)])
            print(level, name, *(f"{value:.3f}" for value in np.mean(rows, 0)), flush=True)


if __name__ == "__main__":
    main()
