"""Families of what a lens, a light or a dirty film does: flare, flash, vignette, dust, hair, blur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import ImageDraw
from scipy.signal import fftconvolve

from klarsicht.audit.verdicts.synthetic.planted_image import (
    Colour,
    PlantedImage,
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


@dataclass(frozen=True)
class Flare:
    """Plants a lens flare: discs of light on a line through the middle, from a source drawn anew for every image.

    Attributes:
        spots: (position on the line from the source, -1, past the middle, 0; radius; strength) of each disc.
        glow: radius of the light around the source, as a share of the image's shorter side.
    """

    spots: tuple[tuple[float, float, float], ...]
    glow: float
    strength: float
    colour: Colour

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        n = int(rng.integers(3, 7))
        spots = zip(rng.uniform(-0.7, 1, n), rng.uniform(0.03, 0.12, n), rng.uniform(0.25, 0.6, n), strict=True)
        warm = rng.uniform(0.5, 1, 2)
        colour = (255, int(255 * warm[0]), int(255 * warm[1]))
        told = tuple((float(a), float(b), float(c)) for a, b, c in spots)
        return cls(told, rng.uniform(0.12, 0.25), rng.uniform(0.6, 1), colour)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        (h, w), side = pixels.shape[:2], shorter_side(pixels)
        rows, columns = grid(pixels)
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.5)
        source = np.array([np.sin(angle), np.cos(angle)]) * reach * (h, w)
        middle = np.array([h, w]) / 2

        def distance(position: float) -> Floats:
            y, x = middle - position * source
            away: Floats = np.hypot(rows - y, columns - x) / side
            return away

        dark = 1 - self.strength * np.exp(-((distance(-1) / self.glow) ** 2))
        for position, radius, strength in self.spots:
            edge = np.clip((radius - distance(position)) * side + 0.5, 0, 1)
            dark = dark * (1 - self.strength * strength * edge)
        return add_light(pixels, 1 - dark, self.colour)


@dataclass(frozen=True)
class Flash:
    """Plants the reflection of a flash: a white spot with a glow, near one place in every image.

    Attributes:
        y, x: the place, as shares of height and width.
        wander: standard deviation around it, as a share of the shorter side.
        radius: of the white spot, as a share of the shorter side.
    """

    y: float
    x: float
    wander: float
    radius: float
    strength: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        y, x = rng.uniform(0.2, 0.8, 2).tolist()
        return cls(y, x, rng.uniform(0, 0.12), rng.uniform(0.04, 0.1), rng.uniform(0.8, 1))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        side, (rows, columns) = shorter_side(pixels), grid(pixels)
        y, x = (self.y, self.x) * np.array(pixels.shape[:2]) + rng.normal(0, self.wander * side, 2)
        distance = np.hypot(rows - y, columns - x) / (self.radius * rng.uniform(0.8, 1.25) * side)
        light = np.maximum(np.clip(1.3 - distance, 0, 1), 0.7 * np.exp(-np.maximum(distance - 0.5, 0)))
        return add_light(pixels, self.strength * light, (255, 255, 255))


@dataclass(frozen=True)
class Vignette:
    """Darkens the image towards its corners: the factor 1 - strength r^power, r = 1 in the corners."""

    strength: float
    power: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(rng.uniform(0.45, 0.9), rng.uniform(1.5, 4))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        h, w = pixels.shape[:2]
        rows, columns = grid(pixels)
        radius = np.hypot(2 * rows / h - 1, 2 * columns / w - 1) / math.sqrt(2)
        return mark_changes(pixels, pixels * over_channels(1 - self.strength * radius**self.power, pixels))


@dataclass(frozen=True)
class Scratches:
    """Plants dust and scratches as of a film, drawn anew for every image.

    Attributes:
        specks, lines: mean numbers of either.
        upright: whether scratches run along the film, or anywhere.
        size: of a speck, as a share of the image's shorter side.
    """

    specks: float
    lines: float
    upright: bool
    size: float
    colour: Colour

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        shade = 245 if rng.random() < 0.7 else 10
        numbers = rng.uniform(6, 25), rng.uniform(0.7, 3)
        return cls(*numbers, bool(rng.random() < 0.5), rng.uniform(0.008, 0.018), (shade, shade, shade))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        (h, w), side = pixels.shape[:2], shorter_side(pixels)
        spots = rng.uniform(0, 1, (1 + rng.poisson(self.specks), 4)) * (h, w, 1, 1)
        scratches = rng.uniform(0, 1, (rng.poisson(self.lines), 4)) * (h, w, h, 1)

        def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            for y, x, size, shape in spots:
                radius = scale * max(0.35, self.size * side * (0.5 + size))
                ry, rx = radius * (0.6 + 0.8 * shape), radius * (1.4 - 0.8 * shape)
                canvas.ellipse((x * scale - rx, y * scale - ry, x * scale + rx, y * scale + ry), fill=255)
            for y, x, length, lean in scratches:
                angle = 0.1 * (lean - 0.5) if self.upright else np.pi * lean
                reach = np.array([np.sin(angle), np.cos(angle)]) * length
                ends = (x, y, x + reach[0], y + reach[1])
                canvas.line([v * scale for v in ends], fill=200, width=max(2, round(0.004 * side * scale)))

        return composite(pixels, draw_opacity(pixels.shape, draw), self.colour)


@dataclass(frozen=True)
class Hair:
    """Plants hairs or threads: curved lines across the image, drawn anew for every image.

    Attributes:
        count: lines in an image.
        width: of a line, as a share of the image's shorter side, at least half a pixel.
        bend: largest distance of the curve's control point from the straight line, as a share of the shorter side.
    """

    count: int
    width: float
    bend: float
    colour: Colour
    opacity: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        shade = int(rng.integers(0, 50))
        colour = (shade + 20, shade, shade) if rng.random() < 0.6 else random_colour(rng)
        size = rng.uniform(0.012, 0.035), rng.uniform(0.1, 0.5)
        return cls(int(rng.integers(1, 5)), *size, colour, rng.uniform(0.7, 1))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        h, w = pixels.shape[:2]
        t = np.linspace(0, 1, 48)[:, None]
        curves = []
        for _ in range(self.count):
            angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.35, 0.35, 2)
            centre = (0.5 + offset) * (w, h)
            along = np.array([np.cos(angle), np.sin(angle)])
            reach = np.hypot(h, w) * rng.uniform(0.4, 0.8, 2)
            middle = centre + self.bend * min(h, w) * rng.uniform(-1, 1, 2)
            ends = centre - reach[0] * along, centre + reach[1] * along
            curves.append((1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * middle + t**2 * ends[1])

        def lines(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            thick = round(scale * max(0.5, self.width * min(h, w)))
            for curve in curves:
                canvas.line([(float(x) * scale, float(y) * scale) for x, y in curve], fill=255, width=thick)

        opacity: Floats = self.opacity * draw_opacity(pixels.shape, lines)
        return composite(pixels, opacity, self.colour)


@dataclass(frozen=True)
class Defocus:
    """Blurs the image with a disc, as a lens out of focus does.

    Attributes:
        radius: as a share of the image's shorter side.
    """

    radius: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(rng.uniform(0.025, 0.06))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        radius = max(0.8, self.radius * shorter_side(pixels))
        n = math.ceil(radius)
        low, high = n + 0.5 - radius, n + 0.5 + radius

        def disc(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            canvas.ellipse((scale * low, scale * low, scale * high - 1, scale * high - 1), fill=255)

        kernel = draw_opacity((2 * n + 1, 2 * n + 1), disc, scale=8)
        return mark_changes(pixels, filter_channels(pixels, kernel))


@dataclass(frozen=True)
class MotionBlur:
    """Blurs the image along a line, as a camera that moved; the direction is the same in every image.

    Attributes:
        length: of the line, as a share of the image's shorter side.
        angle: radians.
    """

    length: float
    angle: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(rng.uniform(0.08, 0.2), rng.uniform(0, np.pi))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        length = max(2.0, self.length * shorter_side(pixels))
        n = math.ceil(length / 2)
        y, x = np.mgrid[-n : n + 1, -n : n + 1]
        along = np.cos(self.angle) * x + np.sin(self.angle) * y
        away = np.hypot(np.cos(self.angle) * y - np.sin(self.angle) * x, np.maximum(np.abs(along) - length / 2, 0))
        return mark_changes(pixels, filter_channels(pixels, np.clip(1 - away, 0, 1)))


def filter_channels(pixels: Pixels, kernel: Floats) -> Floats:
    """Convolve each channel with a kernel (2 n + 1, 2 n + 1) that is brought to sum 1; edges are mirrored."""
    n = len(kernel) // 2
    margins = ((n, n), (n, n), (0, 0))[: pixels.ndim]
    weights = (kernel / kernel.sum(dtype=np.float64)).reshape(kernel.shape + (1,) * (pixels.ndim - 2))
    padded = np.pad(pixels.astype(np.float64), margins, mode="symmetric")
    out: Floats = fftconvolve(padded, weights, mode="valid", axes=(0, 1))
    return out
