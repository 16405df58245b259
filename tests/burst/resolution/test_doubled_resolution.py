"""The correction of an enlarged result by samples: against a literal form of the whole picture, against truths in
closed form, and laws of noise."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import map_coordinates, uniform_filter

from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.resolution import doubled_resolution
from klarsicht.burst.resolution.doubled_resolution import DetailCorrector, cut_tiles
from klarsicht.burst.resolution.enlarged_frames import EnlargedFrames
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIZE = (96, 130)
RNG = np.random.default_rng(3)
SHIFTS = np.concatenate([[(0, 0)], RNG.normal(0, 3, (5, 2))])
TURNS = np.concatenate([np.zeros((1, 2, 2)), RNG.normal(0, 0.002, (5, 2, 2))])
PAD = 80


def scene(y, x):
    """Waves, some of which are finer than the sensor's pixels resolve, beside an even part."""
    waves = 0.1 * np.cos(2.9 * x + 0.4 * y) + 0.1 * np.cos(2.2 * y - 2.3 * x) + 0.08 * np.sin(y / 3 + x / 4)
    return 0.35 + waves * (x > 40)


def fine_waves(y, x):
    """Waves that the sensor's pixels resolve, with less contrast."""
    return 0.35 + 0.1 * np.cos(2.3 * x + 0.4 * y) + 0.1 * np.cos(1.5 * y - 1.6 * x)


def correct_whole(drawn, burst, start):
    """Correct the enlarged result (3, H, W) without tiles, by the formulas of `doubled_resolution`."""
    box = doubled_resolution
    fine, (h, w) = np.pad(start.astype(np.float64), ((0, 0), (PAD, PAD), (PAD, PAD)), mode="edge"), drawn.size
    seen = (fine[:, :-1, :-1] + fine[:, 1:, :-1] + fine[:, :-1, 1:] + fine[:, 1:, 1:]) / 4
    mean, square = (uniform_filter(x, (0, 5, 5)) for x in (seen, seen**2))
    texture, neutral = np.maximum(square - mean**2, 0), burst.neutral.astype(float)
    parts = np.zeros((2, 3, 2, *fine.shape[1:]))
    s, z = np.indices((h, w)).astype(float)
    for k in range(len(drawn.shifts)):
        v, u = s.copy(), z.copy()
        for _ in range(20):
            d = _displacement(burst.placement.fine[k], burst.placement.turns[k], v, u)
            v, u = s - d[0], z - d[1]
        at = np.stack([2 * v, 2 * u]) + PAD
        light, c = drawn.samples(k).astype(float), drawn.colours
        planes = [map_coordinates(seen[i], at, order=3, mode="mirror") for i in range(3)]
        spreads = [map_coordinates(texture[i], at, order=1) for i in range(3)]
        expected, spread = (np.take_along_axis(np.stack(x), c[None], 0)[0] for x in (planes, spreads))
        variance = drawn.level.read**2 + drawn.level.shot * np.maximum(expected, 0)
        off = light - expected
        weight = np.minimum(1, 9 * variance / np.maximum(off**2, 1e-12))
        weight *= (light < 1) & (expected < 1 - 3 * np.sqrt(variance))
        if k:
            for side, most in ((7, 1.4), (15, 1.2)):
                weight *= uniform_filter(off**2 / (variance + spread), side, mode="nearest") < most
        scale = np.maximum(expected, 0.02 * neutral[c])
        weight *= scale**2 / variance
        place, values = (at + 0.5).reshape(2, -1), (off / scale).ravel()
        near = np.rint(place).astype(int)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                q = near + np.array([[dy], [dx]])
                part = weight.ravel() * np.exp(-np.square(q - place).sum(0) / (2 * 0.6**2))
                np.add.at(parts, (k % 2, c.ravel(), 0, *q), part * values)
                np.add.at(parts, (k % 2, c.ravel(), 1, *q), part)
    both = parts.sum(0)
    means = uniform_filter(both[:, 0], (0, 15, 15)) / np.maximum(uniform_filter(both[:, 1], (0, 15, 15)), 1e-9)
    parts[:, :, 0] -= parts[:, :, 1] * means
    sums, colours = parts.sum(1), parts.sum(0)
    total, weight = sums.sum(0)
    difference, left = total / np.maximum(weight, 1e-9), 0.5 / np.maximum(weight, 1e-9)
    share = np.clip(1 - uniform_filter(left, 15) / np.maximum(uniform_filter(difference**2, 15), 1e-20), 0, 1)
    (one, a), (other, b) = sums
    alike = uniform_filter(one * other / np.sqrt(np.maximum(a * b, 1e-20)), 41)
    chance = box.CONFIRMED * 0.5 * np.sqrt(2 * np.pi * 0.36 / 41**2)
    share *= uniform_filter((alike > chance).astype(float), 15)
    products = (colours[:, 0] * difference, colours[:, 1] * difference**2)
    top, bottom = (uniform_filter(x, (0, 15, 15)) for x in products)
    share = share * np.clip(top / np.maximum(bottom, 1e-20), 0, 2)
    whole = fine + share * difference * np.maximum(fine, 0.02 * neutral[:, None, None])
    return whole[:, PAD:-PAD, PAD:-PAD]


