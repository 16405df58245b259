"""Quality of ways to merge a raw burst, in dB and CPU seconds: the network, `--fast`, both as planes, and the mean.

Bursts of eight RGGB frames of crops of photographs, by a camera that shifts and turns by hand while a patch moves, with
noise of the gains of the protocol, as DNGs. PSNR of colours as displayed against the truth, over the whole picture and
over the path of the patch. The mean is that of the frames where their tiles agree, without tests of windows.

    python benchmarks/burst/merging_ways.py FOLDER [--count 8] [--gain 1 --gain 4] [--way full --way fast ...]
        [--seed 1] [--store FILE]

--store: a JSON file for the figures of every photograph, by gain and way.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from scipy.ndimage import map_coordinates

import denoise as raw
from klarsicht.burst.data.cokriging import cell_side, colour_numbers
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import pipeline
from klarsicht.burst.denoising.interpolated_frames import interpolate_window
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.merging import motion_check, sure
from klarsicht.burst.merging.filters import MeanFilter
from klarsicht.burst.quality import measure_quality
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

SIZE, FRAMES = (352, 480), 8
SHIFT, TURN = 1.5, np.radians(0.15)  # deviations from frame to frame: pixels, radians
PATCH = 64  # pixels: side of what moves
SPEED = 9  # pixels a frame
BALANCE = np.array([0.5, 1, 2 / 3], np.float32)  # of R, G, B in a neutral grey
SETTINGS = {
    "full": {},
    "fast": {"fast": True},
    "planes": {"bayer": "planes"},
    "fast planes": {"fast": True, "bayer": "planes"},
    "mean": {},
}
Light = npt.NDArray[np.float32]


def read_scene(file: Path) -> Light:
    """Return linear light (H, W, 3) of a photograph at half its size, 0.25 to 0.95 of white at its brightest."""
    picture = Image.open(file).convert("RGB")
    least = max((side + 64) / half for side, half in zip(SIZE, (picture.height / 2, picture.width / 2), strict=True))
    size = [round(side / 2 * max(1, least)) for side in picture.size]
    return (np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32) / 255) ** np.float32(2.2) * 0.95


def draw_colours(light: Light, seed: int, shift: float = SHIFT) -> Iterator[tuple[Light, npt.NDArray[np.bool_]]]:
    """Draw what each frame sees: its colours (3, H, W) without noise, and where the patch is in it (H, W). shift:
    deviation from frame to frame, in pixels."""
    rng, (H, W) = np.random.default_rng(seed), SIZE
    angles = np.cumsum(TURN * rng.standard_normal(FRAMES))
    shifts = np.cumsum(shift * rng.standard_normal((FRAMES, 2)), 0)
    centre, (y, x) = np.array(light.shape[:2]) / 2, np.indices(SIZE)
    for i in range(FRAMES):
        angle, (dy, dx) = angles[i] - angles[0], shifts[i] - shifts[0]
        v, u = y - H / 2, x - W / 2
        at_y = centre[0] + np.cos(angle) * v + np.sin(angle) * u + dy
        at_x = centre[1] - np.sin(angle) * v + np.cos(angle) * u + dx
        inside = (abs(y - H / 3) < PATCH / 2) & (abs(x - W / 3 - SPEED * i) < PATCH / 2)
        at_y, at_x = np.where(inside, y, at_y), np.where(inside, x + PATCH - SPEED * i, at_x)
        colours = [map_coordinates(light[..., c], (at_y, at_x), order=3, mode="mirror") for c in range(3)]
        yield np.clip(np.stack(colours), 0, 1) * BALANCE[:, None, None], inside


def draw_burst(light: Light, seed: int) -> tuple[Light, Light, npt.NDArray[np.bool_]]:
    """Draw mosaics (N, H, W) without noise, the true colours (3, H, W) of the first, and the path (H, W)."""
    frames, places = zip(*draw_colours(light, seed), strict=True)
    y, x = np.indices(SIZE)
    numbers = np.array([[0, 1], [1, 2]])[y % 2, x % 2]
    mosaics = [np.take_along_axis(rgb, numbers[None], 0)[0] for rgb in frames]
    return np.stack(mosaics).astype(np.float32), frames[0].astype(np.float32), np.any(places, 0)


def write_burst(folder: Path, mosaics: Light, level: NoiseLevel, seed: int, cell: str = "RGGB") -> None:
    """Write noisy frames behind a mosaic of that cell as DNGs, the first of which is the reference."""
    side, colours = cell_side(cell), bytes(colour_numbers(cell).astype(np.uint8).ravel())
    own = {
        50728: (3, (1, 2, 1, 1, 2, 3)),
        51041: (2, (level.shot, level.read**2)),
        33421: (2, (side, side)),
        33422: (len(cell), colours),
        50713: (2, (side, side)),
        50714: (len(cell), (raw.BLACK,) * len(cell)),
    }
    tags = [(number, kind, *own.get(number, (count, value)), once) for number, kind, count, value, once in raw.tags()]
    for i, mosaic in enumerate(mosaics):
        noisy = level.sample(mosaic, np.random.default_rng([seed, i]))
        counts = np.clip(np.rint(noisy * (raw.WHITE - raw.BLACK) + raw.BLACK), 0, raw.WHITE).astype(np.uint16)
        tifffile.imwrite(folder / f"{i}.dng", counts, photometric=32803, extratags=tags, metadata=None)


def read_colours(result: pipeline.DenoiseResult) -> Light:
    """Read the picture (3, H, W) of a result; planes are interpolated."""
    spool, header = result.spool, result.burst.header
    everything = Window(0, spool.size[0], 0, spool.size[1])
    if header.colour == "mosaic":
        return interpolate_window(spool, 0, everything, header)
    return spool.read_window(0, everything)[:3]


@contextmanager
def merge_by_mean() -> Iterator[None]:
    """Take the mean of frames where they agree, as it is."""

    def passes(reference: motion_check.Reference, _: Light) -> npt.NDArray[np.bool_]:
        return np.zeros(reference.light.shape[1:], bool)

    def all_of_it(risk: sure.Risk, _: sure.LightEstimate) -> Light:
        return np.ones(risk.light.shape[1:], np.float32)

    with (
        patch.object(pipeline, "select_filter", lambda *_: MeanFilter()),
        patch.object(motion_check, "find_failing_pixels", passes),
        patch.object(sure.Risk, "estimate_share", all_of_it),
        patch.object(pipeline, "MOST_NOISE_MEASURED", 0.0),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--way", choices=SETTINGS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", type=Path)
    asked = parser.parse_args()
    files = sorted(f for f in asked.folder.iterdir() if f.suffix.lower() in (".jpg", ".png"))[: asked.count]
    rows: dict[str, dict[str, tuple[float, float, float]]] = {}
    for gain in asked.gain or (1, 4):
        for k, file in enumerate(files):
            mosaics, truth, path = draw_burst(read_scene(file), asked.seed + k)
            with tempfile.TemporaryDirectory() as name:
                write_burst(Path(name), mosaics, GAINS[gain], asked.seed + k)
                frames = sorted(Path(name).iterdir())
                for way in asked.way or list(SETTINGS):
                    settings = DenoiseSettings(reference="0.dng", threads=1, **SETTINGS[way])
                    start = time.process_time()
                    with (
                        merge_by_mean() if way == "mean" else nullcontext(),
                        pipeline.denoise_frames(frames, Path(name) / "out.dng", settings) as result,
                    ):
                        seconds = time.process_time() - start
                        light = read_colours(result)
                    shown = [x / BALANCE[:, None, None] for x in (light, truth)]
                    found = measure_quality(shown[0], shown[1], 1.0, path)
                    rows.setdefault(f"{gain} {way}", {})[file.name] = (found.psnr, float(found.on_path or 0), seconds)
    if asked.store:
        asked.store.write_text(json.dumps(rows, indent=1))
    print("| gain, way | PSNR | on the path | least PSNR | CPU s a megapixel |\n|---|---|---|---|---|")
    for name, found in rows.items():
        psnr, on_path, cpu = np.array(list(found.values())).T
        per_pixel = np.median(cpu) * 1e6 / (SIZE[0] * SIZE[1])
        print(f"| {name} | {psnr.mean():.2f} | {on_path.mean():.2f} | {psnr.min():.2f} | {per_pixel:.1f} |")


if __name__ == "__main__":
    main()
