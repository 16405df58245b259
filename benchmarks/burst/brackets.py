"""Gain in dB of exposure brackets over their reference, beside that of the weighted mean of least variance.

Photographs, blurred as by a lens (a Gaussian of 0.7 pixels), at half the light of white, as three Bayer DNGs of 14 bits
at a quarter, once and four times an exposure, on a tripod or moved by three pixels, through `burst denoise`. PSNR in dB
of the planes of the result, as displayed, less that of the reference; of all pixels, and of dark lines: pixels below
half the mean of 9 x 9 around them. At hand: noise of the least variance of a weighted mean of the frames that are not
white there. Exposures: the largest error of a frame's, relative to the reference.

    python benchmarks/burst/brackets.py FOLDER [--count 12] [--first 0]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter
from tests.burst.conftest import write_dng

from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import reading
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.imaging.tone import inverse_tone_curve, tone_curve

TIMES, LEVEL = (0.25, 1.0, 4.0), NoiseLevel(0.004, 8e-4)
BLACK, WHITE, SIZE = 1024, 16383, (224, 256)
BLUR, LIGHT, MOVE = 0.7, 0.5, 3  # pixels; share of white; pixels
CELL = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2))  # row, column, colour of RGGB
Values = npt.NDArray[Any]


def views(photograph: Path, moved: bool) -> list[Values]:
    """Mosaics of three frames, reduced by means of whole blocks."""
    codes = np.asarray(Image.open(photograph).convert("RGB")) / 255
    light = LIGHT * np.asarray(inverse_tone_curve(codes))
    k = min(light.shape[0] // (SIZE[0] + 8), light.shape[1] // (SIZE[1] + 8))
    light = gaussian_filter(light, (BLUR * k, BLUR * k, 0))
    y, x = ((room - k * side) // 2 for room, side in zip(light.shape[:2], SIZE, strict=True))
    out = []
    for dy, dx in [(0, 0), (2 * k + 1, -MOVE * k), (-2 * k, k + 1)] if moved else [(0, 0)] * 3:
        part = light[y + dy : y + dy + k * SIZE[0], x + dx : x + dx + k * SIZE[1]]
        rgb = part.reshape(SIZE[0], k, SIZE[1], k, 3).mean((1, 3))
        mosaic = np.empty(SIZE)
        for a, b, c in CELL:
            mosaic[a::2, b::2] = rgb[a::2, b::2, c]
        out.append(mosaic)
    return out


def psnr(picture: Values, truth: Values, where: Values) -> float:
    shown = (tone_curve(np.clip(x, 0, 1)) for x in (picture, truth))
    return float(-10 * np.log10(np.square(np.subtract(*shown))[:, where].mean()))


def measured(photograph: Path, moved: bool) -> list[float]:
    """Gain and gain at hand, the same in dark lines, and the largest error of an exposure."""
    mosaics = views(photograph, moved)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "burst"
        folder.mkdir()
        for i, (mosaic, t) in enumerate(zip(mosaics, TIMES, strict=True)):
            noisy = LEVEL.sample((mosaic * t).astype(np.float32), np.random.default_rng(100 + i))
            counts = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE)
            tag = [(33434, 5, 1, (round(1000 * t), 100_000), True)]
            profile = (LEVEL.shot, LEVEL.read**2)
            write_dng(folder / f"{i}.dng", counts, black=BLACK, white=WHITE, profile=profile, extra=tag)
        files = reading.list_frames([folder])
        with denoise_frames(files, Path(name) / "o.dng", DenoiseSettings(threads=1, reference="1.dng")) as found:
            everywhere = Window(0, SIZE[0] // 2, 0, SIZE[1] // 2)
            picture = found.spool.read_window(0, everywhere)[:4]
            gains = [frame.gain for frame in found.burst.frames]
        own = reading.read(files[1]).light
    truth = to_planes(mosaics[1].astype(np.float32))
    precision = [np.where(truth * t < 1, t**2 / (LEVEL.read**2 + LEVEL.shot * truth * t), 0) for t in TIMES]
    drawn = np.random.default_rng(7).standard_normal(truth.shape)
    ideal = truth + drawn / np.sqrt(np.maximum(sum(precision), 1e-6))
    grey, anywhere = truth.mean(0), np.ones(truth.shape[1:], bool)
    dark = grey < 0.5 * uniform_filter(grey, 9)
    rows = []
    for where in (anywhere, dark if dark.any() else anywhere):
        base = psnr(own, truth, where)
        rows += [psnr(picture, truth, where) - base, psnr(ideal, truth, where) - base]
    wrong = max(abs(g * t / gains[1] - 1) for g, t in zip(gains, TIMES, strict=True))
    return [*rows, wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    files = sorted(f for f in asked.photographs.iterdir() if f.suffix.lower() in (".jpg", ".png"))
    files = [f for f in files if min(np.subtract(Image.open(f).size[::-1], SIZE)) >= 8][asked.first :][: asked.count]
    print(f"| {len(files)} photographs | gain (least, most) | at hand | dark lines (least) | at hand | exposures |")
    print("|---" * 6 + "|")
    for moved in (False, True):
        found = np.array([measured(file, moved) for file in files])
        gain, hand, dark, dark_hand, wrong = found.T
        cells = [f"{gain.mean():+.2f} ({gain.min():+.2f}, {gain.max():+.2f})", f"{hand.mean():+.2f}"]
        cells += [f"{dark.mean():+.2f} ({dark.min():+.2f})", f"{dark_hand.mean():+.2f}", f"{wrong.max():.1%}"]
        print(f"| {'moved' if moved else 'tripod'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