def _displacement(fine, turns, y, x):
    """Blend the tiles' affine displacements by raised cosines."""
    ends = []
    for p, count in ((y, fine.shape[0]), (x, fine.shape[1])):
        first = np.clip(np.floor((p + 0.5) / STEP).astype(int), 0, count - 2)
        t = np.clip(p + 0.5 - first * STEP, 0, STEP)
        later = 0.5 - 0.5 * np.cos(np.pi * t / STEP)
        ends.append(((first, 1 - later), (first + 1, later)))
    total = np.zeros((2, *y.shape))
    for r, down in ends[0]:
        for q, across in ends[1]:
            off = np.stack([y - r * STEP + 0.5, x - q * STEP + 0.5], -1)
            place = fine[r, q] + np.einsum("yxij,yxj->yxi", turns[r, q], off)
            total += down * across * np.moveaxis(place, -1, 0)
    return total


def blurred(drawn, kept=0.8):
    """Smooth the waves of the reference's colours (3, h, w), as a denoiser might."""
    y, x = np.indices(drawn.size).astype(float)
    light = drawn.at(y, x)
    return kept * light + (1 - kept) * uniform_filter(light, (0, 5, 5))


def correct_tiles(burst, light):
    H, W = light.size
    out = np.zeros((3, H, W), np.float32)
    for tile in cut_tiles((H, W)):
        out[:, *tile.slices_in(Window(0, H, 0, W))] = DetailCorrector(light, burst, 1.0).correct(tile).light
    return out


@pytest.mark.parametrize("cell", ["bayer", "x-trans"])
def test_tiles_equal_the_literal_form_of_the_whole(draw, cell, monkeypatch):
    monkeypatch.setattr(doubled_resolution, "CORE_SIDE", 64)
    drawn = draw(cell, SIZE, SHIFTS, TURNS, scene, NoiseLevel(0.01, 0.002))
    burst, light = drawn.burst(), EnlargedFrames.of(drawn.store(blurred(drawn)))
    start = light.read_window(0, Window(0, light.size[0], 0, light.size[1]))
    found, whole = correct_tiles(burst, light), correct_whole(drawn, burst, start)
    assert np.abs(whole - start).max() > 0.02
    np.testing.assert_allclose(found, whole, atol=2e-4)


def test_samples_without_noise_approach_a_scene_finer_than_the_sensor(draw):
    """The sensor's pixels take contrast from waves, and interpolation more; each correction comes nearer the truth."""
    steps = [(a, b) for a in (0, 0.5) for b in (0, 0.5)]
    shifts = [(0, 0), *steps[1:], *[(a + 1, b) for a, b in steps], *[(a, b + 1) for a, b in steps]]
    drawn = draw("bayer", (96, 96), shifts, np.zeros((len(shifts), 2, 2)), fine_waves, NoiseLevel(1e-3, 1e-6))
    burst, light = drawn.burst(), EnlargedFrames.of(drawn.store(blurred(drawn, 1.0)))
    errors, whole = [], Window(0, 192, 0, 192)
    picture = light.read_window(0, whole)
    for number in range(6):
        errors.append(float(np.square(picture - drawn.truth)[:, 12:-12, 12:-12].mean()))
        picture = DetailCorrector(drawn.store(picture, f"{number}.f32"), burst, 1.0).correct(whole).light
    assert all(later < earlier for earlier, later in pairwise(errors))
    assert errors[1] < 0.65 * errors[0] and errors[-1] < 0.25 * errors[0]


def test_noise_alone_changes_hardly_any_window(draw):
    """An even scene that the result has right: what the halves say by chance is confirmed in few of its windows."""
    drawn = draw("bayer", (256, 256), SHIFTS, TURNS, lambda y, x: 0.3 + 0 * y * x, NoiseLevel(0.02, 0.003))
    light = EnlargedFrames.of(drawn.store(drawn.at(*np.indices((256, 256)).astype(float))))
    share = DetailCorrector(light, drawn.burst(), 1.0).correct(Window(0, 512, 0, 512)).share
    assert np.mean(share > 0) < 0.02


def test_one_half_of_the_frames_that_shows_no_detail_corrects_nothing(draw):
    """Every other frame shows an even scene: the halves do not confirm each other, and the enlarged result stays."""
    level = NoiseLevel(0.02, 0.003)
    drawn = draw("bayer", SIZE, SHIFTS, TURNS, fine_waves, level)
    even = draw("bayer", SIZE, SHIFTS, TURNS, lambda y, x: 0.35 + 0 * y * x, level, seed=1)
    burst, light = drawn.burst(), EnlargedFrames.of(drawn.store(blurred(drawn)))
    whole = Window(0, 2 * SIZE[0], 0, 2 * SIZE[1])
    assert DetailCorrector(light, burst, 1.0).correct(whole).share.mean() > 0.3
    for k in range(1, len(SHIFTS), 2):
        burst.spool.source.write_frame(k, to_planes(even.samples(k)))
    assert DetailCorrector(light, burst, 1.0).correct(whole).share.mean() < 0.02


def test_frames_shifted_by_whole_pixels_have_nothing_to_add(draw):
    whole, parts = ([(0, 0), (3, -2), (-1, 4)], [(0, 0), (3.5, -2), (-1, 4)])
    found = [
        draw("bayer", SIZE, one, np.zeros((3, 2, 2)), scene, NoiseLevel(0.01, 0)).burst() for one in (whole, parts)
    ]
    assert [one.shifts_by_parts for one in found] == [False, True]
