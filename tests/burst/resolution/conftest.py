"""Bursts of samples drawn from scenes in closed form, behind a mosaic, at places that the test knows."""

from pathlib import Path

import numpy as np
import pytest

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.cokriging import MOSAICS, colour_numbers
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.resolution.sampled_burst import MosaicFrames, SampledBurst
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

NEUTRAL = np.array([0.5, 1, 0.75], np.float32)


class Drawn:
    """A burst of a scene: frame k shows at s what the reference shows at p, s = p + shifts[k] + turns[k] p."""

    def __init__(self, folder: Path, cell, size, shifts, turns, scene, level, seed=0):
        self.cell, self.size, self.scene, self.level = MOSAICS.get(cell, cell), size, scene, level
        self.shifts, self.turns = np.array(shifts, float), np.array(turns, float)
        self.folder, self.seed = folder, seed

    def at(self, y, x):
        """Light (3, ...) of a sensor's pixel at places: the mean of the four fine pixels that it covers."""
        quarter = [self.scene(y + a, x + b) for a in (-0.25, 0.25) for b in (-0.25, 0.25)]
        return NEUTRAL.reshape(3, *[1] * np.ndim(y)) * np.mean(quarter, 0)

    @property
    def truth(self):
        """Light (3, 2 h, 2 w) of the fine pixels of the reference."""
        y, x = (np.arange(2 * side) / 2 - 0.25 for side in self.size)
        return NEUTRAL[:, None, None] * self.scene(y[:, None], x)

    @property
    def colours(self):
        side = round(len(self.cell) ** 0.5)
        y, x = np.indices(self.size)
        return colour_numbers(self.cell)[y % side, x % side]

    def samples(self, k):
        s = np.stack(np.indices(self.size).astype(float), -1)
        p = (s - self.shifts[k]) @ np.linalg.inv(np.eye(2) + self.turns[k]).T
        light = np.take_along_axis(self.at(p[..., 0], p[..., 1]), self.colours[None], 0)[0]
        noise = np.random.default_rng([self.seed, k]).standard_normal(self.size)
        return (light + np.sqrt(self.level.read**2 + self.level.shot * light) * noise).astype(np.float32)

    @property
    def centres(self):
        """Places (Y, X, 2) of the centres of tiles."""
        axes = ((np.arange(-(-side // STEP) + 1) * STEP - 0.5) for side in self.size)
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1)

    @property
    def placement(self):
        n, (Y, X) = len(self.shifts), self.centres.shape[:2]
        fine = self.shifts[:, None, None] + np.einsum("nij,yxj->nyxi", self.turns, self.centres)
        turns = np.broadcast_to(self.turns[:, None, None], (n, Y, X, 2, 2))
        shifts = np.rint(fine).astype(np.int64)
        whole = np.ones((n, Y, X), bool)
        return Placement(fine.astype(np.float32), shifts, whole, np.zeros((n, 2)), turns.astype(np.float32))

    def burst(self):
        frames = np.stack([self.samples(k) for k in range(len(self.shifts))])
        planes = to_planes(frames, self.cell) if len(self.cell) == 4 else np.repeat(frames[:, None], 3, 1)
        store = FrameStore(self.folder / "frames.f32", planes.shape)
        store.allocate()
        for k, one in enumerate(planes):
            store.write_frame(k, one)
        numbers, noise = list(range(len(frames))), [NoiseLevel(self.level.read, self.level.shot)] * 3
        mosaics = MosaicFrames.of(store, self.cell)
        return SampledBurst(mosaics, self.placement, numbers, [1.0] * len(frames), noise, NEUTRAL)

    def store(self, light, name="light.f32"):
        """A store of one picture (C, H, W)."""
        store = FrameStore(self.folder / name, (1, *light.shape))
        store.allocate()
        store.write_frame(0, light.astype(np.float32))
        return store


@pytest.fixture
def draw(tmp_path):
    return lambda *arguments, **more: Drawn(tmp_path, *arguments, **more)
