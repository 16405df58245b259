"""Twice the resolution from a raw burst: `burst denoise --double` beside enlarging the command's result.

Bursts of eight frames of crops of photographs behind a Bayer or an X-Trans mosaic: light at twice the resolution, by a
camera that shifts and turns by hand while a patch moves, averaged over the area of each pixel, with noise of the gains
of the protocol, as DNGs. The same result is enlarged by two (Lanczos) and doubled.

PSNR of colours as displayed against the light at twice the resolution, over the whole picture and over the path of the
patch. False detail: mean square of the difference from the truth's detail, over that of the truth's detail, where
detail is what a mean over 3 x 3 pixels takes away; without any detail it is 1. A block of 32 x 32 pixels loses where
its mean square error exceeds that of the enlarged result by more than 2 % of the noise's variance in a frame.

    python benchmarks/burst/doubled_resolution.py FOLDER [--count 8] [--gain 1 --gain 4] [--seed 1] [--blur 0.75]
        [--cell RGGB]

--blur: deviation of the lens's Gaussian blur, in pixels of the fine grid; the truth is blurred, too. At 0.75 half of
the contrast is left at the finest lines that the sensor resolves. --cell: the mosaic, bayer, x-trans or its letters.
Gained: less the enlarged result, with a 95 % interval over photographs, and the least.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.stats import t as student

from klarsicht.burst.data.cokriging import MOSAICS, take_samples
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising import pipeline
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.quality import measure_quality
from klarsicht.burst.resolution.enlarged_frames import EnlargedFrames
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel
from merging_ways import BALANCE, SIZE, Light, draw_colours, read_scene, write_burst

SHIFT = 3.0  # deviation from frame to frame, in pixels of the fine grid
SIDE = 2  # pixels of the fine grid along one of the sensor
BLOCK = 32  # fine pixels: side of a block
LOSS = 0.02  # of the noise's variance, by which a block's error may be larger


def draw_fine_burst(
    light: Light, seed: int, blur: float, cell: str = "RGGB"
) -> tuple[Light, Light, npt.NDArray[np.bool_]]:
    """Draw mosaics (N, h, w) without noise, the true colours (3, H, W) of the first at twice their resolution, and the
    path of the patch (H, W). blur: deviation of the lens's, in pixels of the fine grid."""
    H, W = SIZE
    frames, places = zip(*draw_colours(light, seed, SHIFT), strict=True)
    frames = [gaussian_filter(rgb, (0, blur, blur)) if blur else rgb for rgb in frames]
    seen = (rgb.reshape(3, H // SIDE, SIDE, W // SIDE, SIDE).mean((2, 4)) for rgb in frames)
    mosaics = [take_samples(rgb, cell) for rgb in seen]
    return np.stack(mosaics).astype(np.float32), frames[0].astype(np.float32), np.any(places, 0)


def false_detail(picture: Light, truth: Light) -> float:
    """Compute the mean square of what detail differs, over that of the true detail, of colours as displayed."""
    one, other = (np.clip(x / BALANCE[:, None, None], 0, 1) ** (1 / 2.2) for x in (picture, truth))
    own, true = (x - uniform_filter(x, (0, 3, 3)) for x in (one, other))
    return float(np.square(own - true).mean() / np.square(true).mean())


def block_means(values: Light) -> Light:
    """Average values (3, H, W) of balanced light over blocks, (n,)."""
    balanced = values / np.square(BALANCE)[:, None, None]
    Y, X = (side // BLOCK for side in SIZE)
    cut = balanced[:, : Y * BLOCK, : X * BLOCK].reshape(3, Y, BLOCK, X, BLOCK)
    return np.asarray(cut.mean((0, 2, 4)).ravel())


def losing_blocks(picture: Light, enlarged: Light, truth: Light, level: NoiseLevel) -> float:
    """Compute the share of blocks in which a picture loses against the enlarged one."""
    worse = block_means(np.square(picture - truth) - np.square(enlarged - truth))
    return float(np.mean(worse > LOSS * block_means(np.asarray(level.variance(truth)))))


def read_picture(store: FrameStore) -> Light:
    """Read R, G and B (3, H, W) of a store's first picture."""
    return store.read_window(0, Window(0, store.size[0], 0, store.size[1]))[:3]


def develop(mosaics: Light, level: NoiseLevel, seed: int, cell: str) -> dict[str, Light]:
    """Denoise a burst, and return its pictures (3, H, W) at twice the resolution."""
    with tempfile.TemporaryDirectory() as name:
        write_burst(Path(name), mosaics, level, seed, cell)
        frames = sorted(Path(name).iterdir())
        settings = DenoiseSettings(reference="0.dng", threads=1, double=True)
        with pipeline.denoise_frames(frames, Path(name) / "out.dng", settings) as result:
            assert result.single is not None
            return {
                "enlarged": read_picture(EnlargedFrames.of(result.single.spool)),
                "doubled": read_picture(result.spool),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--gain", type=int, action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blur", type=float, default=0.75)
    parser.add_argument("--cell", default="bayer")
    asked = parser.parse_args()
    cell = MOSAICS.get(asked.cell, asked.cell)
    files = sorted(f for f in asked.folder.iterdir() if f.suffix.lower() in (".jpg", ".png"))[: asked.count]
    print("| gain, way | PSNR | on the path | false detail | PSNR gained | on the path | blocks that lose, most |")
    print("|---|---|---|---|---|---|---|")
    for gain in asked.gain or (1, 4):
        rows: dict[str, list[tuple[float, ...]]] = {}
        level = GAINS[gain]
        for k, file in enumerate(files):
            mosaics, truth, path = draw_fine_burst(read_scene(file), asked.seed + k, asked.blur, cell)
            pictures = develop(mosaics, level, asked.seed + k, cell)
            for way, picture in pictures.items():
                shown = [(x / BALANCE[:, None, None]).astype(np.float32) for x in (picture, truth)]
                quality = measure_quality(shown[0], shown[1], 1.0, path)
                lost = losing_blocks(picture, pictures["enlarged"], truth, level)
                values = (quality.psnr, float(quality.on_path or 0), false_detail(picture, truth), lost)
                rows.setdefault(way, []).append(values)
        for way in rows:
            found, start = (np.array(rows[one]) for one in (way, "enlarged"))
            psnr, on_path, false, lost = found.mean(0)
            gained = [interval(column) for column in (found - start).T[:2]]
            blocks = f"{100 * lost:.2f} %, {100 * found[:, 3].max():.2f} %"
            print(f"| {gain} {way} | {psnr:.2f} | {on_path:.2f} | {false:.3f} | {' | '.join(gained)} | {blocks} |")


def interval(values: npt.NDArray[np.float64]) -> str:
    """Say the mean of values, half its 95 % interval by Student's t, and the least."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.2f} ± {half:.2f}, {values.min():+.2f}"


if __name__ == "__main__":
    main()
