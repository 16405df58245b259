"""Families of marks and margins: tags, captions, stamps, watermarks, rulers, logos; stripes, frames and backgrounds.
For each a function that plants it, and `draw_...`, which draws its parameters. Lengths are shares of the image's
shorter side unless said otherwise."""

from __future__ import annotations

import math
import string
from datetime import datetime, timedelta
from functools import partial

import numpy as np
from PIL import ImageDraw
from scipy.ndimage import map_coordinates

from klarsicht.audit.verdicts.synthetic.planted_image import (
    Colour,
    PlantedImage,
    PlantFunction,
    Position,
    channels,
    colour_pair,
    composite,
    draw_opacity,
    grid,
    mark_changes,
    over_channels,
    place,
    random_colour,
    render_text,
    shorter_side,
)
from klarsicht.ground.arrays import Floats, Pixels

DISPLAY_COLOURS: tuple[Colour, ...] = ((255, 140, 0), (255, 60, 30), (255, 230, 60), (90, 255, 90), (255, 255, 255))
DATE_FORMATS = ("%d.%m.%y", "%y %m %d", "'%y %d %m", "%H:%M", "%d %b %Y")
FIRST_DATE = datetime(1995, 1, 1)
DATE_RANGE = 30 * 365 * 24 * 60  # minutes
LOGO_SCALE = (0.5, 2.0)
SIDES = ("top", "bottom", "left", "right")
Generator = np.random.Generator
Colours = tuple[Colour, Colour]


def tag(
    pixels: Pixels, rng: Generator, cells: tuple[tuple[bool, ...], ...], colours: Colours, side: float,
    opacity: float, position: Position,
) -> PlantedImage:  # fmt: skip
    """Plant a square of squares of two colours; `cells` have the second one."""
    length = max(2, round(side * shorter_side(pixels)))
    row, column = position.corner(pixels.shape, (length, length), rng)
    index = np.arange(length) * len(cells) // length
    second = np.asarray(cells)[np.ix_(index, index)]
    values = pixels.astype(np.float32)
    here = values[row : row + length, column : column + length]
    first, other = (channels(colour, pixels) for colour in colours)
    here[...] += opacity * (np.where(over_channels(second, pixels), other, first) - here)
    return mark_changes(pixels, values)


def draw_tag(rng: Generator) -> PlantFunction:
    n = int(rng.integers(2, 6))
    cells = rng.integers(0, 2, (n, n)).astype(bool)
    cells[0, 0], cells[-1, -1] = False, True
    side, opacity = rng.uniform(0.1, 0.22), rng.uniform(0.6, 1)
    rows, colours = tuple(map(tuple, cells.tolist())), colour_pair(rng)
    return partial(tag, cells=rows, colours=colours, side=side, opacity=opacity, position=Position.draw(rng))


