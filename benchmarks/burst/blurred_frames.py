"""Gain in dB of bursts with one blurred frame, where it is dropped rather than merged.

Six frames of 176 x 176 pixels from the middle of a photograph, in linear light at 0.6 of white, turned by up to half a
degree and moved by up to four pixels; the last is blurred along its rows by 5 or 9 pixels, or by a Gaussian of one.
PSNR of linear light, with the threshold of `burst denoise` less that without it.

    python benchmarks/burst/blurred_frames.py FOLDER --numbers 13 14 15 16 17 18
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter, uniform_filter1d

from klarsicht.burst import DenoiseSettings, denoise
from klarsicht.burst.denoising import pipeline
from klarsicht.burst.files.loading import sharpness
from klarsicht.numerics.imaging.tone import inverse_tone_curve

SIDE, EDGE, FRAMES, LIGHT, BORDER = 176, 16, 6, 0.6, 12  # pixels; pixels; frames; share of white; pixels not measured
NOISE = ((0.006, 0.002), (0.02, 0.012))  # deviation of the read noise, and shot coefficient
BLURS = (5, 9, -1)  # pixels along a row; negative: deviation of a Gaussian
Values = npt.NDArray[Any]


def read_light(path: Path) -> Values:
    light = LIGHT * np.asarray(inverse_tone_curve(np.asarray(Image.open(path).convert("RGB")) / 255.0))
    y, x = ((side - SIDE) // 2 - EDGE for side in light.shape[:2])
    return light[y : y + SIDE + 2 * EDGE, x : x + SIDE + 2 * EDGE]


def move(light: Values, degrees: float, dy: float, dx: float) -> Values:
    turn, middle = np.deg2rad(degrees), np.array(light.shape[:2]) / 2
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    offset = middle - matrix @ middle + np.array([dy, dx])
    planes = [affine_transform(light[..., c], matrix, offset, order=3, mode="reflect") for c in range(3)]
    moved: Values = np.stack(planes, -1)
    return moved


def blur(light: Values, by: int) -> Values:
    out: Values = uniform_filter1d(light, by, axis=1) if by > 0 else gaussian_filter(light, (-by, -by, 0))
    return out


def detail(frame: Values) -> float:
    return sharpness(frame.transpose(2, 0, 1)) * float(frame.mean()) ** 2


def merge(frames: list[Values], least: float) -> tuple[Values, bool]:
    """Return the photograph (H, W, 3) of the burst, and whether a frame was dropped."""
    pipeline.LEAST_SHARPNESS = least
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.tif" for i in range(len(frames))]
        for path, frame in zip(paths, frames, strict=True):
            tifffile.imwrite(path, frame, photometric="rgb")
        lines = list(denoise(paths, Path(folder) / "out.tif", DenoiseSettings(reference="1", threads=1)))
        return tifffile.imread(Path(folder) / "out.tif") / 65535, any(line.startswith("dropped") for line in lines)


def psnr(picture: Values, truth: Values) -> float:
    return float(-10 * np.log10(np.square(picture - truth)[BORDER:-BORDER, BORDER:-BORDER].mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--numbers", type=int, nargs="+", required=True)
    asked, least = parser.parse_args(), pipeline.LEAST_SHARPNESS
    for number in asked.numbers:
        light = read_light(asked.folder / f"kodim{number:02d}.png")
        for read, shot in NOISE:
            rng = np.random.default_rng(1000 * number + int(read * 1e4))
            motions = [(rng.uniform(-0.5, 0.5), *rng.uniform(-4, 4, 2)) for _ in range(FRAMES - 1)]
            seen = [light, *(move(light, *motion) for motion in motions)]
            noise = rng.normal(size=(FRAMES, SIDE, SIDE, 3))
            cut = [one[EDGE:-EDGE, EDGE:-EDGE].clip(0, None) for one in seen]
            sharp = [
                (one + n * np.sqrt(read**2 + shot * one)).astype(np.float32) for one, n in zip(cut, noise, strict=True)
            ]
            for by in BLURS:
                last = blur(seen[-1], by)[EDGE:-EDGE, EDGE:-EDGE].clip(0, None)
                last = (last + noise[-1] * np.sqrt(read**2 + shot * last)).astype(np.float32)
                (merged, _), (kept, dropped) = (merge([*sharp[:-1], last], one) for one in (0.0, least))
                share = detail(last) / detail(sharp[0])
                gain = psnr(kept, cut[0]) - psnr(merged, cut[0])
                told = f"detail {share:.2f}, dropped {dropped}, {gain:+.2f} dB"
                print(f"kodim{number:02d}, read noise {read}, blur {by}: {told}", flush=True)


if __name__ == "__main__":
    main()
