"""Families of marks: tags, captions, stamps, watermarks, rulers and logos, put over the image."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

import numpy as np
from PIL import ImageDraw
from scipy.ndimage import map_coordinates

from klarsicht.audit.verdicts.synthetic.planted_image import (
    Colour,
    PlantedImage,
    Position,
    channels,
    colour_pair,
    composite,
    draw_opacity,
    grid,
    mark_changes,
    over_channels,
    place,
    render_text,
    shorter_side,
)
from klarsicht.ground.arrays import Pixels

DISPLAY_COLOURS: tuple[Colour, ...] = ((255, 140, 0), (255, 60, 30), (255, 230, 60), (90, 255, 90), (255, 255, 255))
DATE_FORMATS = ("%d.%m.%y", "%y %m %d", "'%y %d %m", "%H:%M", "%d %b %Y")
FIRST_DATE = datetime(1995, 1, 1)
DATE_RANGE = 30 * 365 * 24 * 60  # minutes
LOGO_SCALE = (0.5, 2.0)


@dataclass(frozen=True)
class Tag:
    """Plants a square of `cells` x `cells` squares of two colours.

    Attributes:
        cells: which squares have the second colour, row by row.
        side: of the tag, as a share of the image's shorter side.
    """

    cells: tuple[tuple[bool, ...], ...]
    colours: tuple[Colour, Colour]
    side: float
    opacity: float
    position: Position

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        n = int(rng.integers(2, 6))
        cells = rng.integers(0, 2, (n, n)).astype(bool)
        cells[0, 0], cells[-1, -1] = False, True
        side = rng.uniform(0.1, 0.22)
        opacity = rng.uniform(0.6, 1)
        return cls(tuple(map(tuple, cells.tolist())), colour_pair(rng), side, opacity, Position.draw(rng))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        side = max(2, round(self.side * shorter_side(pixels)))
        row, column = self.position.corner(pixels.shape, (side, side), rng)
        index = np.arange(side) * len(self.cells) // side
        second = np.asarray(self.cells)[np.ix_(index, index)]
        values = pixels.astype(np.float32)
        here = values[row : row + side, column : column + side]
        first, other = (channels(colour, pixels) for colour in self.colours)
        here[...] += self.opacity * (np.where(over_channels(second, pixels), other, first) - here)
        return mark_changes(pixels, values)


@dataclass(frozen=True)
class Caption:
    """Plants the same few letters in every image, with or without a box behind them.

    Attributes:
        height: of the letters, as a share of the image's shorter side.
        box: opacity of the box; 0 for none.
    """

    words: str
    height: float
    colours: tuple[Colour, Colour]
    box: float
    position: Position

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        letters = [*string.ascii_uppercase, *string.digits]
        words = "".join(rng.choice(letters, int(rng.integers(2, 6))))
        box = 0.0 if rng.random() < 0.4 else rng.uniform(0.6, 1)
        return cls(words, rng.uniform(0.12, 0.22), colour_pair(rng), box, Position.draw(rng))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        text = render_text(self.words, self.height * shorter_side(pixels), 0.9 * pixels.shape[1])
        margin = max(1, text.shape[0] // 5)
        text = np.pad(text, margin)
        corner = self.position.corner(pixels.shape, text.shape, rng)
        box = self.box * place(np.ones_like(text), pixels.shape, corner)
        under = composite(pixels, box, self.colours[0]).pixels
        over = composite(under, place(text, pixels.shape, corner), self.colours[1]).pixels
        return mark_changes(pixels, over)


@dataclass(frozen=True)
class DateStamp:
    """Plants a date or a time that is drawn anew for every image, as cameras print it, always in the same corner.

    Attributes:
        width: of the stamp, as a share of the image's width; the digits are at most a sixth of the height high.
        margin: to the image's edges, as a share of the shorter side.
    """

    pattern: str
    colour: Colour
    width: float
    corner: tuple[int, int]
    margin: float
    glow: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        pattern, colour = DATE_FORMATS[rng.integers(len(DATE_FORMATS))], int(rng.integers(len(DISPLAY_COLOURS)))
        corner = (int(rng.random() < 0.75), int(rng.random() < 0.75))
        glow = 0.0 if rng.random() < 0.5 else rng.uniform(0.2, 0.6)
        return cls(pattern, DISPLAY_COLOURS[colour], rng.uniform(0.4, 0.7), corner, rng.uniform(0.01, 0.06), glow)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        h, w = pixels.shape[:2]
        when = FIRST_DATE + timedelta(minutes=int(rng.integers(DATE_RANGE)))
        text = render_text(when.strftime(self.pattern), h / 6, self.width * w)
        margin = round(self.margin * min(h, w))
        top = h - margin - text.shape[0] if self.corner[0] else margin
        left = w - margin - text.shape[1] if self.corner[1] else margin
        box = np.pad(np.ones_like(text), 1)
        around = self.glow * place(box, pixels.shape, (max(top - 1, 0), max(left - 1, 0)))
        dark = composite(pixels, around, (0, 0, 0)).pixels
        text = np.minimum(1.5 * text, 1)  # thin strokes of small digits stay visible
        return mark_changes(pixels, composite(dark, place(text, pixels.shape, (top, left)), self.colour).pixels)


@dataclass(frozen=True)
class Watermark:
    """Plants a word over the whole image in tiles, at an angle, half transparent.

    Attributes:
        period: distance of two tiles along a line of text, as a share of the shorter side; across lines half of it.
        angle: radians.
        phase: of the tiles, in [0, 1); None: drawn anew for every image.
    """

    words: str
    period: float
    angle: float
    opacity: float
    colour: Colour
    phase: tuple[float, float] | None

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        words = "".join(rng.choice([*string.ascii_uppercase], int(rng.integers(2, 5))))
        shade = 255 if rng.random() < 0.7 else 0
        phase = (float(rng.random()), float(rng.random())) if rng.random() < 0.5 else None
        angle, opacity = rng.uniform(-np.pi / 4, np.pi / 4), rng.uniform(0.25, 0.55)
        return cls(words, rng.uniform(0.35, 0.6), angle, opacity, (shade, shade, shade), phase)

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        phase = self.phase or (rng.random(), rng.random())
        step = max(6.0, self.period * shorter_side(pixels))
        text = render_text(self.words, 0.8 * step, 1.7 * step)  # twice as fine as the image
        tile = np.zeros((math.ceil(step), math.ceil(2 * step)), np.float32)
        tile[: text.shape[0], : text.shape[1]] = text
        rows, columns = grid(pixels)
        along = np.cos(self.angle) * columns + np.sin(self.angle) * rows
        across = np.cos(self.angle) * rows - np.sin(self.angle) * columns
        places = [(across / (step / 2) + phase[0]) * tile.shape[0], (along / step + phase[1]) * tile.shape[1]]
        opacity = np.clip(map_coordinates(tile, places, order=1, mode="grid-wrap"), 0, 1)
        return composite(pixels, self.opacity * opacity, self.colour)


@dataclass(frozen=True)
class Ruler:
    """Plants a ruler with ticks, at an angle and a place that are drawn anew for every image.

    Attributes:
        length, width: as shares of the image's shorter side.
        ticks: their number.
        turns: largest angle, radians; pi for any.
    """

    length: float
    width: float
    ticks: int
    colours: tuple[Colour, Colour]
    turns: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        turns = np.pi if rng.random() < 0.7 else rng.uniform(0, 0.3)
        size = rng.uniform(0.45, 0.9), rng.uniform(0.08, 0.16)
        return cls(*size, int(rng.integers(6, 13)), colour_pair(rng), float(turns))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        side, angle = shorter_side(pixels), rng.uniform(-self.turns, self.turns)
        half = np.array([self.length, self.width]) * side / 2
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        reach = np.abs(turn) @ half
        size = np.array(pixels.shape[1::-1])
        room = np.maximum(size / 2 - reach, 0)
        centre = size / 2 + rng.uniform(-1, 1, 2) * room

        def at(u: float, v: float) -> tuple[float, float]:
            x, y = turn @ (np.array([u, v]) * half) + centre
            return float(x), float(y)

        def body(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            corners = [at(-1, -1), at(1, -1), at(1, 1), at(-1, 1)]
            canvas.polygon([(x * scale, y * scale) for x, y in corners], fill=255)

        def ticks(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            thick = max(1, round(0.7 * scale * half[0] / self.ticks))
            for i in range(self.ticks):
                u = -1 + (2 * i + 1) / self.ticks
                ends = (at(u, -1), at(u, 0.5 if i % 5 == 0 else -0.1))
                canvas.line([(x * scale, y * scale) for x, y in ends], fill=255, width=thick)

        under = composite(pixels, draw_opacity(pixels.shape, body), self.colours[0]).pixels
        return mark_changes(pixels, composite(under, draw_opacity(pixels.shape, ticks), self.colours[1]).pixels)


@dataclass(frozen=True)
class Logo:
    """Plants a disc or a square with a polygon inside, at a place and a scale that are drawn anew for every image.

    Attributes:
        corners: of the polygon on the unit square.
        side: of the logo at scale 1, as a share of the image's shorter side; scales are LOGO_SCALE, by logarithm.
        round: whether it is a disc.
    """

    corners: tuple[tuple[float, float], ...]
    side: float
    colours: tuple[Colour, Colour]
    round: bool
    opacity: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        n = int(rng.integers(3, 8))
        angles = np.sort(rng.uniform(0, 2 * np.pi, n)) + rng.uniform(0, 2 * np.pi)
        radii = rng.uniform(0.2, 0.45, n)
        corners = zip(0.5 + radii * np.cos(angles), 0.5 + radii * np.sin(angles), strict=True)
        shape = tuple((float(x), float(y)) for x, y in corners)
        return cls(shape, rng.uniform(0.13, 0.2), colour_pair(rng), bool(rng.random() < 0.5), rng.uniform(0.7, 1))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        scale = math.exp(rng.uniform(*np.log(LOGO_SCALE)))
        side = max(3, round(self.side * scale * shorter_side(pixels)))
        room = [max(length - side, 0) for length in pixels.shape[:2]]
        corner = (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)))

        def body(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            box = (0, 0, side * scale - 1, side * scale - 1)
            (canvas.ellipse if self.round else canvas.rectangle)(box, fill=255)

        def inside(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            canvas.polygon([(x * side * scale, y * side * scale) for x, y in self.corners], fill=255)

        layers = [self.opacity * draw_opacity((side, side), part) for part in (body, inside)]
        out = pixels
        for layer, colour in zip(layers, self.colours, strict=True):
            out = composite(out, place(layer, pixels.shape, corner), colour).pixels
        return mark_changes(pixels, out)
