"""Draws docs/figures/metrics.png: what each metric sees as the same. Run it again when a metric changes.

    python docs/figures/metrics.py

One map, and the same moved, larger, turned, mirrored, all of it, bent; and another shape. A cell is the distance from
the first map over the distance to the other shape: 0 is "the same", 1 is "as far as another shape".
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from klarsicht.numerics.neighbours import pairwise
from klarsicht.numerics.transport.measures import measures_from_maps

SIDE, CELL, NAMES, LINE = 96, 96, 150, 34  # pixels: of a map; of a column; of the names; of a row
HOOK = np.array([[-12.0, -9], [12, -9], [12, 9], [2, 9]])
ARCH = np.array([[10.0, -14], [-8, -9], [-8, 9], [10, 14]])
METRICS = (
    "euclidean", "wasserstein", "wasserstein-t", "wasserstein-ts", "sliced-rotation", "wasserstein-tsr", "gromov",
)  # fmt: skip
TURN = np.deg2rad(67.5)


def turned(shape: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return shape @ np.array([[c, -s], [s, c]])


SHAPES = {
    "the map": HOOK,
    "moved": HOOK + np.array((-16, 14)),
    "larger": HOOK * 1.6,
    "turned": turned(HOOK, TURN),
    "mirrored": HOOK * (1, -1),
    "all but mirrored": turned(HOOK * 1.4, TURN) + np.array((10, -12)),
    "bent": HOOK + np.array([[0.0, 0], [3, -3], [-3, 3], [0, 4]]),
    "another": ARCH,
}


def drawn(corners: NDArray[np.float64]) -> NDArray[np.float32]:
    """A smeared line through the corners, in pixels from the middle of the map."""
    line = np.concatenate([np.linspace(a, b, 60) for a, b in itertools.pairwise(corners)])
    ink = np.zeros((SIDE, SIDE))
    np.add.at(ink, tuple(np.rint(line + SIDE / 2).astype(int).T), 1.0)
    return gaussian_filter(ink, 1.5).astype(np.float32)


def distances(maps: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """From the first map to all, by metric, in units of that to the last."""
    measures = measures_from_maps(maps)
    rows = {}
    for metric in METRICS:
        compared = maps.reshape(len(maps), -1) if metric == "euclidean" else measures
        first = pairwise(compared, metric)[0]
        rows[metric] = first / first[-1]
    return rows


def shade(value: float) -> tuple[int, int, int]:
    """Green for the same, through white at a half, to red for as far as another shape."""
    t = float(np.clip(value, 0, 1))
    near, far = np.array([120, 190, 130]), np.array([225, 120, 105])
    white = np.array([250, 250, 245])
    colour = near + (white - near) * 2 * t if t < 0.5 else white + (far - white) * (2 * t - 1)
    return tuple(int(c) for c in colour)


def figure() -> Image.Image:
    maps = np.stack([drawn(shape) for shape in SHAPES.values()])
    rows = distances(maps)
    canvas = Image.new("RGB", (NAMES + CELL * len(maps), CELL + 24 + LINE * len(rows)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for column, (name, relevance) in enumerate(zip(SHAPES, maps, strict=True)):
        x = NAMES + CELL * column
        ink = Image.fromarray((255 * (1 - relevance / relevance.max())).astype(np.uint8))
        canvas.paste(ink.resize((CELL - 4, CELL - 4)), (x + 2, 2))
        pen.text((x + CELL / 2, CELL + 10), name, "black", font, anchor="mm")
    for row, (metric, values) in enumerate(rows.items()):
        y = CELL + 24 + LINE * row
        pen.text((4, y + LINE / 2), metric, "black", font, anchor="lm")
        for column, value in enumerate(values):
            x = NAMES + CELL * column
            pen.rectangle((x + 2, y + 2, x + CELL - 3, y + LINE - 3), shade(value))
            pen.text((x + CELL / 2, y + LINE / 2), f"{value:.2f}", "black", font, anchor="mm")
    return canvas


if __name__ == "__main__":
    figure().save(Path(__file__).with_suffix(".png"), optimize=True)
