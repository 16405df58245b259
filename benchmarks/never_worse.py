"""Is a denoised burst ever worse than its reference frame? Blocks of 32 x 32, by what happened while it was taken.

The promise: mean square error to the truth at most 1.02 times that of the reference, in at least 99.9 % of the blocks;
counted apart where something moved. Synthetic bursts of eight frames of photographs, exposure 1, noise of the gains of
the protocol, through the code of the command, files included.

    python benchmarks/never_worse.py [--photographs FOLDER] [--checkpoint NETWORK] [--gain 1 --gain 4] [--count 12]
        [--only CASE]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.photographs import packaged_photographs, read_folder
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

BLOCK, LEAST, PROMISE = 32, 1.02, 0.999
CODE = 1 / 65535  # of the files: a smaller error is none
Light = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Case:
    """Clean frames (N, H, W) of what happened, the first the truth, and where it happened (H, W). clipped: files of
    16 bits, that end at black and at white. hot: (H, W), added to every frame."""

    frames: Light
    path: npt.NDArray[np.bool_]
    clipped: bool = False
    hot: Light | None = None


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean square errors of blocks (Y, X), of the result and the reference; where something happened; what was used."""

    result: Light
    reference: Light
    path: npt.NDArray[np.bool_]
    trusted: float


def flicker(frames: Light, rng: np.random.Generator) -> Case:
    """Whole frames by up to 15 %, and a lamp over a third of the picture by 30 % in every second frame."""
    lit = frames * rng.uniform(0.87, 1.15, (len(frames), 1, 1)).astype(np.float32)
    lit[0], there = frames[0], slice(frames.shape[2] // 3, 2 * frames.shape[2] // 3)
    lit[1::2, :, there] *= np.float32(0.7)
    path = np.zeros(frames.shape[1:], bool)
    path[:, there] = True
    return Case(lit, path)


def dropped(frames: Light, other: Light) -> Case:
    """One frame is black, another stands twice."""
    seen = frames.copy()
    seen[3], seen[5] = 0, seen[4]
    return Case(seen, _nowhere(frames))


def another_scene(frames: Light, other: Light) -> Case:
    seen = frames.copy()
    seen[3] = other * (frames[0].mean() / other.mean())
    return Case(seen, _nowhere(frames))


def hot_pixels(frames: Light, rng: np.random.Generator) -> Case:
    """One pixel in a thousand of the sensor is too bright by .1 to 1, in every frame."""
    hot = np.where(rng.random(frames.shape[1:]) < 1e-3, rng.uniform(0.1, 1, frames.shape[1:]), 0).astype(np.float32)
    return Case(frames, hot > 0, hot=hot)


def saturated(frames: Light, rng: np.random.Generator) -> Case:
    """Three times as bright, and cut off at white; files of 16 bits."""
    bright = 3 * frames
    return Case(bright, bright[0] >= 1, clipped=True)


def _nowhere(frames: Light) -> npt.NDArray[np.bool_]:
    return np.zeros(frames.shape[1:], bool)


def cases(sets: dict[str, BenchmarkSet], k: int) -> dict[str, Callable[[], Case]]:
    """By name, of photograph k."""
    still, other = sets["still"].frames[k, :, 0], sets["still"].frames[k - 1, 0, 0]

    def moved(motion: str) -> Callable[[], Case]:
        return lambda: Case(sets[motion].frames[k, :, 0], sets[motion].paths[k])

    def drawn(make: Callable[[Light, np.random.Generator], Case]) -> Callable[[], Case]:
        return lambda: make(still, np.random.default_rng([11, k]))

    return {
        "still": moved("still"),
        "shaken": moved("shaken"),
        "something moves": moved("moving"),
        "something comes or goes": moved("occluded"),
        "flicker": drawn(flicker),
        "a dropped frame": lambda: dropped(still, other),
        "a frame of another scene": lambda: another_scene(still, other),
        "hot pixels": drawn(hot_pixels),
        "saturated lights": drawn(saturated),
        "one frame": lambda: Case(still[:1], _nowhere(still)),
    }


def measured(case: Case, level: NoiseLevel, checkpoint: str | None, seed: int) -> Errors:
    rng, truth = np.random.default_rng([seed, 13]), case.frames[0]
    noisy = level.sample(case.frames, rng) + (0 if case.hot is None else case.hot)
    if case.clipped:
        noisy, truth = np.clip(noisy, 0, 1), np.clip(truth, 0, 1)
    settings = DenoiseSettings(
        checkpoint=checkpoint, noise=f"{level.read},{level.shot}", reference="1", linear=True, threads=1
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.tif" for i in range(len(noisy))]
        for file, frame in zip(files, noisy, strict=True):
            tifffile.imwrite(file, np.rint(frame * 65535).astype(np.uint16) if case.clipped else frame)
        with denoise_frames(files, Path(folder) / "out.tif", settings) as found:
            result, trusted = found.spool.read_window(0, Window(0, truth.shape[0], 0, truth.shape[1]))
    result = np.clip(result, 0, 1) if case.clipped else result
    errors = (blocks(np.square(picture - truth)) for picture in (result, noisy[0]))
    return Errors(*errors, blocks(case.path.astype(np.float32)) > 0, float(trusted.mean()))


def blocks(values: Light) -> Light:
    Y, X = (side // BLOCK for side in values.shape)
    means: Light = values[: Y * BLOCK, : X * BLOCK].reshape(Y, BLOCK, X, BLOCK).mean((1, 3))
    return means


def row(name: str, found: list[Errors]) -> str:
    result, reference, path = (np.stack([getattr(e, key) for e in found]) for key in ("result", "reference", "path"))
    ratio = np.maximum(result, CODE**2) / np.maximum(reference, CODE**2)
    gained = np.mean([10 * np.log10(e.reference.mean() / e.result.mean()) for e in found])
    parts = [part(ratio[where]) for where in (~path, path)]
    return f"| {name} | {' | '.join(parts)} | {gained:+.2f} | {np.mean([e.trusted for e in found]):.0%} |"


def part(ratio: Light) -> str:
    """Blocks that keep the promise, of all; the worst."""
    if not ratio.size:
        return "| "
    kept = int((ratio <= LEAST).sum())
    return f"{kept} of {ratio.size} ({kept / ratio.size:.2%}) | {ratio.max():.2f}"


def rows(
    count: int, photographs: Path | None, gain: int, checkpoint: str | None, only: list[str] | None
) -> Iterator[str]:
    book = read_folder(photographs) if photographs else packaged_photographs()
    pictures = book.photographs[:count]
    sets = {
        m: benchmark_set(f"grey-{m}", pictures, 7, book.geometry) for m in ("still", "shaken", "moving", "occluded")
    }
    for name in only or cases(sets, 0):
        made = [cases(sets, k)[name]() for k in range(len(pictures))]
        yield row(name, [measured(case, GAINS[gain], checkpoint, k) for k, case in enumerate(made)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--only", action="append", help="what happened, as the table says")
    asked = parser.parse_args()
    for gain in asked.gain or (1, 4):
        print(f"\nGain {gain}, {Path(asked.checkpoint).name if asked.checkpoint else 'the mean of the frames'}\n")
        print("| what happened | blocks kept, elsewhere | worst | blocks kept, there | worst | gained, dB | trusted |")
        print("|---|---|---|---|---|---|---|")
        for line in rows(asked.count, asked.photographs, gain, asked.checkpoint, asked.only):
            print(line, flush=True)


if __name__ == "__main__":
    main()
