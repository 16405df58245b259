"""Pictures of strategies: their colours over the photograph, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from klarsicht.bridge.measured_burst import MeasuredBurst, Picture, collect_measures, observe_tile
from klarsicht.bridge.strategies import (
    AVERAGE,
    COPIES,
    EDGE,
    LEAST_POINTS,
    POINTS,
    REFERENCE,
    SOME,
    Strategy,
    StrategyMaps,
    find_strategies,
)
from klarsicht.burst.denoising.comparison_page import WeightMap, WeightPainter
from klarsicht.burst.denoising.pipeline import DenoiseResult
from klarsicht.burst.merging.filters import NetworkFilter, PixelWeights
from klarsicht.burst.merging.tiles import Tile, TileRecord
from klarsicht.ground.pictures.encoded_pictures import png_bytes

Colour = tuple[int, int, int]

COLOURS: dict[str, tuple[Colour, Colour]] = {
    AVERAGE: ((170, 222, 250), (0, 84, 150)),
    EDGE: ((250, 240, 110), (205, 180, 0)),
    REFERENCE: ((90, 205, 160), (0, 130, 90)),
    SOME: ((235, 170, 210), (160, 80, 130)),
    COPIES: ((213, 94, 0), (213, 94, 0)),
}
"""Colours of a kind's strategies, from the shortest to the longest reach, which people with every kind of colour vision
tell apart (after Wong 2011)."""
OPACITY = 0.6
LEAST_SIDE = 360  # pixels, to which a small photograph is enlarged
LINE = 16  # pixels: height of a line of the legend


class LegendEntry(NamedTuple):
    """Line of the legend: a strategy, its colour, and its share of the map, 0 to 1."""

    name: str
    colour: Colour
    share: float


def choose_colours(strategies: Sequence[Strategy]) -> list[Colour]:
    """Choose a colour for each strategy, by its kind, and among those of its kind by its reach."""
    reaches = [one.median["reach"] for one in strategies]
    colours: list[Colour] = []
    for one, reach in zip(strategies, reaches, strict=True):
        alike = sorted(r for other, r in zip(strategies, reaches, strict=True) if other.kind == one.kind)
        share = alike.index(reach) / max(len(alike) - 1, 1)
        red, green, blue = (round(a + share * (b - a)) for a, b in zip(*COLOURS[one.kind], strict=True))
        colours.append((red, green, blue))
    return colours


def list_legend(maps: StrategyMaps, number: int) -> list[LegendEntry]:
    """List the strategies that the map of one burst shows."""
    shares = np.bincount(maps.labels[number].ravel(), minlength=len(maps.strategies)) / maps.labels[number].size
    entries = zip(maps.strategies, choose_colours(maps.strategies), shares.tolist(), strict=True)
    return [LegendEntry(one.name, colour, share) for one, colour, share in entries if share > 0]


def colour_map(burst: MeasuredBurst, maps: StrategyMaps, number: int) -> Picture:
    """Colour the map of one burst, (h, w, 3), upright."""
    return np.asarray(np.array(choose_colours(maps.strategies), np.uint8)[burst.turn_upright(maps.labels[number])])


def draw_strategies(burst: MeasuredBurst, maps: StrategyMaps, number: int) -> Picture:
    """Draw the strategies over the denoised picture in grey, with a legend below."""
    height, width = burst.picture.shape[:2]
    factor = max(1, -(-LEAST_SIDE // min(height, width)))
    size = (factor * width, factor * height)
    under = np.asarray(
        Image.fromarray(burst.picture).convert("L").convert("RGB").resize(size, Image.Resampling.BICUBIC)
    )
    over = np.asarray(Image.fromarray(colour_map(burst, maps, number)).resize(size, Image.Resampling.NEAREST))
    mixed = np.rint((1 - OPACITY) * under + OPACITY * over).astype(np.uint8)
    return np.concatenate([mixed, _draw_legend(list_legend(maps, number), size[0])])


def _draw_legend(entries: Sequence[LegendEntry], width: int) -> Picture:
    legend = Image.new("RGB", (width, LINE * len(entries) + LINE // 2), "white")
    pen, font = ImageDraw.Draw(legend), ImageFont.load_default(LINE - 4)
    for k, one in enumerate(entries):
        top = LINE // 4 + k * LINE
        pen.rectangle((4, top + 2, 4 + LINE - 4, top + LINE - 3), one.colour)
        pen.text((8 + LINE, top), f"{one.name}: {one.share:.1%}", "black", font)
    return np.asarray(legend)


class StrategyMap(WeightPainter):
    """Map of the strategies of one denoised burst, for the page that `burst.denoise` writes: a painter without
    arguments."""

    def observe(self, tile: Tile, weights: PixelWeights) -> TileRecord:
        """Measure the weights of one tile."""
        return observe_tile(tile, weights)

    def draw(self, result: DenoiseResult) -> WeightMap | None:
        """Draw the map of a denoised burst; None for one frame, without a network, or of fewer than LEAST_POINTS
        points."""
        if len(result.frame_numbers) < 2 or not isinstance(result.filter, NetworkFilter):
            return None
        burst = collect_measures(result, "burst")
        if burst.error.size < LEAST_POINTS:
            return None
        maps = find_strategies([burst], POINTS, 0)
        shares = ", ".join(f"{one.name} {one.share:.1%}" for one in maps.strategies)
        lines = ("Clusters of the weights by which pixels were averaged, named by their medians:", f"{shares}.")
        return WeightMap(png_bytes(draw_strategies(burst, maps, 0)), lines)
