"""Families of margins: stripes, frames, and surroundings of one colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import ImageDraw

from klarsicht.audit.verdicts.synthetic.planted_image import (
    Colour,
    PlantedImage,
    composite,
    draw_opacity,
    grid,
    random_colour,
    shorter_side,
)
from klarsicht.ground.arrays import Floats, Pixels

SIDES = ("top", "bottom", "left", "right")


def _stripe(pixels: Pixels, side: str, width: int) -> Floats:
    """Opacity (H, W) of a stripe along a side of the image: 1 on it, 0 elsewhere."""
    opacity = np.zeros(pixels.shape[:2], np.float32)
    along = opacity if side in ("top", "bottom") else opacity.T
    along[slice(width) if side in ("top", "left") else slice(-width, None)] = 1
    return opacity


@dataclass(frozen=True)
class Stripe:
    """Plants a stripe of one colour along one side of the image.

    Attributes:
        width: as a share of the image's shorter side.
    """

    side: str
    width: float
    colour: Colour
    opacity: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        side = SIDES[rng.integers(len(SIDES))]
        return cls(side, rng.uniform(0.04, 0.14), random_colour(rng), rng.uniform(0.7, 1))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        width = max(1, round(self.width * shorter_side(pixels)))
        return composite(pixels, self.opacity * _stripe(pixels, self.side, width), self.colour)


@dataclass(frozen=True)
class TwoStripes:
    """Plants stripes of one colour along two opposite sides, as of a film in another format.

    Attributes:
        width: of either, as a share of the image's shorter side.
    """

    upright: bool
    width: float
    colour: Colour

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(bool(rng.random() < 0.5), rng.uniform(0.04, 0.14), random_colour(rng))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        width = max(1, round(self.width * shorter_side(pixels)))
        sides = ("left", "right") if self.upright else ("top", "bottom")
        opacity = np.maximum(*(_stripe(pixels, side, width) for side in sides))
        return composite(pixels, opacity, self.colour)


@dataclass(frozen=True)
class Frame:
    """Plants a frame of one colour around the image.

    Attributes:
        width: as a share of the image's shorter side.
    """

    width: float
    colour: Colour
    opacity: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(rng.uniform(0.03, 0.1), random_colour(rng), rng.uniform(0.7, 1))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        width = max(1, round(self.width * shorter_side(pixels)))
        opacity = np.ones(pixels.shape[:2], np.float32)
        opacity[width:-width, width:-width] = 0
        return composite(pixels, self.opacity * opacity, self.colour)


@dataclass(frozen=True)
class RoundedFrame:
    """Plants a frame of one colour with a rounded opening.

    Attributes:
        width: of the frame in the middle of a side, as a share of the image's shorter side; may be 0.
        radius: of the opening's corners, as a share of the shorter side.
    """

    width: float
    radius: float
    colour: Colour

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        width = 0.0 if rng.random() < 0.4 else rng.uniform(0.02, 0.06)
        return cls(width, rng.uniform(0.15, 0.4), random_colour(rng))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        (h, w), side = pixels.shape[:2], shorter_side(pixels)

        def opening(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            margin = scale * self.width * side
            box = (margin, margin, scale * w - 1 - margin, scale * h - 1 - margin)
            canvas.rounded_rectangle(box, scale * self.radius * side, fill=255)

        return composite(pixels, 1 - draw_opacity(pixels.shape, opening), self.colour)


@dataclass(frozen=True)
class Background:
    """Plants a background of one colour: outside an ellipse near the middle, drawn anew for every image.

    Attributes:
        opacity: of the background far outside.
        edge: width of the transition, as a share of the ellipse's radius.
    """

    colour: Colour
    opacity: float
    edge: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(random_colour(rng), rng.uniform(0.5, 1), rng.uniform(0.05, 0.4))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        h, w = pixels.shape[:2]
        rows, columns = grid(pixels)
        cy, cx = rng.uniform(0.42, 0.58, 2)
        ry, rx = rng.uniform(0.36, 0.52, 2)
        radius = np.hypot((rows / h - cy) / ry, (columns / w - cx) / rx)
        return composite(pixels, self.opacity * np.clip((radius - 1) / self.edge, 0, 1), self.colour)
