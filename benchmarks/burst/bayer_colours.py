"""Quality on Bayer frames, filtered as planes and as RGB: bursts as raw files, through `burst denoise`; PSNR in dB.

Frames of `rgb-still` and `rgb-moving` (seed 7), in the colours of a camera whose red is half and whose blue two thirds
of green, as RGGB DNGs of 16 bits that are not cut off at black, with the noise of the gains of the protocol in their
tags. Colours are compared after white balance, as displayed, with the light before the mosaic. Rows: the reference, and
`--bayer planes`, both with their colours interpolated as developed pictures have them (Malvar) and by cokriging;
`--bayer rgb`, by the network that comes along for interpolated frames (or that of --checkpoint) and by `swift`, which
was taught on white noise; the command as it chooses. Differences are of the same bursts, with 95 % intervals (Student's
t); least: of a burst. Blocks of 32 x 32: how many are at most 1.02 times as wrong as the reference, interpolated
likewise.

    python benchmarks/burst/bayer_colours.py FOLDER [--count 24] [--gain 1 --gain 4] [--motion still --motion moving]
        [--exposure 1] [--small] [--lines FILE] [--camera-colours] [--checkpoint NETWORK]

--exposure: the scale of light; without it, that of the protocol, drawn for each burst between .1 and 1. --small: frames
of 144 x 192 pixels instead of 224 x 352. --lines: a JSON line a burst, appended; what it has is not made again.
--camera-colours: as x_trans.py says.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from scipy.stats import t as student

import denoise as raw
from command_quality import BLACK, LEVELS, WHITE
from klarsicht.burst.data.bayer import sample_mosaic, to_mosaic
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising.interpolated_frames import interpolate_window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.merging.filter_choice import choose_bayer_colour
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.benchmark_sets import KODAK, BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel
from x_trans import BALANCE, GEOMETRY, LEAST, blocks, seen_by_camera

Light = npt.NDArray[np.float32]


def write(
    folder: Path, frames: Light, level: NoiseLevel, rng: np.random.Generator, hot: Light | float = 0.0
) -> list[Path]:
    """Write DNGs of noisy samples, with their NoiseProfile. hot: what each sample of the sensor (H, W) has too much."""
    files = [folder / f"{i}.dng" for i in range(len(frames))]
    own = {**LEVELS, 50728: (1, 2, 1, 1, 2, 3), 51041: (level.shot, level.read**2)}
    tags = [(*tag[:3], own.get(tag[0], tag[3]), tag[4]) for tag in raw.tags()]  # type: ignore[call-overload]
    for file, frame in zip(files, frames, strict=True):
        noisy = to_mosaic(level.sample(sample_mosaic(frame), rng)) + hot
        codes = np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE).astype(np.uint16)
        tifffile.imwrite(file, codes, photometric=32803, extratags=tags, metadata=None)
    return files


def developed(spool: FrameStore, renderer: Renderer) -> tuple[Light, Light]:
    """The colours of the camera (3, H, W) of planes, by the renderer's filters and by cokriging."""
    h, w = spool.size
    return (
        renderer.linear_window(Window(0, 2 * h, 0, 2 * w)),
        interpolate_window(spool, renderer.frame, Window(0, h, 0, w), renderer.header, 2.0),
    )


def pictures(files: list[Path], checkpoint: str | None) -> tuple[dict[str, Light], dict[str, float]]:
    """The pictures by row, and what they took in CPU seconds. checkpoint: of the row rgb."""
    found, cost = {}, {}
    for way, network in (("planes", None), ("rgb", checkpoint), ("rgb, swift", "swift")):
        start = time.process_time()
        settings = DenoiseSettings(reference="1", threads=1, bayer=way.split(",")[0], checkpoint=network)
        with denoise_frames(files, files[0].parent / "out.dng", settings) as result:
            cost[way] = time.process_time() - start
            renderer = Renderer(result.spool, result.burst.header)
            if way != "planes":
                found[way] = renderer.linear_window(Window(0, renderer.header.size[0], 0, renderer.header.size[1]))
                continue
            before = renderer.for_other_frame(result.burst.spool, result.frame_numbers[0], 1.0)
            found["reference"], found["reference, cokriging"] = developed(result.burst.spool, before)
            found["planes"], found["planes, cokriging"] = developed(result.spool, renderer)
    return found, cost


