"""Is a denoised burst ever worse than its reference frame? Blocks of 32 x 32, by what happened while it was taken.

The promise: mean square error to the truth at most 1.02 times that of the reference, in at least 99.9 % of the blocks;
counted apart where something moved. --best: beside it, how many blocks are at most 1.1 times as wrong as the best of
reference, network alone and mean of the frames alone; how much network and mean alone gain; and what the command gains
over the best of the three of each photograph, with a 95 % interval, and the least. Synthetic bursts of eight frames of
photographs, exposure 1, noise of the gains of the protocol, through the code of the command, files included.

    python benchmarks/burst/never_worse.py [--photographs FOLDER] [--checkpoint NETWORK] [--gain 1 --gain 4]
        [--count 12] [--only CASE] [--best]
    python benchmarks/burst/never_worse.py --photographs DATA/imagenet-sample --kinds second --checkpoint swift --best

--kinds: of DATA/imagenet-sample, a group of photographs_by_kind.GROUPS, frames of 144 x 192 pixels. The last rows of a
gain are all cases by kind.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import tifffile

from command_quality import untested
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import pipeline
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.merging.filters import MeanFilter
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.photographs import PhotographSet, packaged_photographs, read_folder
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel
from photographs_by_kind import GROUPS, read_group

BLOCK, LEAST, PROMISE = 32, 1.02, 0.999
AS_GOOD = 1.1  # times the error of the best
DARK = 0.2  # of the light
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
    """Mean square errors of blocks (Y, X), of the result, the reference and, where asked for, the network alone and the
    mean of the frames alone; where something happened; what was used."""

    result: Light
    reference: Light
    path: npt.NDArray[np.bool_]
    trusted: float
    alone: tuple[Light, ...] = ()


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


def dark(frames: Light, other: Light) -> Case:
    """A fifth as bright, so that noise is cut off at black; files of 16 bits."""
    return Case(np.float32(DARK) * frames, _nowhere(frames), clipped=True)


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
        "dark": lambda: dark(still, other),
        "dark, and something moves": lambda: dark_path(sets["moving"], k),
        "one frame": lambda: Case(still[:1], _nowhere(still)),
    }


def dark_path(made: BenchmarkSet, k: int) -> Case:
    return replace(dark(made.frames[k, :, 0], made.frames[k, 0, 0]), path=made.paths[k])


def measured(case: Case, level: NoiseLevel, checkpoint: str | None, seed: int, best: bool) -> Errors:
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
        result, trusted = result_of(files, settings)
        alone = []
        if best:
            with untested():
                alone.append(result_of(files, settings)[0])
                with patch.object(pipeline, "select_filter", lambda *_: MeanFilter()):
                    alone.append(result_of(files, settings)[0])
    pictures = [np.clip(picture, 0, 1) if case.clipped else picture for picture in (result, noisy[0], *alone)]
    errors = [blocks(np.square(picture - truth)) for picture in pictures]
    path = blocks(case.path.astype(np.float32)) > 0
    return Errors(*errors[:2], path, float(trusted.mean()), tuple(errors[2:]))


def result_of(files: list[Path], settings: DenoiseSettings) -> Light:
    """The picture, and the trust in the burst."""
    with denoise_frames(files, files[0].parent / "out.tif", settings) as found:
        return found.spool.read_window(0, Window(0, found.spool.size[0], 0, found.spool.size[1]))


def blocks(values: Light) -> Light:
    Y, X = (side // BLOCK for side in values.shape)
    means: Light = values[: Y * BLOCK, : X * BLOCK].reshape(Y, BLOCK, X, BLOCK).mean((1, 3))
    return means


def row(name: str, found: list[Errors]) -> str:
    result, reference, path = (np.stack([getattr(e, key) for e in found]) for key in ("result", "reference", "path"))
    ratio = np.maximum(result, CODE**2) / np.maximum(reference, CODE**2)
    gained = np.mean([10 * np.log10(e.reference.mean() / e.result.mean()) for e in found])
    parts = [part(ratio[where]) for where in (~path, path)]
    line = f"| {name} | {' | '.join(parts)} | {gained:+.2f} | {np.mean([e.trusted for e in found]):.0%} |"
    if not found[0].alone:
        return line
    least = np.stack([np.minimum(e.reference, np.minimum(*e.alone)) for e in found])
    beside = np.maximum(result, CODE**2) / np.maximum(least, CODE**2)
    alone = [np.mean([10 * np.log10(e.reference.mean() / e.alone[k].mean()) for e in found]) for k in (0, 1)]
    whole = [10 * np.log10(min(x.mean() for x in (e.reference, *e.alone)) / e.result.mean()) for e in found]
    half = 1.96 * np.std(whole, ddof=1) / len(whole) ** 0.5 if len(whole) > 1 else np.nan
    over = f"{np.mean(whole):+.2f} ({np.mean(whole) - half:+.2f}, {np.mean(whole) + half:+.2f}), {min(whole):+.2f}"
    share = f"{(beside <= AS_GOOD).mean():.1%} ({beside.max():.1f})"
    return f"{line} {share} | {' | '.join(f'{gained:+.2f}' for gained in alone)} | {over} |"


def part(ratio: Light) -> str:
    """Blocks that keep the promise, of all; the worst."""
    if not ratio.size:
        return "| "
    kept = int((ratio <= LEAST).sum())
    return f"{kept} of {ratio.size} ({kept / ratio.size:.2%}) | {ratio.max():.2f}"


def rows(
    book: PhotographSet, gain: int, checkpoint: str | None, only: list[str] | None, best: bool, kinds: tuple[str, ...]
) -> Iterator[str]:
    pictures = book.photographs
    sets = {
        m: benchmark_set(f"grey-{m}", pictures, 7, book.geometry) for m in ("still", "shaken", "moving", "occluded")
    }
    everything = []
    for name in only or cases(sets, 0):
        made = [cases(sets, k)[name]() for k in range(len(pictures))]
        everything.append([measured(case, GAINS[gain], checkpoint, k, best) for k, case in enumerate(made)])
        yield row(name, everything[-1])
    for k, kind in enumerate(kinds):
        own = slice(len(pictures) * k // len(kinds), len(pictures) * (k + 1) // len(kinds))
        yield row(f"all of these: {kind}", [error for case in everything for error in case[own]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--checkpoint")
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--only", action="append", help="what happened, as the table says")
    parser.add_argument("--best", action="store_true", help="beside the best of reference, network and mean")
    parser.add_argument("--kinds", choices=list(GROUPS), help="the photographs of photographs_by_kind.GROUPS")
    asked = parser.parse_args()
    if asked.kinds:
        book = read_group(asked.photographs, asked.kinds)
    else:
        book = read_folder(asked.photographs) if asked.photographs else packaged_photographs()
        book = replace(book, photographs=book.photographs[: asked.count])
    for gain in asked.gain or (1, 4):
        print(f"\nGain {gain}, {Path(asked.checkpoint).name if asked.checkpoint else 'the mean of the frames'}\n")
        more = " as good as the best (worst) | network alone, dB | mean alone, dB | over the best (95 %), least |"
        counted = "blocks kept, elsewhere | worst | blocks kept, there | worst"
        print(f"| what happened | {counted} | gained, dB | trusted |{more if asked.best else ''}")
        print("|---" * (11 if asked.best else 7) + "|")
        for line in rows(book, gain, asked.checkpoint, asked.only, asked.best, tuple(GROUPS.get(asked.kinds, ()))):
            print(line, flush=True)


if __name__ == "__main__":
    main()
