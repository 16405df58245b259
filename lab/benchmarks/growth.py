"""Draws lab/benchmarks/growth.png from what `benchmarks/audit/transport.py --json FILE` measured: time against N and P.

python lab/benchmarks/growth.py FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN, NAMES = 420, 300, 56, 120  # pixels: of a panel; around it; for the names beside the lines
COLOURS = {
    "wasserstein": "#4c72b0", "wasserstein-t": "#55a868", "wasserstein-ts": "#c44e52", "wasserstein-tsr": "#8172b2",
    "sliced-rotation": "#937860", "gromov": "#222222",
}  # fmt: skip
Rows = list[list[Any]]


class Panel:
    """Lines on two logarithmic axes."""

    def __init__(self, pen: ImageDraw.ImageDraw, left: int, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.pen, self.left, self.x, self.y = pen, left, np.log10(x), np.log10(y)
        self.font = ImageFont.load_default(12)

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (np.log10(x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (np.log10(y) - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + MARGIN + across * WIDTH, MARGIN / 2 + (1 - up) * HEIGHT

    def axes(self, ticks: list[float], label: str) -> None:
        for power in range(int(np.ceil(self.y[0])), int(np.floor(self.y[1])) + 1):
            start, end = (self.place(10 ** float(edge), 10.0**power) for edge in self.x)
            self.pen.line((*start, *end), "#dddddd")
            self.pen.text((start[0] - 6, start[1]), f"{10.0**power:g} s", "black", self.font, anchor="rm")
        for tick in ticks:
            x, y = self.place(tick, 10 ** float(self.y[0]))
            self.pen.text((x, y + 10), f"{tick:g}", "black", self.font, anchor="mm")
        middle = self.left + MARGIN + WIDTH / 2
        self.pen.text((middle, MARGIN / 2 + HEIGHT + 28), label, "black", self.font, anchor="mm")

    def line(self, name: str, rows: Rows) -> None:
        points = [self.place(row[0], row[1]) for row in rows[:-1]]
        self.pen.line(points, COLOURS[name], 2)
        for x, y in points:
            self.pen.ellipse((x - 3, y - 3, x + 3, y + 3), COLOURS[name])

    def names(self, lines: dict[str, Rows]) -> None:
        """Beside the ends of the lines, the steepest first, with their exponents."""
        ends = sorted((self.place(*rows[-2][:2])[1], name) for name, rows in lines.items())
        y = -100.0
        for end, name in ends:
            y = max(end, y + 15)
            text = f"{name}: {lines[name][-1][1]:.2f}"
            self.pen.text((self.left + MARGIN + WIDTH + 8, y), text, COLOURS[name], self.font, anchor="lm")


def figure(growth: dict[str, dict[str, Rows]]) -> Image.Image:
    panel = MARGIN + WIDTH + NAMES + 30
    canvas = Image.new("RGB", (2 * panel, HEIGHT + MARGIN + 20), "white")
    pen = ImageDraw.Draw(canvas)
    for k, (which, label) in enumerate((("N", "maps, 64 points each"), ("P", "points, 500 maps"))):
        lines = growth[which]
        x, y = ([row[i] for rows in lines.values() for row in rows[:-1]] for i in (0, 1))
        drawn = Panel(pen, k * panel, (min(x), max(x)), (min(y) / 1.5, max(y) * 1.5))
        drawn.axes(sorted(set(x)), label)
        for name, rows in lines.items():
            drawn.line(name, rows)
        drawn.names(lines)
    return canvas


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1]).read_text())
    figure(measured["shapes, seed 0"]["growth"]).save(Path(__file__).with_suffix(".png"), optimize=True)
