"""Isolated outliers of planes beside a literal search, pixel by pixel, and the tables of neighbours."""

import numpy as np
import pytest

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising.outliers import Neighbours, detect_outliers
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.01, 1e-3)


def literal(light):
    """Outliers (c, y, x) of (C, H, W): six deviations of the noise and of the excesses in 7 x 7 around, at most one
    other pixel among 3 x 3 of every plane with half the excess."""
    C, H, W = light.shape
    wide = np.pad(light, ((0, 0), (4, 4), (4, 4)), "edge")
    height = np.zeros_like(wide)
    for c in range(C):
        for y in range(1, H + 7):
            for x in range(1, W + 7):
                around = np.delete(wide[c, y - 1 : y + 2, x - 1 : x + 2].ravel(), 4)
                height[c, y, x] = wide[c, y, x] - np.median(around)
    found = set()
    for c in range(C):
        for y in range(4, H + 4):
            for x in range(4, W + 4):
                h = height[c, y, x]
                noise = 1.2 * LEVEL.variance(max(0, wide[c, y, x] - h))
                spread = 1.4826 * np.median(np.abs(height[c, y - 3 : y + 4, x - 3 : x + 4]))
                alike = (height[:, y - 1 : y + 2, x - 1 : x + 2] * np.sign(h) >= abs(h) / 2).sum() - 1
                if h**2 > 36 * noise and abs(h) > 6 * spread and alike <= 1:
                    found.add((c, y - 4, x - 4))
    return found


@pytest.mark.parametrize("planes", [1, 3])
def test_outliers_of_planes_are_those_of_a_literal_search(tmp_path, planes):
    rng = np.random.default_rng(planes)
    frames = LEVEL.sample(np.full((2, planes, 24, 31), 0.3, np.float32), rng)
    for c, y, x in zip(rng.integers(0, planes, 20), rng.integers(0, 24, 20), rng.integers(0, 31, 20), strict=True):
        frames[:, c, y, x] += np.float32(rng.choice([-0.2, 0.05, 0.3]))
    store = FrameStore(tmp_path / "frames", frames.shape)
    store.allocate()
    for i, frame in enumerate(frames):
        store.write_frame(i, frame)
    bands = [Window(0, 10, 0, 31), Window(10, 24, 0, 31)]
    got = detect_outliers(store.read_window, bands, [0, 1], Neighbours.of_planes(planes), [LEVEL] * planes)
    wanted = literal((frames[0] + frames[1]) / 2)
    assert {tuple(place) for place in got.tolist()} == wanted and len(wanted) > 5


def test_neighbours_in_planes_are_squares():
    tables = Neighbours.of_planes(2)
    square = {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}
    assert tables.near[1, 0, 0, 0].tolist() == [0, 0, 0]
    assert {tuple(one[1:]) for one in tables.near[0, 0, 0].tolist()} == square and len(tables.far[0, 0, 0]) == 49
    assert {tuple(one) for one in tables.beside[1, 0, 0].tolist()} == {(c, *one) for c in (-1, 0) for one in square}
    assert (tables.inner, tables.margin) == (1, 4)
