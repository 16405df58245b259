"""Error rate of the shift of a whole frame, and cost of the alignment.

Synthetic bursts after the protocol of KPN (box x2, 8 frames, exposure drawn for each) from photographs that come with
scikit-image, or from a folder of one's own; four gains; against phase correlation of whole frames. An estimate is wrong
if it is off by more than .6 pixels on an axis.

Some frames hold too little for anyone: where even an estimator that knew the clean scene could not do better than .2
pixels (the Cramer-Rao bound on either axis), a frame is left out of the second pair of columns.

    python benchmarks/burst/alignment.py [--rounds 4] [--photographs FOLDER]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage import data

from klarsicht.burst.align.alignment import align, align_whole_frames, stabilised_grey
from klarsicht.burst.synthesis.scenes import Geometry, Photograph, grey_light, scenes
from klarsicht.burst.synthesis.synthesis import CleanBurst, Recipe, clean_burst, random_crop
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

GEOMETRY = Geometry(scale=2, height=160, width=224, reach=16)
WRONG, HOPELESS = 0.6, 0.2  # pixels
PHOTOGRAPHS = {
    "astronaut": data.astronaut,
    "brick": data.brick,
    "camera": data.camera,
    "coffee": data.coffee,
    "grass": data.grass,
    "gravel": data.gravel,
    "hubble": data.hubble_deep_field,
    "ihc": data.immunohistochemistry,
    "moon": data.moon,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
    "retina": data.retina,
    "rocket": data.rocket,
}

Frames = npt.NDArray[np.float32]
Shifts = npt.NDArray[np.float64]
Estimator = Callable[[Frames, NoiseLevel], Shifts]


def phase_correlation(frames: Frames, level: NoiseLevel, width: float = 0.12, reach: int = 20) -> Shifts:
    """Whole frames against the first, low-passed, the peak between pixels by a parabola."""
    H, W = frames.shape[-2:]
    window = np.hanning(H)[:, None] * np.hanning(W)
    F = np.fft.rfft2((frames[:, 0] - frames.mean((1, 2, 3))[:, None, None]) * window)
    f2 = np.fft.fftfreq(H)[:, None] ** 2 + np.fft.rfftfreq(W) ** 2
    cross = F[0].conj() * F
    peaks = np.fft.irfft2(cross / (np.abs(cross) + 1e-12) * np.exp(-f2 / (2 * width**2)), s=(H, W))
    peaks = np.roll(peaks, (reach, reach), (1, 2))[:, : 2 * reach + 1, : 2 * reach + 1]
    return np.array([parabola(peak) - reach for peak in peaks])


def parabola(peak: Shifts) -> Shifts:
    y, x = (min(max(int(k), 1), len(peak) - 2) for k in np.unravel_index(peak.argmax(), peak.shape))
    lines = peak[y - 1 : y + 2, x], peak[y, x - 1 : x + 2]
    off = [np.clip((a - c) / 2 / min(a - 2 * b + c, -1e-12), -0.5, 0.5) for a, b, c in lines]
    return np.array([y, x]) + off


def ours(frames: Frames, level: NoiseLevel) -> Shifts:
    light = stabilised_grey(*tensors(frames, level))
    return align_whole_frames(light, torch.ones(1, len(frames), dtype=torch.bool)).shifts[0].numpy()


def with_tiles(frames: Frames, level: NoiseLevel) -> Shifts:
    batch = tensors(frames, level)
    alignment = align(*batch, torch.ones(1, len(frames), dtype=torch.bool))
    alignment.apply(batch[0])
    return alignment.whole.shifts[0].numpy()


def tensors(frames: Frames, level: NoiseLevel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.from_numpy(frames)[None], torch.tensor([level.read]), torch.tensor([level.shot])


def bound(scene: Frames, level: NoiseLevel) -> float:
    """Cramer-Rao: the least deviation, on the worse axis, of the shift between two noisy views of a known scene."""
    gy, gx = np.gradient(level.stabilise(scene.astype(float)))
    information = np.array([[(gy * gy).sum(), (gy * gx).sum()], [(gy * gx).sum(), (gx * gx).sum()]])
    return float(np.sqrt(2 * np.linalg.inv(information).diagonal().max()))


def photographs(folder: Path | None) -> list[Photograph]:
    if folder is not None:
        return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]
    pictures = [load() for load in PHOTOGRAPHS.values()]
    return [p if p.ndim == 3 else np.repeat(p[..., None], 3, 2) for p in pictures]


def bursts(folder: Path | None, rounds: int) -> list[tuple[CleanBurst, np.float32, Frames]]:
    """Clean bursts with their exposure and standard normal noise."""
    rng, recipe = np.random.default_rng(7), Recipe(geometry=GEOMETRY)
    library = scenes(photographs(folder), grey_light)
    made = []
    for scene in library * rounds:
        clean = clean_burst(random_crop(scene, recipe, rng), scene, recipe, rng)
        exposure = np.float32(10 ** rng.uniform(*recipe.exposures))
        made.append((clean, exposure, rng.standard_normal(clean.frames.shape, dtype=np.float32)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--photographs", type=Path)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    made = bursts(wanted.photographs, wanted.rounds)
    estimators: dict[str, Estimator] = {"phase correlation": phase_correlation, "ours": ours, "ours, tiles": with_tiles}
    count, by_photograph = len(made) // wanted.rounds, {}
    print(f"{len(made)} bursts of 8 frames, {GEOMETRY.height} x {GEOMETRY.width}")
    print("gain  estimator          wrong, all   median px   wrong, locatable   of frames   CPU s / Mpx of a frame")
    for gain, level in GAINS.items():
        locatable = np.array([bound(c.frames[0, 0] * w, level) <= HOPELESS for c, w, _ in made])
        for name, estimate in estimators.items():
            errors, start = [], time.process_time()
            for clean, w, z in made:
                light = clean.frames * w
                shifts = estimate((light + level.deviation(light) * z).astype(np.float32), level)
                errors.append(np.abs(shifts - clean.displacements)[1:].max(1))
            cost = (time.process_time() - start) / (len(made) * 8 * GEOMETRY.height * GEOMETRY.width) * 1e6
            e = np.array(errors)
            by_photograph[name, gain] = [(e[k::count] > WRONG).mean() for k in range(count)]
            print(
                f"{gain:4}  {name:18} {(e > WRONG).mean():9.2%} {np.median(e):11.3f} "
                f"{(e[locatable] > WRONG).mean():15.2%} {locatable.mean():14.0%} {cost:14.2f}",
                flush=True,
            )
    for (name, gain), shares in by_photograph.items():
        print(f"wrong by photograph, gain {gain}, {name}:", " ".join(f"{share:.0%}" for share in shares))


if __name__ == "__main__":
    main()
