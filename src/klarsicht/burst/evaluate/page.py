"""An evaluation as one HTML page that needs nothing else: protocol, tables, quality against cost, crops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klarsicht.burst.evaluate.classical import CLASSICAL
from klarsicht.burst.evaluate.protocol import Evaluation, Table
from klarsicht.ground.images import data_uri, png_bytes

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 110, 16, 40  # margins of a plot
CHEAPEST = 1e-2  # s a megapixel: what costs less is drawn here
GAP = 11  # between labels


@dataclass(frozen=True)
class Dot:
    """A row in a plot, in its pixels; label_y keeps labels apart."""

    row: str
    trained: bool
    x: float
    y: float
    label_y: float
    told: str


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True)
class Plot:
    gain: int
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def write(evaluation: Evaluation, file: Path) -> None:
    """Writes the page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("klarsicht.burst"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    file.write_text(pages.get_template("evaluation.html.j2").render(**contents(evaluation)), encoding="utf-8")


def contents(evaluation: Evaluation) -> dict[str, Any]:
    """What the template is given."""
    gains = evaluation.protocol.gains
    return {
        "protocol": evaluation.protocol.lines,
        "gains": gains,
        "tables": evaluation.tables,
        "absent": evaluation.absent,
        "sizes": evaluation.sizes,
        "plots": [plot(evaluation.tables["drawn"], gain) for gain in gains],
        "size": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "top": TOP, "right": RIGHT, "bottom": BOTTOM},
        "exhibits": {
            gain: {row: data_uri(png_bytes(crop)) for row, crop in crops.items()}
            for gain, crops in evaluation.exhibits.items()
        },
    }


def plot(table: Table, gain: int) -> Plot:
    """PSNR against processor seconds a megapixel, the seconds on a logarithmic axis."""
    scores = {row: by_gain[gain] for row, by_gain in table.items()}
    cost = {row: math.log10(max(s.cpu_s_per_mpx, CHEAPEST)) for row, s in scores.items()}
    x0, x1 = math.floor(min(cost.values())), math.floor(max(cost.values())) + 1
    dB = [s.psnr for s in scores.values()]
    y0, y1 = math.floor(min(dB)), math.floor(max(dB)) + 1

    def across(v: float) -> float:
        return round(LEFT + (v - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT), 1)

    def up(v: float) -> float:
        return round(HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM), 1)

    order = sorted(scores, key=lambda row: up(scores[row].psnr))
    labels = spread([up(scores[row].psnr) for row in order], GAP)
    dots = tuple(
        Dot(
            row,
            row not in CLASSICAL,
            across(cost[row]),
            up(scores[row].psnr),
            place,
            f"{row}: {scores[row].psnr:.2f} dB, SSIM {scores[row].ssim:.3f}, {scores[row].cpu_s_per_mpx:.3g} s/Mpx",
        )
        for row, place in zip(order, labels, strict=True)
    )
    step = max(1, (y1 - y0) // 6)
    y_ticks = tuple(Tick(up(v), f"{v}") for v in range(y0, y1 + 1, step))
    return Plot(gain, dots, tuple(Tick(across(v), f"{10.0**v:g}") for v in range(x0, x1 + 1)), y_ticks)


def spread(places: list[float], gap: float) -> list[float]:
    """Rising places, each moved down as far as the one above it asks."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    return moved
