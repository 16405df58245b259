"""Twice the resolution from a raw burst: samples of shifted frames on a finer grid, beside interpolating the result.

Bursts of eight RGGB frames of crops of photographs: light at twice the resolution, by a camera that shifts and turns by
hand while a patch moves, averaged over the area of each pixel, with noise of the gains of the protocol, as DNGs. The
command's result is enlarged by two (Lanczos, bicubic). Ways to more:

accumulated   samples of all frames, laid where the command's alignment has them, weighted by a Gaussian of their
              distance and by the trust of their tile (after Wronski et al. 2019)
refined       the enlarged result (Lanczos), corrected by what samples differ from it: relative to the light, weighted
              by distance and inverse variance, without samples around which a frame shows something else, and shrunk by
              what noise alone would leave (Wiener)

PSNR of colours as displayed against the light at twice the resolution, over the whole picture and over the path of the
patch. False detail: mean square of the difference from the truth's detail, over that of the truth's detail, where
detail is what a mean over 3 x 3 pixels takes away; without any detail it is 1.

    python benchmarks/burst/doubled_resolution.py FOLDER [--count 8] [--gain 1 --gain 4] [--seed 1] [--blur 0.75]

--blur: deviation of the lens's Gaussian blur, in pixels of the fine grid; the truth is blurred, too. At 0.75 half of
the contrast is left at the finest lines that the sensor resolves. Last columns: less Lanczos, with a 95 % interval over
photographs, and the least.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, uniform_filter
from scipy.stats import t as student

import denoise as raw
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import pipeline
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.quality import measure_quality
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel
from merging_ways import BALANCE, SIZE, Light, draw_colours, read_scene, write_burst

SHIFT = 3.0  # deviation from frame to frame, in pixels of the fine grid
REACH = 2  # pixels of the fine grid around a sample that it is laid on
OUTLIER = 3.0  # deviations of the noise, beyond which a difference counts less
MOST_APART = 1.5  # mean square of differences around a sample, in variances of noise and of the scene there
APART_BOX = 7  # side of the window of that mean, in pixels of the sensor
NOISE_KEPT = 0.5  # variance of a weighted mean over the inverse of its weights: those of a Gaussian, squared
SHRINK_BOX = 15  # side of the window, in pixels of the fine grid, over which a correction is shrunk
DARKEST = 0.02  # light, down to which detail goes with it
FEW = 0.05  # weight of samples at which an accumulated picture is half the enlarged one
SAMPLE_WIDTH, DETAIL_WIDTH = 0.7, 0.6  # deviations of the weights, in pixels of the fine grid
SIDE = 2  # pixels of the fine grid along one of the sensor


def draw_fine_burst(light: Light, seed: int, blur: float) -> tuple[Light, Light, npt.NDArray[np.bool_]]:
    """Draw mosaics (N, h, w) without noise, the true colours (3, H, W) of the first at twice their resolution, and the
    path of the patch (H, W). blur: deviation of the lens's, in pixels of the fine grid."""
    (H, W), mosaics = SIZE, []
    frames, places = zip(*draw_colours(light, seed, SHIFT), strict=True)
    frames = [gaussian_filter(rgb, (0, blur, blur)) if blur else rgb for rgb in frames]
    for rgb in frames:
        coarse = rgb.reshape(3, H // SIDE, SIDE, W // SIDE, SIDE).mean((2, 4))
        mosaics.append(np.take_along_axis(coarse, colour_numbers(coarse.shape[1:])[None], 0)[0])
    return np.stack(mosaics).astype(np.float32), frames[0].astype(np.float32), np.any(places, 0)


def colour_numbers(size: tuple[int, ...]) -> npt.NDArray[np.int64]:
    y, x = np.indices(size)
    return np.array([[0, 1], [1, 2]])[y % 2, x % 2]


def displacements(placement: Placement, k: int, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return where frame k shows what the reference shows at a pixel, less that pixel, (2, h, w), blended of tiles."""
    ends = []
    for side in size:
        p = np.arange(side)
        later = 0.5 - 0.5 * np.cos(np.pi * (p % STEP + 0.5) / STEP)
        ends.append(((p // STEP, 1 - later), (p // STEP + 1, later)))
    out, (y, x) = np.zeros((2, *size)), np.indices(size)
    for row, down in ends[0]:
        for column, across in ends[1]:
            tiles = (k, row[:, None], column[None])
            off = np.stack([y - row[:, None] * STEP + 0.5, x - column[None] * STEP + 0.5], -1)
            place = placement.fine[tiles] + np.einsum("yxij,yxj->yxi", placement.turns[tiles], off)
            out += (down[:, None] * across[None] * place.transpose(2, 0, 1)).astype(float)
    return out


def sample_places(placement: Placement, k: int, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return the places (2, h, w) in the fine grid of the reference that the samples of frame k show."""
    field, s = displacements(placement, k, size), np.indices(size).astype(float)
    p = s - field
    for _ in range(2):
        p = s - np.stack([map_coordinates(one, p, order=1, mode="nearest") for one in field])
    return SIDE * p + (SIDE - 1) / 2


class Accumulator:
    """Sums of values and weights on the fine grid: of samples laid around their places, weighted by a Gaussian."""

    def __init__(self, planes: int, width: float) -> None:
        self.width = width
        self.sums, self.weights = (np.zeros((planes, SIZE[0] * SIZE[1])) for _ in range(2))

    def add(self, plane: int, places: npt.NDArray[np.float64], values: Light, trust: Light) -> None:
        """Add samples (n,) at places (2, n); trust: a factor on each."""
        corner = np.rint(places).astype(np.int64)
        for dy in range(-REACH, REACH + 1):
            for dx in range(-REACH, REACH + 1):
                q = corner + np.array([[dy], [dx]])
                distance = np.square(q - places).sum(0)
                w = trust * np.exp(-distance / (2 * self.width**2))
                w = w * ((q >= 0).all(0) & (q[0] < SIZE[0]) & (q[1] < SIZE[1]))
                at = np.clip(q[0], 0, SIZE[0] - 1) * SIZE[1] + np.clip(q[1], 0, SIZE[1] - 1)
                for sums, one in ((self.sums, w * values), (self.weights, w)):
                    sums[plane] += np.bincount(at, one, SIZE[0] * SIZE[1])

    def mean(self, prior: Light, strength: float) -> Light:
        """Return the means (planes, H, W), drawn to a prior by so much weight."""
        return ((self.sums + strength * prior.reshape(len(prior), -1)) / (self.weights + strength)).reshape(-1, *SIZE)


def enlarge(picture: Light, how: Image.Resampling) -> Light:
    """Enlarge planes (3, h, w) by two."""
    size = (SIZE[1], SIZE[0])
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, how)) for plane in picture])


