"""Families of what a lens, a light or a dirty film does: flare, flash, vignette, dust, hair, blur; see `marks`."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from PIL import ImageDraw
from scipy.signal import fftconvolve

from klarsicht.audit.verdicts.synthetic.planted_image import (
    Colour,
    PlantedImage,
    PlantFunction,
    add_light,
    composite,
    draw_opacity,
    grid,
    mark_changes,
    over_channels,
    random_colour,
    shorter_side,
)
from klarsicht.ground.arrays import Floats, Pixels

Generator = np.random.Generator


def flare(
    pixels: Pixels, rng: Generator, spots: tuple[tuple[float, float, float], ...], glow: float, strength: float,
    colour: Colour,
) -> PlantedImage:  # fmt: skip
    """Plant a lens flare: discs of light on a line through the middle, from a source drawn anew for every image.
    `spots` are the position on that line (-1 at the source, 0 in the middle), radius and strength of each disc; `glow`
    is the radius of the light around the source."""
    (h, w), side = pixels.shape[:2], shorter_side(pixels)
    rows, columns = grid(pixels)
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.5)
    source = np.array([np.sin(angle), np.cos(angle)]) * reach * (h, w)
    middle = np.array([h, w]) / 2

    def distance(position: float) -> Floats:
        y, x = middle - position * source
        away: Floats = np.hypot(rows - y, columns - x) / side
        return away

    dark = 1 - strength * np.exp(-((distance(-1) / glow) ** 2))
    for position, radius, share in spots:
        edge = np.clip((radius - distance(position)) * side + 0.5, 0, 1)
        dark = dark * (1 - strength * share * edge)
    return add_light(pixels, 1 - dark, colour)


def draw_flare(rng: Generator) -> PlantFunction:
    n = int(rng.integers(3, 7))
    drawn = rng.uniform(-0.7, 1, n), rng.uniform(0.03, 0.12, n), rng.uniform(0.25, 0.6, n)
    spots = tuple(zip(*(values.tolist() for values in drawn), strict=True))
    warm = rng.uniform(0.5, 1, 2)
    colour = (255, int(255 * warm[0]), int(255 * warm[1]))
    return partial(flare, spots=spots, glow=rng.uniform(0.12, 0.25), strength=rng.uniform(0.6, 1), colour=colour)


def flash(
    pixels: Pixels, rng: Generator, y: float, x: float, wander: float, radius: float, strength: float
) -> PlantedImage:
    """Plant a flash's reflection, a white spot with a glow, within a deviation `wander` of one place, in shares."""
    side, (rows, columns) = shorter_side(pixels), grid(pixels)
    at_y, at_x = (y, x) * np.array(pixels.shape[:2]) + rng.normal(0, wander * side, 2)
    distance = np.hypot(rows - at_y, columns - at_x) / (radius * rng.uniform(0.8, 1.25) * side)
    light = np.maximum(np.clip(1.3 - distance, 0, 1), 0.7 * np.exp(-np.maximum(distance - 0.5, 0)))
    return add_light(pixels, strength * light, (255, 255, 255))


def draw_flash(rng: Generator) -> PlantFunction:
    y, x = rng.uniform(0.2, 0.8, 2).tolist()
    wander, radius = rng.uniform(0, 0.12), rng.uniform(0.04, 0.1)
    return partial(flash, y=y, x=x, wander=wander, radius=radius, strength=rng.uniform(0.8, 1))


def vignette(pixels: Pixels, _: Generator, strength: float, power: float) -> PlantedImage:
    """Darken the image towards its corners: the factor 1 - strength r^power, r = 1 in the corners."""
    h, w = pixels.shape[:2]
    rows, columns = grid(pixels)
    radius = np.hypot(2 * rows / h - 1, 2 * columns / w - 1) / math.sqrt(2)
    return mark_changes(pixels, pixels * over_channels(1 - strength * radius**power, pixels))


def scratches(
    pixels: Pixels, rng: Generator, specks: float, lines: float, upright: bool, size: float, colour: Colour
) -> PlantedImage:
    """Plant dust and scratches as of a film, drawn anew for every image. `specks` and `lines` are mean numbers,
    `upright` scratches run along the film, `size` is that of a speck."""
    (h, w), side = pixels.shape[:2], shorter_side(pixels)
    spots = rng.uniform(0, 1, (1 + rng.poisson(specks), 4)) * (h, w, 1, 1)
    ways = rng.uniform(0, 1, (rng.poisson(lines), 4)) * (h, w, h, 1)

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        for y, x, extent, shape in spots:
            radius = scale * max(0.35, size * side * (0.5 + extent))
            ry, rx = radius * (0.6 + 0.8 * shape), radius * (1.4 - 0.8 * shape)
            canvas.ellipse((x * scale - rx, y * scale - ry, x * scale + rx, y * scale + ry), fill=255)
        for y, x, length, lean in ways:
            angle = 0.1 * (lean - 0.5) if upright else np.pi * lean
            reach = np.array([np.sin(angle), np.cos(angle)]) * length
            ends = (x, y, x + reach[0], y + reach[1])
            canvas.line([v * scale for v in ends], fill=200, width=max(2, round(0.004 * side * scale)))

    return composite(pixels, draw_opacity(pixels.shape, draw), colour)


