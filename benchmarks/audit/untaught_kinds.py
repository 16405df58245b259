"""Kinds of artifacts that no family of `audit plant` draws, so that no embedding was taught them.

Each kind is a function that draws an artifact: its parameters are drawn once, and what varies between images is drawn
for each. Images are float (H, W, 3), levels 0 to 255. Half of the kinds, drawn by name before any was measured, are to
develop on; the others are measured once (`kinds_of`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.ground.seeding import generator

Put = Callable[[Floats, np.random.Generator], Floats]
Kind = Callable[[np.random.Generator], Put]
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16


def grid(image: Floats) -> tuple[Floats, Floats]:
    """Rows (H, 1) and columns (1, W) in shares of the side."""
    height, width = image.shape[:2]
    return (np.arange(height)[:, None] + 0.5) / height, (np.arange(width)[None] + 0.5) / width


def blend(image: Floats, opacity: Floats, colour: Floats) -> Floats:
    return image + opacity[..., None] * (colour - image)


def warp(image: Floats, rows: Floats, columns: Floats) -> Floats:
    """Read an image at other rows and columns, in shares of the side."""
    height, width = image.shape[:2]
    at = np.broadcast_arrays(rows * height - 0.5, columns * width - 0.5)
    return np.stack([ndimage.map_coordinates(image[..., c], at, order=1, mode="nearest") for c in range(3)], -1)


def discs(image: Floats, count: int, size: tuple[float, float], rng: np.random.Generator, soft: float) -> Floats:
    """Opacity (H, W) of discs at random places, with an edge of so many shares of the side."""
    y, x = grid(image)
    opacity = np.zeros(image.shape[:2])
    for _ in range(count):
        (a, b), r = rng.random(2), rng.uniform(*size)
        opacity = np.maximum(opacity, np.clip((r - np.hypot(y - a, x - b)) / soft + 0.5, 0, 1))
    return opacity


def aberration(rng: np.random.Generator) -> Put:
    by = rng.uniform(0.03, 0.06)

    def put(image: Floats, _: np.random.Generator) -> Floats:
        y, x = grid(image)
        planes = [
            warp(image, 0.5 + (y - 0.5) * s, 0.5 + (x - 0.5) * s)[..., c] for c, s in enumerate((1 - by, 1, 1 + by))
        ]
        return np.stack(planes, -1)

    return put


def posterised(rng: np.random.Generator) -> Put:
    step = 255 / rng.integers(4, 8)
    return lambda image, _: np.rint(image / step) * step


def raindrops(rng: np.random.Generator) -> Put:
    count, size = int(rng.integers(4, 8)), rng.uniform(0.06, 0.1)

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        y, x = grid(image)
        rows, columns = y + 0 * x, x + 0 * y
        for _ in range(count):
            a, b = rng.random(2)
            inside = np.hypot(y - a, x - b) < size
            rows, columns = np.where(inside, 2 * a - rows, rows), np.where(inside, 2 * b - columns, columns)
        return warp(image, np.clip(rows, 0, 1), np.clip(columns, 0, 1))

    return put


def ring(rng: np.random.Generator) -> Put:
    colour, width = rng.integers(0, 256, 3).astype(float), rng.uniform(0.04, 0.07)

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        y, x = grid(image)
        (a, b), r = rng.uniform(0.35, 0.65, 2), rng.uniform(0.2, 0.4)
        return blend(image, np.clip((width - abs(np.hypot(y - a, x - b) - r)) * 30, 0, 1), colour)

    return put


def spot(rng: np.random.Generator) -> Put:
    colour = rng.permutation([rng.uniform(200, 255), rng.uniform(0, 60), rng.uniform(0, 255)])
    return lambda image, rng: blend(image, discs(image, 1, (0.08, 0.2), rng, 0.04), colour)


def mosaic(rng: np.random.Generator) -> Put:
    side, block = rng.uniform(0.3, 0.45), int(rng.integers(3, 6))

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        height, width = image.shape[:2]
        h, w = round(side * height) // block * block, round(side * width) // block * block
        a, b = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        out, part = image.copy(), image[a : a + h, b : b + w]
        means = part.reshape(h // block, block, w // block, block, 3).mean((1, 3))
        out[a : a + h, b : b + w] = means.repeat(block, 0).repeat(block, 1)
        return out

    return put


def dither(rng: np.random.Generator) -> Put:
    step = 255 / rng.integers(2, 5)

    def put(image: Floats, _: np.random.Generator) -> Floats:
        h, w = (-(-n // 4) for n in image.shape[:2])
        threshold = np.tile(BAYER, (h, w))[: image.shape[0], : image.shape[1], None]
        return np.floor(image / step + threshold) * step

    return put


def dead_pixels(rng: np.random.Generator) -> Put:
    count, seed, level = int(rng.integers(5, 10)), int(rng.integers(1 << 30)), float(rng.choice([0, 255]))

    def put(image: Floats, _: np.random.Generator) -> Floats:
        out = image.copy()
        flat = np.random.default_rng(seed).choice(image.shape[0] * image.shape[1], count, replace=False)
        out.reshape(-1, 3)[flat, np.arange(count) % 3] = level
        return out

    return put


def combing(rng: np.random.Generator) -> Put:
    by = int(rng.integers(1, 4))

    def put(image: Floats, _: np.random.Generator) -> Floats:
        out = image.copy()
        out[1::2] = np.roll(image[1::2], by, 1)
        return out

    return put


def sharpened(rng: np.random.Generator) -> Put:
    much, width = rng.uniform(1.0, 2.0), rng.uniform(0.8, 1.5)
    return lambda image, _: image + much * (image - ndimage.gaussian_filter(image, (width, width, 0)))


def ghost(rng: np.random.Generator) -> Put:
    opacity, by = rng.uniform(0.3, 0.45), rng.integers(3, 9, 2) * rng.choice([-1, 1], 2)
    return lambda image, _: (1 - opacity) * image + opacity * np.roll(image, by, (0, 1))


def barrel(rng: np.random.Generator) -> Put:
    much = rng.uniform(0.5, 0.9) * rng.choice([-0.5, 1])

    def put(image: Floats, _: np.random.Generator) -> Floats:
        y, x = (side - 0.5 for side in grid(image))
        scale = 1 + much * (y**2 + x**2)
        return warp(image, 0.5 + y * scale, 0.5 + x * scale)

    return put


def shadow(rng: np.random.Generator) -> Put:
    opacity, size = rng.uniform(0.6, 0.85), rng.uniform(0.3, 0.45)

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        y, x = grid(image)
        along, side = rng.random(), rng.integers(4)
        a, b = [(0, along), (1, along), (along, 0), (along, 1)][side]
        return image * (1 - opacity * np.exp(-((np.hypot(y - a, x - b) / size) ** 4)))[..., None]

    return put


def gradient(rng: np.random.Generator) -> Put:
    colour, opacity = rng.integers(0, 256, 3).astype(float), rng.uniform(0.5, 0.7)

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        y, x = grid(image)
        plane = np.rot90(np.broadcast_to(y + 0 * x, image.shape[:2]), rng.integers(4))
        return blend(image, opacity * np.clip(2 * plane - 1, 0, 1), colour)

    return put


def duotone(rng: np.random.Generator) -> Put:
    dark, light = rng.uniform(0, 60, 3), rng.uniform(190, 255, 3)
    opacity = rng.uniform(0.6, 0.9)

    def put(image: Floats, _: np.random.Generator) -> Floats:
        grey = image.mean(-1, keepdims=True) / 255
        return (1 - opacity) * image + opacity * (dark + grey * (light - dark))

    return put


def solarised(rng: np.random.Generator) -> Put:
    above = rng.uniform(150, 210)
    return lambda image, _: np.where(image > above, 2 * above - image, image)


def smeared_colour(rng: np.random.Generator) -> Put:
    width = rng.uniform(2.5, 5)

    def put(image: Floats, _: np.random.Generator) -> Floats:
        grey = image.mean(-1, keepdims=True)
        return grey + ndimage.gaussian_filter(image - grey, (width, width, 0))

    return put


def mesh(rng: np.random.Generator) -> Put:
    period, level, opacity = int(rng.integers(4, 9)), float(rng.choice([0, 255])), rng.uniform(0.25, 0.5)

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        a, b = rng.integers(0, period, 2)
        lines = np.zeros(image.shape[:2])
        lines[a::period] = lines[:, b::period] = opacity
        return blend(image, lines, np.full(3, level))

    return put


def torn_corner(rng: np.random.Generator) -> Put:
    colour, size = rng.integers(0, 256, 3).astype(float), rng.uniform(0.25, 0.4)

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        y, x = grid(image)
        plane = np.rot90(y / size + x / (size * rng.uniform(0.7, 1.4)) < 1, rng.integers(4))
        return blend(image, plane.astype(float), colour)

    return put


def snow(rng: np.random.Generator) -> Put:
    count, opacity = int(rng.integers(15, 35)), rng.uniform(0.6, 0.95)
    return lambda image, rng: blend(image, opacity * discs(image, count, (0.015, 0.03), rng, 0.03), np.full(3, 250.0))


def bokeh(rng: np.random.Generator) -> Put:
    colour, opacity = rng.uniform(150, 255, 3), rng.uniform(0.4, 0.6)
    return lambda image, rng: blend(image, opacity * discs(image, 6, (0.06, 0.12), rng, 0.03), colour)


def row_jitter(rng: np.random.Generator) -> Put:
    most = int(rng.integers(1, 4))
    return lambda image, rng: np.stack([np.roll(row, int(rng.integers(-most, most + 1)), 0) for row in image])


def bloom(rng: np.random.Generator) -> Put:
    width, much = rng.uniform(1.5, 3), rng.uniform(0.5, 0.9)

    def put(image: Floats, _: np.random.Generator) -> Floats:
        bright = np.maximum(image - 140, 0) * 2
        return image + much * ndimage.gaussian_filter(bright, (width, width, 0))

    return put


def cross(rng: np.random.Generator) -> Put:
    colour, size = rng.integers(0, 256, 3).astype(float), rng.uniform(0.12, 0.2)

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        y, x = grid(image)
        (a, b), turn = rng.uniform(0.2, 0.8, 2), rng.uniform(0, np.pi / 2)
        u, v = (y - a) * np.cos(turn) + (x - b) * np.sin(turn), (x - b) * np.cos(turn) - (y - a) * np.sin(turn)
        arms = (np.minimum(abs(u), abs(v)) < 0.03) & (np.maximum(abs(u), abs(v)) < size)
        return blend(image, arms.astype(float), colour)

    return put


def barcode(rng: np.random.Generator) -> Put:
    height, width = rng.uniform(0.15, 0.22), rng.uniform(0.3, 0.42)

    def put(image: Floats, rng: np.random.Generator) -> Floats:
        h, w = round(height * image.shape[0]), round(width * image.shape[1])
        a, b = rng.integers(0, image.shape[0] - h + 1), rng.integers(0, image.shape[1] - w + 1)
        out = image.copy()
        out[a : a + h, b : b + w] = 245 * rng.integers(0, 2, w)[None, :, None]
        return out

    return put


def turned(rng: np.random.Generator) -> Put:
    angle = rng.uniform(12, 25) * rng.choice([-1, 1])

    def put(image: Floats, _: np.random.Generator) -> Floats:
        return ndimage.rotate(image, angle, reshape=False, order=1, mode="nearest")

    return put


def crushed(rng: np.random.Generator) -> Put:
    low, high = rng.uniform(50, 90), rng.uniform(170, 210)
    return lambda image, _: (np.clip(image, low, high) - low) / (high - low) * 255


def dust(rng: np.random.Generator) -> Put:
    count, opacity = int(rng.integers(4, 8)), rng.uniform(0.35, 0.6)
    return lambda image, rng: image * (1 - opacity * discs(image, count, (0.03, 0.05), rng, 0.08))[..., None]


KINDS: dict[str, Kind] = {
    one.__name__.replace("_", "-"): one
    for one in (
        aberration, posterised, raindrops, ring, spot, mosaic, dither, dead_pixels, combing, sharpened, ghost, barrel,
        shadow, gradient, duotone, solarised, smeared_colour, mesh, torn_corner, snow, bokeh, row_jitter, bloom, cross,
        barcode, turned, crushed, dust,
    )
}  # fmt: skip


def kinds_of(fresh: bool) -> tuple[str, ...]:
    """Names of the kinds to develop on, or of those that are measured once."""
    drawn = generator(0, "untaught kinds").permutation(sorted(KINDS)).tolist()
    half = len(drawn) // 2
    return tuple(sorted(drawn[half:] if fresh else drawn[:half]))


def put(images: Pixels, kind: str, seed: int, number: int, kinds: dict[str, Kind] = KINDS) -> Pixels:
    """Put artifact `number` of a seed on images uint8 (n, H, W, 3)."""
    artifact = kinds[kind](generator(seed, "untaught", number))
    drawn = [artifact(x.astype(float), generator(seed, "untaught images", number, i)) for i, x in enumerate(images)]
    return np.clip(np.rint(np.stack(drawn)), 0, 255).astype(np.uint8)
