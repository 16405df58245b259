"""Hot pixels found in Bayer bursts that do not move, and pixels called hot that are not.

Eight equal frames of each photograph of a folder (halved, in the colours of a drawn camera, red halved and blue two
thirds, exposure 1) as RGGB DNGs, with noise of so many times the variance of gain 1; one sample of the sensor in a
thousand is too bright by .1 to 1 (uniform) in every frame, or none is. Halved photographs have details in single
pixels, which optics would spread: more is called hot wrongly than a camera's frames would have.

    python benchmarks/burst/still_hot_pixels.py FOLDER [--variance .01 --variance 1] [--count 24]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from bayer_colours import write
from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.denoising import hot_pixels
from klarsicht.burst.files.loading import load_frames
from klarsicht.burst.synthesis.benchmark_sets import benchmark_set
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.numerics.imaging.sensor_noise import GAINS
from x_trans import BALANCE, GEOMETRY, seen_by_camera

SHARE, FRAMES, STRONG = 1e-3, 8, 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--variance", type=float, action="append")
    parser.add_argument("--count", type=int, default=24)
    asked = parser.parse_args()
    book = read_folder(asked.photographs, GEOMETRY)
    made = benchmark_set("rgb-still", book.photographs[: asked.count], 7, GEOMETRY)
    print(f"| variance over gain 1 | hot | found | hot by {STRONG} and more | found | wrong, none hot | wrong, hot |")
    print("|---" * 7 + "|")
    for variance in asked.variance or (0.01, 0.1, 1.0):
        level, found = GAINS[1].scale_variance(variance), []
        for k in range(len(made.frames)):
            clean = seen_by_camera(made.frames[k], k)[:1] / BALANCE
            size = clean.shape[-2:]
            rng = np.random.default_rng([5, k])
            hot = np.where(rng.random(size) < SHARE, rng.uniform(0.1, 1, size), 0).astype(np.float32)
            heights = to_planes(hot[None])[0]
            called = []
            for more in (0.0, hot):
                with tempfile.TemporaryDirectory() as name:
                    files = write(Path(name), np.repeat(clean, FRAMES, 0), level, np.random.default_rng([3, k]), more)
                    places = hot_pixels.find_hot_pixels(load_frames(files, Path(name), "1"), [level] * 4)
                    mask = np.zeros(heights.shape, bool)
                    mask[tuple(places.T)] = True
                    called.append(mask)
            strong, planted = heights > STRONG, heights > 0
            right = called[1] & planted
            wrong = [called[0].sum(), (called[1] & ~planted).sum()]
            found.append([planted.sum(), right.sum(), strong.sum(), (right & strong).sum(), *wrong])
        total = np.sum(found, 0)
        print(f"| {variance:g} | {' | '.join(map(str, total))} |", flush=True)


if __name__ == "__main__":
    main()