def false_detail(picture: Light, truth: Light) -> float:
    """Compute the mean square of what detail differs, over that of the true detail, of colours as displayed."""
    one, other = (np.clip(x / BALANCE[:, None, None], 0, 1) ** (1 / 2.2) for x in (picture, truth))
    own, true = (x - uniform_filter(x, (0, 3, 3)) for x in (one, other))
    return float(np.square(own - true).mean() / np.square(true).mean())


class Samples:
    """Noisy samples of a burst's frames, their places in the fine grid and their trust."""

    def __init__(self, frames: Light, placement: Placement, numbers: list[int]) -> None:
        size = frames.shape[1:]
        self.colours = colour_numbers(size)
        agreement = placement.agreement(Window(0, size[0], 0, size[1]), size)
        self.frames = []
        for k, number in enumerate(numbers):
            places = sample_places(placement, k, size)
            near = (places - (SIDE - 1) / 2) / SIDE
            trust = map_coordinates(agreement[k], near, order=1, mode="nearest")
            self.frames.append((frames[number], places, trust))

    def choose(self, planes: list[Light]) -> Light:
        """Choose the value of each sample's own colour, (h, w), of three planes."""
        return np.take_along_axis(np.stack(planes), self.colours[None], 0)[0]


def accumulate(samples: Samples, prior: Light, width: float = SAMPLE_WIDTH) -> Light:
    """Lay the samples of all frames on the fine grid; where there are few, the prior stands."""
    sums = Accumulator(3, width)
    for frame, places, trust in samples.frames:
        for c in range(3):
            own = samples.colours == c
            sums.add(c, places[:, own], frame[own], trust[own])
    return np.asarray(sums.mean(prior, FEW), np.float32)


