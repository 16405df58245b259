"""Self-contained HTML page of an evaluation: protocol, tables, quality against cost, crops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klarsicht.burst.evaluation.classical import CLASSICAL
from klarsicht.burst.evaluation.protocol import Evaluation, Table
from klarsicht.ground.pages import load_template
from klarsicht.ground.pictures.encoded_pictures import data_uri, png_bytes

PLOT_WIDTH, PLOT_HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 110, 16, 40  # margins of a plot
CHEAPEST = 1e-2  # s a megapixel: lower end of the axis
GAP = 11  # pixels between labels


@dataclass(frozen=True)
class Dot:
    """A row's point in a plot, in its pixels; label_y separates labels. trained: whether the row is a network."""

    row: str
    trained: bool
    x: float
    y: float
    label_y: float
    label: str


@dataclass(frozen=True)
class Tick:
    """A tick of an axis. place: in pixels of the plot."""

    place: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A plot of quality against cost at one gain."""

    gain: int
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def write_page(evaluation: Evaluation, file: Path) -> None:
    """Write the page."""
    page = load_template("klarsicht.burst", "evaluation.html.j2").render(**template_context(evaluation))
    file.write_text(page, encoding="utf-8")


def template_context(evaluation: Evaluation) -> dict[str, Any]:
    """Build the variables of the template."""
    gains = evaluation.protocol.gains
    return {
        "protocol": evaluation.protocol.lines,
        "gains": gains,
        "tables": evaluation.tables,
        "absent": evaluation.absence_reasons,
        "plots": [plot(evaluation.tables["drawn"], gain) for gain in gains],
        "size": {
            "width": PLOT_WIDTH,
            "height": PLOT_HEIGHT,
            "left": LEFT,
            "top": TOP,
            "right": RIGHT,
            "bottom": BOTTOM,
        },
        "examples": {
            gain: {row: data_uri(png_bytes(crop)) for row, crop in crops.items()}
            for gain, crops in evaluation.examples.items()
        },
    }


def plot(table: Table, gain: int) -> Plot:
    """Plot PSNR against processor seconds a megapixel, the seconds on a logarithmic axis."""
    scores = {row: by_gain[gain] for row, by_gain in table.items()}
    cost = {row: math.log10(max(s.cpu_s_per_mpx, CHEAPEST)) for row, s in scores.items()}
    x0, x1 = math.floor(min(cost.values())), math.floor(max(cost.values())) + 1
    dB = [s.psnr for s in scores.values()]
    y0, y1 = math.floor(min(dB)), math.floor(max(dB)) + 1

    def x_position(v: float) -> float:
        return round(LEFT + (v - x0) / (x1 - x0) * (PLOT_WIDTH - LEFT - RIGHT), 1)

    def y_position(v: float) -> float:
        return round(PLOT_HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (PLOT_HEIGHT - TOP - BOTTOM), 1)

    order = sorted(scores, key=lambda row: y_position(scores[row].psnr))
    labels = separate_labels([y_position(scores[row].psnr) for row in order], GAP)
    dots = tuple(
        Dot(
            row,
            row not in CLASSICAL,
            x_position(cost[row]),
            y_position(scores[row].psnr),
            place,
            f"{row}: {scores[row].psnr:.2f} dB, SSIM {scores[row].ssim:.3f}, {scores[row].cpu_s_per_mpx:.3g} s/Mpx",
        )
        for row, place in zip(order, labels, strict=True)
    )
    step = max(1, (y1 - y0) // 6)
    y_ticks = tuple(Tick(y_position(v), f"{v}") for v in range(y0, y1 + 1, step))
    return Plot(gain, dots, tuple(Tick(x_position(v), f"{10.0**v:g}") for v in range(x0, x1 + 1)), y_ticks)


def separate_labels(places: list[float], gap: float) -> list[float]:
    """Move increasing positions down, each as far as needed for a gap to the one above."""
    positions: list[float] = []
    for place in places:
        positions.append(max(place, positions[-1] + gap) if positions else place)
    return positions