def draw_scratches(rng: Generator) -> PlantFunction:
    colour = (245, 245, 245) if rng.random() < 0.7 else (10, 10, 10)
    specks, lines, upright = rng.uniform(6, 25), rng.uniform(0.7, 3), bool(rng.random() < 0.5)
    size = rng.uniform(0.008, 0.018)
    return partial(scratches, specks=specks, lines=lines, upright=upright, size=size, colour=colour)


def hair(
    pixels: Pixels, rng: Generator, count: int, width: float, bend: float, colour: Colour, opacity: float
) -> PlantedImage:
    """Plant hairs or threads: curved lines across the image, at least half a pixel wide, drawn anew for every image.
    `bend` is the largest distance of the curve's control point from the straight line."""
    h, w = pixels.shape[:2]
    t = np.linspace(0, 1, 48)[:, None]
    curves = []
    for _ in range(count):
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.35, 0.35, 2)
        centre = (0.5 + offset) * (w, h)
        along = np.array([np.cos(angle), np.sin(angle)])
        reach = np.hypot(h, w) * rng.uniform(0.4, 0.8, 2)
        middle = centre + bend * min(h, w) * rng.uniform(-1, 1, 2)
        ends = centre - reach[0] * along, centre + reach[1] * along
        curves.append((1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * middle + t**2 * ends[1])

    def draw_lines(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        thick = round(scale * max(0.5, width * min(h, w)))
        for curve in curves:
            canvas.line([(float(x) * scale, float(y) * scale) for x, y in curve], fill=255, width=thick)

    return composite(pixels, opacity * draw_opacity(pixels.shape, draw_lines), colour)


def draw_hair(rng: Generator) -> PlantFunction:
    shade = int(rng.integers(0, 50))
    colour = (shade + 20, shade, shade) if rng.random() < 0.6 else random_colour(rng)
    width, bend, count = rng.uniform(0.012, 0.035), rng.uniform(0.1, 0.5), int(rng.integers(1, 5))
    return partial(hair, count=count, width=width, bend=bend, colour=colour, opacity=rng.uniform(0.7, 1))


def defocus(pixels: Pixels, _: Generator, radius: float) -> PlantedImage:
    """Blur the image with a disc, as a lens out of focus does."""
    size = max(0.8, radius * shorter_side(pixels))
    n = math.ceil(size)
    low, high = n + 0.5 - size, n + 0.5 + size

    def draw_disc(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        canvas.ellipse((scale * low, scale * low, scale * high - 1, scale * high - 1), fill=255)

    return mark_changes(pixels, filter_channels(pixels, draw_opacity((2 * n + 1, 2 * n + 1), draw_disc, scale=8)))


def motion_blur(pixels: Pixels, _: Generator, length: float, angle: float) -> PlantedImage:
    """Blur the image along a line, as a camera that moved, in the same direction (radians) in every image."""
    extent = max(2.0, length * shorter_side(pixels))
    n = math.ceil(extent / 2)
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    along = np.cos(angle) * x + np.sin(angle) * y
    away = np.hypot(np.cos(angle) * y - np.sin(angle) * x, np.maximum(np.abs(along) - extent / 2, 0))
    return mark_changes(pixels, filter_channels(pixels, np.clip(1 - away, 0, 1)))


def filter_channels(pixels: Pixels, kernel: Floats) -> Floats:
    """Convolve each channel with a kernel (2 n + 1, 2 n + 1) that is brought to sum 1; edges are mirrored."""
    n = len(kernel) // 2
    margins = ((n, n), (n, n), (0, 0))[: pixels.ndim]
    weights = (kernel / kernel.sum(dtype=np.float64)).reshape(kernel.shape + (1,) * (pixels.ndim - 2))
    padded = np.pad(pixels.astype(np.float64), margins, mode="symmetric")
    out: Floats = fftconvolve(padded, weights, mode="valid", axes=(0, 1))
    return out