def caption(
    pixels: Pixels, rng: Generator, words: str, height: float, colours: Colours, box: float, position: Position
) -> PlantedImage:
    """Plant the same few letters in every image, on a box of opacity `box`, which may be 0."""
    text = render_text(words, height * shorter_side(pixels), 0.9 * pixels.shape[1])
    text = np.pad(text, max(1, text.shape[0] // 5))
    corner = position.corner(pixels.shape, text.shape, rng)
    under = composite(pixels, box * place(np.ones_like(text), pixels.shape, corner), colours[0]).pixels
    return mark_changes(pixels, composite(under, place(text, pixels.shape, corner), colours[1]).pixels)


def draw_caption(rng: Generator) -> PlantFunction:
    letters = [*string.ascii_uppercase, *string.digits]
    words = "".join(rng.choice(letters, int(rng.integers(2, 6))))
    box = 0.0 if rng.random() < 0.4 else rng.uniform(0.6, 1)
    height, colours = rng.uniform(0.12, 0.22), colour_pair(rng)
    return partial(caption, words=words, height=height, colours=colours, box=box, position=Position.draw(rng))


def date_stamp(
    pixels: Pixels, rng: Generator, pattern: str, colour: Colour, width: float, corner: tuple[int, int],
    margin: float, glow: float,
) -> PlantedImage:  # fmt: skip
    """Plant a date or a time that is drawn anew for every image, as cameras print it, always in the same corner.
    `width` is a share of the image's width; the digits are at most a sixth of the height high."""
    h, w = pixels.shape[:2]
    when = FIRST_DATE + timedelta(minutes=int(rng.integers(DATE_RANGE)))
    text, edge = render_text(when.strftime(pattern), h / 6, width * w), round(margin * min(h, w))
    top = h - edge - text.shape[0] if corner[0] else edge
    left = w - edge - text.shape[1] if corner[1] else edge
    around = glow * place(np.pad(np.ones_like(text), 1), pixels.shape, (max(top - 1, 0), max(left - 1, 0)))
    dark = composite(pixels, around, (0, 0, 0)).pixels
    text = np.minimum(1.5 * text, 1)  # thin strokes of small digits stay visible
    return mark_changes(pixels, composite(dark, place(text, pixels.shape, (top, left)), colour).pixels)


def draw_date_stamp(rng: Generator) -> PlantFunction:
    pattern, colour = DATE_FORMATS[rng.integers(len(DATE_FORMATS))], int(rng.integers(len(DISPLAY_COLOURS)))
    corner = (int(rng.random() < 0.75), int(rng.random() < 0.75))
    glow = 0.0 if rng.random() < 0.5 else rng.uniform(0.2, 0.6)
    width, margin = rng.uniform(0.4, 0.7), rng.uniform(0.01, 0.06)
    known = partial(date_stamp, pattern=pattern, colour=DISPLAY_COLOURS[colour], corner=corner)
    return partial(known, width=width, margin=margin, glow=glow)


def watermark(
    pixels: Pixels, rng: Generator, words: str, period: float, angle: float, opacity: float, colour: Colour,
    phase: tuple[float, float] | None,
) -> PlantedImage:  # fmt: skip
    """Plant a word over the whole image in tiles, half transparent. `period` is the distance of two tiles along a line
    of text, twice that across lines, `angle` in radians; `phase` of the tiles in [0, 1), drawn anew for every image
    where it is None."""
    across_phase, along_phase = phase or (rng.random(), rng.random())
    step = max(6.0, period * shorter_side(pixels))
    text = render_text(words, 0.8 * step, 1.7 * step)  # twice as fine as the image
    tile = np.zeros((math.ceil(step), math.ceil(2 * step)), np.float32)
    tile[: text.shape[0], : text.shape[1]] = text
    rows, columns = grid(pixels)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    across = np.cos(angle) * rows - np.sin(angle) * columns
    places = [(across / (step / 2) + across_phase) * tile.shape[0], (along / step + along_phase) * tile.shape[1]]
    shade = np.clip(map_coordinates(tile, places, order=1, mode="grid-wrap"), 0, 1)
    return composite(pixels, opacity * shade, colour)


def draw_watermark(rng: Generator) -> PlantFunction:
    words = "".join(rng.choice([*string.ascii_uppercase], int(rng.integers(2, 5))))
    colour = (255, 255, 255) if rng.random() < 0.7 else (0, 0, 0)
    phase = (float(rng.random()), float(rng.random())) if rng.random() < 0.5 else None
    angle, opacity = rng.uniform(-np.pi / 4, np.pi / 4), rng.uniform(0.25, 0.55)
    period = rng.uniform(0.35, 0.6)
    return partial(watermark, words=words, period=period, angle=angle, opacity=opacity, colour=colour, phase=phase)


def ruler(
    pixels: Pixels, rng: Generator, length: float, width: float, ticks: int, colours: Colours, turns: float
) -> PlantedImage:
    """Plant a ruler with ticks, at a place and an angle, at most `turns` radians, drawn anew for every image."""
    side, angle = shorter_side(pixels), rng.uniform(-turns, turns)
    half = np.array([length, width]) * side / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    size = np.array(pixels.shape[1::-1])
    centre = size / 2 + rng.uniform(-1, 1, 2) * np.maximum(size / 2 - np.abs(turn) @ half, 0)

    def at(u: float, v: float, scale: int) -> tuple[float, float]:
        x, y = turn @ (np.array([u, v]) * half) + centre
        return float(x) * scale, float(y) * scale

    def draw_body(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        canvas.polygon([at(u, v, scale) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))], fill=255)

    def draw_ticks(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        thick = max(1, round(0.7 * scale * half[0] / ticks))
        for i in range(ticks):
            u = -1 + (2 * i + 1) / ticks
            canvas.line([at(u, -1, scale), at(u, 0.5 if i % 5 == 0 else -0.1, scale)], fill=255, width=thick)

    under = composite(pixels, draw_opacity(pixels.shape, draw_body), colours[0]).pixels
    return mark_changes(pixels, composite(under, draw_opacity(pixels.shape, draw_ticks), colours[1]).pixels)


def draw_ruler(rng: Generator) -> PlantFunction:
    turns = float(np.pi if rng.random() < 0.7 else rng.uniform(0, 0.3))
    length, width, ticks = rng.uniform(0.45, 0.9), rng.uniform(0.08, 0.16), int(rng.integers(6, 13))
    return partial(ruler, length=length, width=width, ticks=ticks, colours=colour_pair(rng), turns=turns)


def logo(
    pixels: Pixels, rng: Generator, corners: tuple[tuple[float, float], ...], side: float, colours: Colours,
    disc: bool, opacity: float,
) -> PlantedImage:  # fmt: skip
    """Plant a disc or a square with a polygon inside, at a place and a scale (LOGO_SCALE, by logarithm) that are drawn
    anew for every image. `corners` are those of the polygon on the unit square."""
    length = max(3, round(side * math.exp(rng.uniform(*np.log(LOGO_SCALE))) * shorter_side(pixels)))
    room = [max(extent - length, 0) for extent in pixels.shape[:2]]
    corner = (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)))

    def draw_body(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        box = (0, 0, length * scale - 1, length * scale - 1)
        (canvas.ellipse if disc else canvas.rectangle)(box, fill=255)

    def draw_inside(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        canvas.polygon([(x * length * scale, y * length * scale) for x, y in corners], fill=255)

    out = pixels
    for part, colour in zip((draw_body, draw_inside), colours, strict=True):
        layer = place(opacity * draw_opacity((length, length), part), pixels.shape, corner)
        out = composite(out, layer, colour).pixels
    return mark_changes(pixels, out)


def draw_logo(rng: Generator) -> PlantFunction:
    n = int(rng.integers(3, 8))
    angles = np.sort(rng.uniform(0, 2 * np.pi, n)) + rng.uniform(0, 2 * np.pi)
    radii = rng.uniform(0.2, 0.45, n)
    corners = zip((0.5 + radii * np.cos(angles)).tolist(), (0.5 + radii * np.sin(angles)).tolist(), strict=True)
    side, colours, disc = rng.uniform(0.13, 0.2), colour_pair(rng), bool(rng.random() < 0.5)
    return partial(logo, corners=tuple(corners), side=side, colours=colours, disc=disc, opacity=rng.uniform(0.7, 1))


def _stripe(pixels: Pixels, side: str, width: float) -> Floats:
    """Opacity (H, W) of a stripe along a side of the image: 1 on it, 0 elsewhere."""
    thick = max(1, round(width * shorter_side(pixels)))
    opacity = np.zeros(pixels.shape[:2], np.float32)
    along = opacity if side in ("top", "bottom") else opacity.T
    along[slice(thick) if side in ("top", "left") else slice(-thick, None)] = 1
    return opacity


def stripe(pixels: Pixels, _: Generator, side: str, width: float, colour: Colour, opacity: float) -> PlantedImage:
    """Plant a stripe of one colour along one of the SIDES."""
    return composite(pixels, opacity * _stripe(pixels, side, width), colour)


def draw_stripe(rng: Generator) -> PlantFunction:
    side, width = SIDES[rng.integers(len(SIDES))], rng.uniform(0.04, 0.14)
    return partial(stripe, side=side, width=width, colour=random_colour(rng), opacity=rng.uniform(0.7, 1))


def two_stripes(pixels: Pixels, _: Generator, upright: bool, width: float, colour: Colour) -> PlantedImage:
    """Plant stripes of one colour along two opposite sides, as of a film in another format."""
    sides = ("left", "right") if upright else ("top", "bottom")
    return composite(pixels, np.maximum(*(_stripe(pixels, side, width) for side in sides)), colour)


def draw_two_stripes(rng: Generator) -> PlantFunction:
    upright, width = bool(rng.random() < 0.5), rng.uniform(0.04, 0.14)
    return partial(two_stripes, upright=upright, width=width, colour=random_colour(rng))


def frame(pixels: Pixels, _: Generator, width: float, colour: Colour, opacity: float) -> PlantedImage:
    """Plant a frame of one colour around the image."""
    thick = max(1, round(width * shorter_side(pixels)))
    shape = np.ones(pixels.shape[:2], np.float32)
    shape[thick:-thick, thick:-thick] = 0
    return composite(pixels, opacity * shape, colour)


def rounded_frame(pixels: Pixels, _: Generator, width: float, radius: float, colour: Colour) -> PlantedImage:
    """Plant a frame of one colour, whose width may be 0, with an opening of rounded corners."""
    (h, w), side = pixels.shape[:2], shorter_side(pixels)

    def draw_opening(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        margin = scale * width * side
        box = (margin, margin, scale * w - 1 - margin, scale * h - 1 - margin)
        canvas.rounded_rectangle(box, scale * radius * side, fill=255)

    return composite(pixels, 1 - draw_opacity(pixels.shape, draw_opening), colour)


def draw_rounded_frame(rng: Generator) -> PlantFunction:
    width = 0.0 if rng.random() < 0.4 else rng.uniform(0.02, 0.06)
    return partial(rounded_frame, width=width, radius=rng.uniform(0.15, 0.4), colour=random_colour(rng))


def background(pixels: Pixels, rng: Generator, colour: Colour, opacity: float, edge: float) -> PlantedImage:
    """Plant a background of one colour outside an ellipse near the middle, drawn anew for every image. `edge` is the
    width of the transition, as a share of the ellipse's radius."""
    h, w = pixels.shape[:2]
    rows, columns = grid(pixels)
    cy, cx = rng.uniform(0.42, 0.58, 2)
    ry, rx = rng.uniform(0.36, 0.52, 2)
    radius = np.hypot((rows / h - cy) / ry, (columns / w - cx) / rx)
    return composite(pixels, opacity * np.clip((radius - 1) / edge, 0, 1), colour)