def measured(made: BenchmarkSet, k: int, gain: int, asked: argparse.Namespace) -> dict[str, Any]:
    """The scores of one burst, by row."""
    level = GAINS[gain]
    w = float(made.exposure(k, True)) if asked.exposure is None else asked.exposure
    clean = seen_by_camera(made.frames[k], k) if asked.camera_colours else made.frames[k]
    frames = clean * np.float32(w) / BALANCE
    with tempfile.TemporaryDirectory() as name:
        found, cost = pictures(write(Path(name), frames, level, np.random.default_rng([3, k, gain])), asked.checkpoint)
    truth = clean[0] * np.float32(w)
    scores = {row: psnr(tone_mapped(x * BALANCE, w), tone_mapped(truth, w)) for row, x in found.items()}
    kept = {
        way: float(np.mean(error(found[way], truth) <= LEAST * error(found[reference], truth)))
        for way, reference in (("planes", "reference"), ("rgb", "reference, cokriging"))
    }
    light = float(sample_mosaic(frames[0]).mean())
    deviation = float(level.deviation(light))
    chosen = "rgb" if choose_bayer_colour(None, None, deviation / light) == "rgb" else "planes"
    scores["chosen"] = scores[chosen]
    return {"exposure": w, "light": light, "deviation": deviation, "scores": scores, "kept": kept, "cost": cost}


def error(light: Light, truth: Light) -> Light:
    """Mean square errors of blocks."""
    return blocks(np.square(light * BALANCE - truth))


def interval(values: npt.NDArray[np.float64]) -> str:
    """Mean with its 95 % interval, and the least."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.2f} ± {half:.2f} ({values.min():+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--motion", action="append")
    parser.add_argument("--exposure", type=float)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--lines", type=Path)
    parser.add_argument("--camera-colours", action="store_true")
    parser.add_argument("--checkpoint")
    asked = parser.parse_args()
    geometry = GEOMETRY if asked.small else KODAK
    book = read_folder(asked.photographs, geometry).photographs[: asked.count]
    kept_lines = asked.lines.read_text().splitlines() if asked.lines and asked.lines.exists() else []
    lines = [json.loads(line) for line in kept_lines]
    known = {(one["motion"], one["gain"], one["photograph"]): one for one in lines}
    columns = ("reference", "planes", "planes, cokriging", "rgb, swift", "rgb")
    differences = (("rgb", "rgb, swift"), ("rgb", "planes"), ("chosen", "planes"))
    heads = [*columns, *(f"{one} - {other} (least)" for one, other in differences)]
    print(f"| motion, gain | {' | '.join(heads)} | blocks kept: planes, rgb |\n" + "|---" * (len(heads) + 2) + "|")
    for motion in asked.motion or ("still", "moving"):
        made = benchmark_set(f"rgb-{motion}", book, 7, geometry)
        for gain in asked.gain or list(GAINS):
            rows = []
            for k in range(len(book)):
                if (motion, gain, k) not in known:
                    one = measured(made, k, gain, asked)
                    known[motion, gain, k] = {"motion": motion, "gain": gain, "photograph": k, **one}
                    if asked.lines:
                        with asked.lines.open("a") as file:
                            file.write(json.dumps(known[motion, gain, k]) + "\n")
                rows.append(known[motion, gain, k])
            scores = {row: np.array([one["scores"][row] for one in rows]) for row in rows[0]["scores"]}
            cells = " | ".join(f"{scores[row].mean():.2f}" for row in columns)
            more = " | ".join(interval(scores[one] - scores[other]) for one, other in differences)
            kept = ", ".join(f"{np.mean([one['kept'][way] for one in rows]):.2%}" for way in ("planes", "rgb"))
            print(f"| {motion}, {gain} | {cells} | {more} | {kept} |", flush=True)


if __name__ == "__main__":
    main()
