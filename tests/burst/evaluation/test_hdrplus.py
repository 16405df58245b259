"""HDR+ beside a literal rewrite of its merge, known shifts, and the noise that it says it leaves."""

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.data.burst import Burst
from klarsicht.burst.evaluation.hdrplus import (
    HALF_TILE,
    TILE,
    TUNING,
    align,
    align_and_merge,
    blend_tiles,
    cut_tiles,
    merge,
    noise_share,
    tile_counts,
)
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 0.004)


def photograph(height, width, y=0, x=0):
    grey = (data.astronaut().mean(-1) / 255) ** 2.2
    return grey[None, 60 + y : 60 + y + height, 120 + x : 120 + x + width].astype(np.float32)


def literal_merge(frames, offsets, level):
    """Tile by tile, sums written as matrices: T = 1/N sum_z [T_z + A_z (T_0 - T_z)], sqrt-free raised cosine."""
    n, (N, C, H, W) = TILE, frames.shape
    F = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    fade = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
    out = np.zeros((C, H, W))

    def cut(z, c, r, q):
        dy, dx = offsets[z][r, q]
        at = lambda first, side: [min(max(first + k, 0), side - 1) for k in range(n)]  # noqa: E731
        rows, columns = at(HALF_TILE * (r - 1) + dy, H), at(HALF_TILE * (q - 1) + dx, W)
        return frames[z, c][np.ix_(rows, columns)].astype(float)

    for c in range(C):
        for r, q in np.ndindex(tile_counts((H, W))):
            spectra = [F @ cut(z, c, r, q) @ F.T for z in range(N)]
            variance = level.read**2 + level.shot * max(0.0, cut(0, c, r, q).mean())
            total = 0
            for T_z in spectra:
                D = spectra[0] - T_z
                A = abs(D) ** 2 / (abs(D) ** 2 + TUNING * 2 * n**2 * variance)
                total = total + T_z + A * D
            tile = (np.conj(F) @ (total / N) @ np.conj(F).T).real / n**2
            for i, j in np.ndindex(n, n):
                y, x = HALF_TILE * (r - 1) + i, HALF_TILE * (q - 1) + j
                if 0 <= y < H and 0 <= x < W:
                    out[c, y, x] += fade[i] * fade[j] * tile[i, j]
    return out


def test_the_merge_is_the_papers():
    rng = np.random.default_rng(0)
    frames = rng.uniform(-0.05, 1, (3, 2, 21, 30)).astype(np.float32)
    offsets = [np.zeros((*tile_counts((21, 30)), 2), np.int64)] + [
        rng.integers(-3, 4, (*tile_counts((21, 30)), 2)) for _ in range(2)
    ]
    merged = merge(Burst(frames, LEVEL), offsets)[0]
    np.testing.assert_allclose(merged, literal_merge(frames, offsets, LEVEL), atol=2e-6)


@pytest.mark.parametrize("size", [(21, 30), (64, 64), (8, 17)])
def test_tiles_put_together_again_are_the_frame(size):
    frame = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32)
    still = np.zeros((*tile_counts(size), 2), np.int64)
    np.testing.assert_allclose(blend_tiles(cut_tiles(frame, still), size), frame, atol=1e-6)


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-9, 14), (16, 11)])
def test_known_shifts_are_found(shift):
    frames = np.stack([photograph(128, 160), photograph(128, 160, -shift[0], -shift[1])])
    found = align(Burst(LEVEL.sample(frames, np.random.default_rng(0)), LEVEL))[1]
    inner = found[4:-4, 4:-4].reshape(-1, 2)
    assert (np.abs(inner - shift).max(1) <= 1).mean() > 0.9


def test_equal_frames_without_noise_are_the_image():
    frame = photograph(64, 80)
    merged = align_and_merge(Burst(np.stack([frame] * 4), LEVEL))
    np.testing.assert_allclose(merged[0], frame, atol=1e-6)
    assert merged[1].read == pytest.approx(LEVEL.read / 2) and merged[1].shot == pytest.approx(LEVEL.shot / 4)


def test_what_moved_is_taken_from_the_reference():
    """A frame that shows something else entirely hardly enters."""
    frame = photograph(64, 80)
    merged = align_and_merge(Burst(np.stack([frame, 1 - frame]), NoiseLevel(1e-3, 1e-5)))
    assert np.abs(merged[0] - frame).mean() < 0.01 * np.abs(1 - 2 * frame).mean()


def test_the_noise_that_is_left_is_what_is_measured():
    """Of a flat scene: the merge's weights depend on the noise itself, hence a few per cent."""
    flat = np.full((8, 1, 256, 256), 0.3, np.float32)
    still = [np.zeros((*tile_counts((256, 256)), 2), np.int64)] * 8
    merged = merge(Burst(LEVEL.sample(flat, np.random.default_rng(0)), LEVEL), still)
    assert merged[1].variance(0.3) == pytest.approx(merged[0].var(), rel=0.15)
    assert merged[0].var() < LEVEL.variance(0.3) / 6


@pytest.mark.parametrize(("A", "share"), [(0.0, 1 / 4), (1.0, 1.0), (0.5, (2.5**2 + 3 * 0.25) / 16)])
def test_noise_share_of_equal_agreement(A, share):
    """A = 0 is the mean of four frames, A = 1 the reference alone."""
    shape = (2, 3)
    assert noise_share([np.zeros(shape)] + [np.full(shape, A)] * 3) == pytest.approx(share)
