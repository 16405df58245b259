"""Soft light and closed curves of forms that no family of `audit plant` draws: panes, slats, cones and bands of light,
and outlines of polygons, hearts and crescents.

A form is a function that draws an artifact: its parameters are drawn once, and what varies between images is drawn for
each. Images are float (H, W, 3), levels 0 to 255. Half of the forms of either sort, drawn by name before any was
measured, are to develop on; the others, and the shadow, gradient and ring of `untaught_kinds.py`, are measured once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from klarsicht.ground.arrays import Floats
from klarsicht.ground.seeding import generator

sys.path.insert(0, str(Path(__file__).parent))
from untaught_kinds import KINDS, Kind, Put, blend, grid

Distance = Callable[[Floats, Floats, np.random.Generator], Floats]  # below 0 inside, from shares of the side
MEASURED_ONCE = ("shadow", "gradient", "ring")  # of untaught_kinds.py


def polygon(corners: Floats) -> Callable[[Floats, Floats], Floats]:
    """Signed distance to a convex polygon with corners (m, 2): the largest of those to its sides."""
    behind = np.roll(corners, -1, 0) - corners
    normals = np.stack([behind[:, 1], -behind[:, 0]], 1) / np.linalg.norm(behind, axis=1, keepdims=True)

    def distance(y: Floats, x: Floats) -> Floats:
        each = [(y - c[0]) * n[0] + (x - c[1]) * n[1] for c, n in zip(corners, normals, strict=True)]
        return np.max(np.broadcast_arrays(*each), 0)

    return distance


def around(corners: int, rng: np.random.Generator) -> Floats:
    """Corners of a polygon of random angles on a unit circle, in an order in which `polygon` is below 0 inside."""
    angles = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2 * np.pi / corners
    return np.stack([-np.sin(angles), np.cos(angles)], 1)


def tone(rng: np.random.Generator) -> Callable[[Floats, Floats], Floats]:
    """A random change of tones under an opacity (H, W): darker, brighter, or of another colour."""
    much, colour = rng.uniform(0.5, 0.85), rng.integers(0, 256, 3).astype(float)
    kind = rng.integers(3)

    def change(image: Floats, opacity: Floats) -> Floats:
        a = much * opacity[..., None]
        if kind == 0:
            return image * (1 - a)
        if kind == 1:
            return image + a * (255 - image)
        return blend(image, a[..., 0], colour)

    return change


def softly(draw: Callable[[np.random.Generator], Distance]) -> Kind:
    """A soft light whose form is given by a distance, with an edge of a tenth to a third of the side."""

    def kind(rng: np.random.Generator) -> Put:
        distance, change, soft = draw(rng), tone(rng), rng.uniform(0.05, 0.15)

        def put(image: Floats, rng: np.random.Generator) -> Floats:
            away = np.broadcast_to(distance(*grid(image), rng), image.shape[:2])
            return change(image, 1 / (1 + np.exp(np.clip(away / soft * 2, -30, 30))))

        return put

    return kind


def along(draw: Callable[[np.random.Generator], Distance]) -> Kind:
    """A line along the edge of a form, in a random colour."""

    def kind(rng: np.random.Generator) -> Put:
        distance, colour, width = draw(rng), rng.integers(0, 256, 3).astype(float), rng.uniform(0.02, 0.035)

        def put(image: Floats, rng: np.random.Generator) -> Floats:
            away = np.broadcast_to(distance(*grid(image), rng), image.shape[:2])
            return blend(image, np.clip((width - abs(away)) * 32 + 0.5, 0, 1), colour)

        return put

    return kind


def pane(rng: np.random.Generator) -> Distance:
    """A slanted quadrilateral, as light through a window, at a place of its own in every image."""
    corners = around(4, rng) * rng.uniform(0.2, 0.35, (1, 2))
    inside = polygon(corners)

    def distance(y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
        a, b = rng.uniform(0.25, 0.75, 2)
        return inside(y - a, x - b)

    return distance


def slats(rng: np.random.Generator) -> Distance:
    """Slanted bands, as light through blinds, whose phase varies."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.25, 0.45)

    def distance(y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
        u = (np.cos(angle) * y + np.sin(angle) * x) / period + rng.random()
        return (abs(u % 1 - 0.5) - 0.25) * period

    return distance


def sector(rng: np.random.Generator) -> Distance:
    """A cone that comes from a place on any edge, towards the middle."""
    half = rng.uniform(0.3, 0.6)

    def distance(y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
        a, b = [(0, rng.random()), (1, rng.random()), (rng.random(), 0), (rng.random(), 1)][rng.integers(4)]
        turn = np.arctan2(y - a, x - b) - np.arctan2(0.5 - a, 0.5 - b)
        off = abs((turn + np.pi) % (2 * np.pi) - np.pi)
        return np.hypot(y - a, x - b) * np.sin(np.clip(off - half, -1.5, 1.5))

    return distance


def band(rng: np.random.Generator) -> Distance:
    """A level band, as haze, at a height of its own in every image."""
    half = rng.uniform(0.1, 0.2)
    return lambda y, x, rng: abs(y - rng.uniform(0.15, 0.85)) - half + 0 * x


def corner(rng: np.random.Generator) -> Distance:
    """A square corner that enters at any corner of the image."""
    size = rng.uniform(0.35, 0.55)

    def distance(y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
        u, v = (y if rng.random() < 0.5 else 1 - y), (x if rng.random() < 0.5 else 1 - x)
        return np.maximum(u, v) - size

    return distance


def spotlight(rng: np.random.Generator) -> Distance:
    """Everything but a disc, at a place of its own in every image."""
    radius = rng.uniform(0.25, 0.4)
    return lambda y, x, rng: radius - np.hypot(y - rng.uniform(0.3, 0.7), x - rng.uniform(0.3, 0.7))


def placed(inside: Callable[[Floats, Floats], Floats], turns: bool) -> Distance:
    """A form of unit size, in a size and at a place of its own in every image, turned where it turns."""

    def distance(y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
        (a, b), size, turn = rng.uniform(0.35, 0.65, 2), rng.uniform(0.2, 0.36), rng.uniform(0, 2 * np.pi) * turns
        u, v = (y - a) / size, (x - b) / size
        return size * inside(np.cos(turn) * u + np.sin(turn) * v, np.cos(turn) * v - np.sin(turn) * u)

    return distance


def ellipse(rng: np.random.Generator) -> Distance:
    ratio = rng.uniform(0.4, 0.7)
    return placed(lambda y, x: (np.hypot(y / ratio, x) - 1) * ratio, True)


def rectangle(rng: np.random.Generator) -> Distance:
    ratio = rng.uniform(0.5, 1)
    return placed(lambda y, x: np.maximum(abs(y) - ratio, abs(x) - 1), False)


def triangle(rng: np.random.Generator) -> Distance:
    return placed(polygon(around(3, rng)), bool(rng.random() < 0.5))


def heart(rng: np.random.Generator) -> Distance:
    turns = bool(rng.random() < 0.3)

    def sextic(y: Floats, x: Floats) -> Floats:
        return (x**2 + y**2 - 1) ** 3 + x**2 * y**3

    def inside(y: Floats, x: Floats, by: float = 1e-3) -> Floats:
        """The polynomial over the length of its gradient."""
        down, across = sextic(y + by, x) - sextic(y - by, x), sextic(y, x + by) - sextic(y, x - by)
        return sextic(y, x) / (np.hypot(down, across) / (2 * by) + 0.01)

    return placed(inside, turns)


def star(rng: np.random.Generator) -> Distance:
    arms, depth = int(rng.integers(4, 8)), rng.uniform(0.25, 0.45)

    def inside(y: Floats, x: Floats) -> Floats:
        return np.hypot(y, x) - (1 - depth * abs(np.sin(arms * np.arctan2(y, x) / 2)))

    return placed(inside, True)


def crescent(rng: np.random.Generator) -> Distance:
    by, size = rng.uniform(0.4, 0.7), rng.uniform(0.7, 0.9)
    return placed(lambda y, x: np.maximum(np.hypot(y, x) - 1, size - np.hypot(y, x - by)), True)


SOFT = {f"soft-{draw.__name__}": softly(draw) for draw in (pane, slats, sector, band, corner, spotlight)}
CURVES = {f"outline-{draw.__name__}": along(draw) for draw in (ellipse, rectangle, triangle, heart, star, crescent)}
SORTS = {"soft light": (*SOFT, "shadow", "gradient"), "closed curves": (*CURVES, "ring")}
FORMS: dict[str, Kind] = SOFT | CURVES | {name: KINDS[name] for name in MEASURED_ONCE}


def forms_of(fresh: bool) -> tuple[str, ...]:
    """Names of the forms to develop on, or of those that are measured once."""
    halves = []
    for sort in (SOFT, CURVES):
        drawn = generator(0, "untaught forms").permutation(sorted(sort)).tolist()
        halves += drawn[len(drawn) // 2 :] if fresh else drawn[: len(drawn) // 2]
    return tuple(sorted([*halves, *MEASURED_ONCE] if fresh else halves))
