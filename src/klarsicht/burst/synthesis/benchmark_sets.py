"""Named sets of synthetic bursts that are reproducible byte for byte, and verified by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import Burst
from klarsicht.burst.data.cokriging import MOSAICS, white_variance
from klarsicht.burst.synthesis.motion import MOTIONS, Flags, Vectors
from klarsicht.burst.synthesis.scenes import Geometry, Light, Photograph, check_size, scenes
from klarsicht.burst.synthesis.synthesis import CAMERA_COLOURS, KINDS, Recipe, clean_burst, interpolate_frames
from klarsicht.ground.errors import unknown_name
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel, add_noise

KODAK = Geometry(scale=2, height=224, width=352, reach=16)  # uses 768 x 512 photographs in full

SETS = {f"{kind}-{motion}": (kind, motion) for kind in (*KINDS, *MOSAICS) for motion in MOTIONS}
"""Kind of frame (synthesis.KINDS, or a mosaic of cokriging.MOSAICS from which RGB frames in the colours of a camera are
interpolated) and kind of motion (motion.MOTIONS)."""


@dataclass(frozen=True, eq=False)
class BenchmarkSet:
    """One burst for each of B photographs, without noise at exposure 1, and the standard normal noise that any level
    scales.

    frames, noise: (B, N, C, H, W). exposures: (B,). displacements: (B, N, 2) and angles (B, N), as in CleanBurst.
    paths: (B, H, W). balances: (B, 3), of the cameras. cell: of the mosaic from whose samples the noisy frames are
    interpolated; None: each pixel has all channels.
    """

    name: str
    seed: int
    frames: Light
    noise: Light
    exposures: Light
    displacements: Vectors
    angles: npt.NDArray[np.float64]
    paths: Flags
    balances: npt.NDArray[np.float64]
    cell: str | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.frames)

    def exposure(self, index: int, drawn: bool) -> np.float32:
        """Return the exposure w of one burst: the drawn one, or 1."""
        return self.exposures[index] if drawn else np.float32(1)

    def burst(self, index: int, level: NoiseLevel, exposure: float) -> Burst:
        """Return one burst with noise of that level, at that exposure. Behind a mosaic the samples have that noise, and
        that of the interpolated frames is told as the command tells it (cokriging.white_variance)."""
        light = self.frames[index] * np.float32(exposure)
        noisy = add_noise(light, self.noise[index], np.float32(level.read), np.float32(level.shot))
        if self.cell is None:
            return Burst(noisy, level)
        red, green, blue = self.balances[index].tolist()
        balance, told = (red, green, blue), level.scale_variance(white_variance(self.cell))
        return Burst(interpolate_frames(noisy, self.cell, balance), told, colour_filter=self.cell, balance=balance)

    def truth(self, index: int, exposure: float) -> Light:
        """Return the clean reference (C, H, W) of that burst."""
        return self.frames[index, 0] * np.float32(exposure)

    def balance(self, index: int, picture: Light) -> Light:
        """Return a picture (C, H, W) in the colours in which it is compared: behind a mosaic, after white balance."""
        if self.cell is None:
            return picture
        return picture * self.balances[index].astype(np.float32)[:, None, None]

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of all arrays, little-endian, with their shapes; of a mosaic its cell and balances, too."""
        digest = hashlib.sha256()
        told = () if self.cell is None else (np.frombuffer(self.cell.encode(), np.uint8), self.balances)
        for array in (self.frames, self.noise, self.exposures, self.displacements, self.angles, self.paths, *told):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()


def benchmark_set(name: str, photographs: Sequence[Photograph], seed: int, geometry: Geometry = KODAK) -> BenchmarkSet:
    """Build the set of that name from the centres of RGB photographs; upright ones are turned on their side. Each
    photograph has its own stream of the seed, so a longer list begins with the same bursts. Raises UsageError for an
    unknown name, CorpusError or ImageError for the photographs."""
    if name not in SETS:
        raise unknown_name("benchmark set", name, SETS)
    kind, motion = SETS[name]
    recipe = Recipe(kind=KINDS.get(kind, CAMERA_COLOURS), motion=MOTIONS[motion], geometry=geometry)
    middles = [_middle(scene, geometry, k) for k, scene in enumerate(scenes(photographs, recipe.kind.light))]
    drawn = [_draw(middles, k, recipe, seed) for k in range(len(middles))]
    columns = (np.stack(column) for column in zip(*drawn, strict=True))
    return BenchmarkSet(name, seed, *columns, cell=MOSAICS.get(kind))


def _draw(middles: list[Light], k: int, recipe: Recipe, seed: int) -> tuple[npt.NDArray[np.generic], ...]:
    """Draw the k-th burst: clean frames, noise, exposure, displacements, angles, path and balance."""
    rng = np.random.default_rng([seed, k])
    clean = clean_burst(middles[k], middles[max(k - 1, 0)], recipe, rng)
    exposure = np.float32(10 ** rng.uniform(*recipe.exposures))
    noise = rng.standard_normal(clean.frames.shape, dtype=np.float32)
    balance = np.array(clean.balance, np.float64)
    return clean.frames, noise, np.asarray(exposure), clean.displacements, clean.angles, clean.path, balance


def _middle(scene: Light, geometry: Geometry, index: int) -> Light:
    """Return the central crop, of the transposed scene if the scene is upright and the frame is not."""
    height, width = geometry.crop
    upright = scene.shape[-2] > scene.shape[-1]
    if upright and height < width:
        scene = scene.swapaxes(-1, -2)
    check_size(scene, geometry, index)
    y, x = (scene.shape[-2] - height) // 2, (scene.shape[-1] - width) // 2
    return scene[:, y : y + height, x : x + width]
