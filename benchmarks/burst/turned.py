"""Loss in dB from turns and zooms between frames: the command beside frames that are laid by the true motion.

Bursts of eight grey frames of photographs, exposure 1, each frame but the reference turned by up to DEGREES either way,
zoomed by up to ZOOM and shifted by up to two pixels; noise of the gains of the protocol. PSNR in dB, as displayed: laid
by the true motion, laid with shifts of tiles alone (before), and as the command lays them; less the first, mean and
least. Beside it the mean distance of tiles from the truth in pixels, and the share of tiles more than two pixels off
that are called agreeing, of all tiles.

    python benchmarks/burst/turned.py FOLDER [--count 12] [--gain 1 --gain 4]
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import tifffile
import torch

from klarsicht.burst.align import tiled
from klarsicht.burst.align.camera_motion import CameraMotion
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.quality import measure_quality
from klarsicht.burst.synthesis.motion import CameraPath, render_frame
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.burst.synthesis.scenes import Geometry, Photograph
from klarsicht.burst.synthesis.synthesis import KINDS
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

GEOMETRY = Geometry(scale=2, height=192, width=288, reach=16)
CASES = ((0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (2.0, 0.0), (2.0, 0.01))
FRAMES, SHIFT, OFF = 8, 2.0, 2.0
Light = npt.NDArray[np.float32]


def drawn(scene: Light, degrees: float, zoom: float, rng: np.random.Generator) -> tuple[Light, CameraMotion]:
    """Render the frames (N, H, W) of a scene (1, h, w), and their true motion: frame k shows at q the scene at z R q +
    shift, from the middle."""
    g = GEOMETRY
    angles, zooms = math.radians(degrees) * rng.uniform(-1, 1, FRAMES), 1 + zoom * rng.uniform(-1, 1, FRAMES)
    shifts = SHIFT * rng.uniform(-1, 1, (FRAMES, 2))
    angles[0], zooms[0], shifts[0] = 0, 1, 0
    path = CameraPath(shifts * g.scale, angles, zooms)
    frames = np.stack([render_frame(scene, path, k, g)[0] for k in range(FRAMES)])
    motion = CameraMotion.from_shifts(torch.zeros(FRAMES, 2), (g.height, g.width))
    for k, (angle, z, shift) in enumerate(zip(angles, zooms, shifts, strict=True)):
        cos, sin = math.cos(angle) / z, math.sin(angle) / z
        back = np.array([[cos, sin], [-sin, cos]])
        (dy, dx), turn = -back @ shift / motion.unit, back - np.eye(2)
        motion.numbers[k] = torch.tensor([dy, *turn[0], dx, *turn[1], 0, 0])
    return frames, motion


def placed_truly(motion: CameraMotion) -> Callable[..., Placement]:
    """A stand-in for align_frames."""

    def place(spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]) -> Placement:
        return tiled._place_by_motion(replace(motion, numbers=motion.numbers[list(frames)]), spool.size)

    return place


def shifted_only(small: torch.Tensor, whole: torch.Tensor, factor: int, size: tuple[int, int]) -> CameraMotion:
    """A stand-in for fit_camera_motion."""
    return CameraMotion.from_shifts(whole, size)


def result_of(files: list[Path], level: NoiseLevel) -> tuple[Light, Placement]:
    noise = f"{level.read},{level.shot}"
    settings = DenoiseSettings(checkpoint="swift", noise=noise, reference="1", linear=True, threads=1)
    with denoise_frames(files, files[0].parent / "out.tif", settings) as found:
        H, W = found.spool.size
        order = np.argsort(found.frame_numbers)
        return found.spool.read_window(0, Window(0, H, 0, W))[:1], found.placement.select(order.tolist())


def measured(photograph: Photograph, k: int, case: tuple[float, float], gain: int) -> list[float]:
    """Compute PSNR by the three ways; mean distance and share wrongly agreeing, before and now."""
    scene, rng = KINDS["grey"].light(photograph), np.random.default_rng([14, k])
    scene = scene.swapaxes(-1, -2) if scene.shape[-2] > scene.shape[-1] else scene
    height, width = GEOMETRY.crop
    y, x = ((room - need) // 2 for room, need in zip(scene.shape[-2:], (height, width), strict=True))
    clean, motion = drawn(scene[:, y : y + height, x : x + width], *case, rng)
    noisy = GAINS[gain].sample(clean, rng)
    psnr, more = [], []
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{i}.tif" for i in range(FRAMES)]
        for file, frame in zip(files, noisy, strict=True):
            tifffile.imwrite(file, frame)
        true = tiled._place_by_motion(motion, clean.shape[1:])
        for way in (
            patch.object(tiled, "align_frames", placed_truly(motion)),
            patch.object(tiled, "fit_camera_motion", shifted_only),
            patch.object(tiled, "COARSE", tiled.COARSE),
        ):
            with way:
                picture, placement = result_of(files, GAINS[gain])
            nowhere = np.zeros(clean.shape[1:], bool)
            psnr.append(measure_quality(picture, clean[:1], 1.0, nowhere).psnr)
            if len(placement.fine) == FRAMES:
                off = np.linalg.norm(placement.fine - true.fine, axis=-1)[1:, 1:-1, 1:-1]
                wrong = (off > OFF) & placement.agrees[1:, 1:-1, 1:-1]
                more.append((float(off.mean()), float(wrong.mean())))
            else:
                more.append((np.nan, np.nan))
    return [*psnr, *more[1], *more[2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--gain", type=int, action="append")
    asked = parser.parse_args()
    book = read_folder(asked.photographs, GEOMETRY).photographs[: asked.count]
    print("| turn, zoom, gain | true motion | before (least) | now (least) | px off before, now | wrongly agreeing |")
    print("|---" * 6 + "|")
    for case in CASES:
        for gain in asked.gain or (1, 4):
            found = np.array([measured(p, k, case, gain) for k, p in enumerate(book)])
            less = found[:, 1:3] - found[:, :1]
            cells = [f"{found[:, 0].mean():.2f}"]
            cells += [f"{one.mean():+.2f} ({one.min():+.2f})" for one in less.T]
            off = np.nanmean(found[:, 3:], 0)
            cells += [f"{off[0]:.2f}, {off[2]:.2f}", f"{off[1]:.2%}, {off[3]:.2%}"]
            print(f"| {case[0]:g} deg, {case[1]:.0%}, {gain} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