def refine(samples: Samples, start: Light, level: NoiseLevel, width: float = DETAIL_WIDTH) -> Light:
    """Correct the enlarged result by what samples differ from it, relative to the light and in all colours alike, as
    detail is mostly grey."""
    corner = (0, -1, -1)  # a sensor's pixel covers the pixels p and p + 1
    seen = uniform_filter(start, (0, SIDE, SIDE), mode="nearest", origin=corner)
    mean_seen = uniform_filter(seen, (0, 5, 5), mode="nearest")
    texture = np.maximum(uniform_filter(np.square(seen), (0, 5, 5), mode="nearest") - np.square(mean_seen), 0)
    sums = Accumulator(1, width)
    for k, (frame, places, trust) in enumerate(samples.frames):
        at = places - 0.5
        expected, spread = (
            samples.choose([map_coordinates(plane, at, order=order, mode="nearest") for plane in planes])
            for planes, order in ((seen, 3), (texture, 1))
        )
        variance = np.asarray(level.variance(np.maximum(expected, 0)))
        off = frame - expected
        if k:
            odd = uniform_filter(np.square(off) / (variance + spread), APART_BOX, mode="nearest")
            trust = trust * (odd < MOST_APART)
        robust = np.minimum(1, OUTLIER**2 * variance / np.maximum(np.square(off), 1e-12))
        scale = np.maximum(expected, DARKEST * BALANCE[samples.colours])
        precision = trust * robust * np.square(scale) / variance
        sums.add(0, places.reshape(2, -1), (off / scale).ravel(), precision.ravel())
    weight, total = sums.weights.reshape(SIZE), sums.sums.reshape(SIZE)
    mean = total / np.maximum(weight, 1e-9)
    noise = NOISE_KEPT / np.maximum(weight, 1e-9)
    energy, left = (uniform_filter(x, SHRINK_BOX, mode="nearest") for x in (np.square(mean), noise))
    share = np.clip(1 - left / np.maximum(energy, 1e-12), 0, 1)
    light = np.maximum(start, DARKEST * BALANCE[:, None, None])
    return np.asarray(start + (share * mean)[None] * light, np.float32)


def ways(samples: Samples, light: Light, level: NoiseLevel) -> dict[str, Light]:
    """Return the pictures of all ways, (3, H, W), of the command's result (3, h, w)."""
    start = enlarge(light, Image.Resampling.LANCZOS)
    return {
        "Lanczos": start,
        "bicubic": enlarge(light, Image.Resampling.BICUBIC),
        "accumulated": accumulate(samples, start),
        "refined": refine(samples, start, level),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blur", type=float, default=0.75)
    asked = parser.parse_args()
    files = sorted(f for f in asked.folder.iterdir() if f.suffix.lower() in (".jpg", ".png"))[: asked.count]
    print("| gain, way | PSNR | on the path | false detail | PSNR gained (95 %), least | on the path (95 %), least |")
    print("|---|---|---|---|---|---|")
    for gain in asked.gain or (1, 4):
        rows: dict[str, list[tuple[float, float, float]]] = {}
        level = GAINS[gain]
        for k, file in enumerate(files):
            mosaics, truth, path = draw_fine_burst(read_scene(file), asked.seed + k, asked.blur)
            with tempfile.TemporaryDirectory() as name:
                write_burst(Path(name), mosaics, level, asked.seed + k)
                frames = sorted(Path(name).iterdir())
                settings = DenoiseSettings(reference="0.dng", threads=1, bayer="rgb")
                with pipeline.denoise_frames(frames, Path(name) / "out.dng", settings) as result:
                    light = result.spool.read_window(0, Window(0, result.spool.size[0], 0, result.spool.size[1]))[:3]
                    counts = np.stack([tifffile.imread(frame).astype(np.float32) for frame in frames])
                    noisy = (counts - raw.BLACK) / (raw.WHITE - raw.BLACK)
                    samples = Samples(noisy, result.placement, list(result.frame_numbers))
            for way, picture in ways(samples, light, level).items():
                shown = [(x / BALANCE[:, None, None]).astype(np.float32) for x in (picture, truth)]
                found = measure_quality(shown[0], shown[1], 1.0, path)
                values = (found.psnr, float(found.on_path or 0), false_detail(picture, truth))
                rows.setdefault(way, []).append(values)
        for way in rows:
            values, start = (np.array(rows[one]) for one in (way, "Lanczos"))
            psnr, on_path, false = values.mean(0)
            gained = [interval(column) for column in (values - start).T[:2]]
            print(f"| {gain} {way} | {psnr:.2f} | {on_path:.2f} | {false:.3f} | {' | '.join(gained)} |", flush=True)


def interval(values: npt.NDArray[np.float64]) -> str:
    """Say the mean of values, half its 95 % interval by Student's t, and the least."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.2f} ± {half:.2f}, {values.min():+.2f}"


if __name__ == "__main__":
    main()
