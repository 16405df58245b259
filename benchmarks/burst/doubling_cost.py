"""Cost of `klarsicht burst denoise --double` beside the command without it: CPU seconds and peak memory of a process of
its own, reading and writing included.

A burst of raw frames (Bayer DNGs, 14 bits) of the drawn scene of `denoise.py`, shifted by halves of a pixel.

    python benchmarks/burst/doubling_cost.py [--megapixels 3] [--frames 8] [--ending dng] [--way double]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tifffile

import denoise as raw

REACH = 16  # fine pixels: most that a frame shifts
WAYS = {"single": [], "double": ["--double"]}


def write(folder: Path, megapixels: float, frames: int) -> None:
    """Write frames of a scene that is drawn at twice their resolution."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5) // 2 * 2
    height = round(width * 3 / 4) // 2 * 2
    wide = raw.scene(2 * (height + REACH), 2 * (width + REACH))
    for i in range(frames):
        rng = np.random.default_rng(i)
        dy, dx = rng.integers(0, 2 * REACH, 2) if i else (REACH, REACH)
        fine = wide[dy : dy + 2 * height, dx : dx + 2 * width]
        noisy = raw.LEVEL.sample(fine.reshape(height, 2, width, 2).mean((1, 3)), rng)
        counts = np.clip(np.rint(noisy * (raw.WHITE - raw.BLACK) + raw.BLACK), 0, raw.WHITE).astype(np.uint16)
        tifffile.imwrite(folder / f"{i:02}.dng", counts, photometric=32803, extratags=raw.tags(), metadata=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=3)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--ending", choices=("dng", "tif", "png"), default="dng")
    parser.add_argument("--way", choices=WAYS, action="append")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "burst").mkdir()
        write(folder / "burst", asked.megapixels, asked.frames)
        for way in asked.way or WAYS:
            words = ["burst", "denoise", str(folder / "burst"), "-o", str(folder / f"{way}.{asked.ending}")]
            wall, cpu, most = raw.measure([*words, "--bayer", "rgb", *WAYS[way]])
            per_pixel = cpu / asked.megapixels
            print(f"{way}: {wall:.0f} s, {cpu:.0f} CPU s, {per_pixel:.1f} CPU s a megapixel, {most:.2f} GB at most")


if __name__ == "__main__":
    main()
