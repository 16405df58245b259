"""Self-contained HTML page: before and after under a slider, with zoom; kernels at a grid of points."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseResult
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.files.write_pictures import jpeg_bytes
from klarsicht.burst.merging.filters import PixelWeights
from klarsicht.burst.merging.tiles import Tile, TileRecord
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.names import printable
from klarsicht.ground.pages import load_template
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.ground.pictures.encoded_pictures import data_uri, png_bytes
from klarsicht.ground.pictures.pixel_depths import to_uint8

SIDE = 2000  # pixels: largest side of the pictures on the page
CROP = 320  # pixels of a crop at full size
SEARCH = 64  # side of the reduced picture in which crops are chosen
PAGE = "before_after.html.j2"


class WeightMap(NamedTuple):
    """Map of the weights of a picture: a PNG file, and sentences about it."""

    picture: bytes
    lines: Sequence[str]


class WeightPainter(ABC):
    """Observer of a denoised burst's tiles that draws a map of their weights, handed down from above."""

    MADE_BY: ClassVar = "bridge.StrategyMap() makes one."

    @abstractmethod
    def observe(self, tile: Tile, weights: PixelWeights) -> TileRecord:
        """Describe the weights of one tile in plain JSON values."""

    @abstractmethod
    def draw(self, result: DenoiseResult) -> WeightMap | None:
        """Draw the map of the observations; None where they allow none."""


def write_page(path: Path, result: DenoiseResult, renderer: Renderer, painter: WeightPainter | None = None) -> None:
    """Write the page, which is replaced atomically. painter: draws its map of weights."""
    weights = None if painter is None else painter.draw(result.single or result)
    shown = {"weights": weights and {"picture": data_uri(weights.picture), "lines": weights.lines}}
    page = load_template("klarsicht.burst", PAGE).render(**template_context(result, renderer), **shown)
    write_atomically(path, page.encode())


def template_context(result: DenoiseResult, renderer: Renderer) -> dict[str, Any]:
    """Build the variables of the template."""
    frames, renderer = result.burst.frames, renderer.for_display
    first = result.frame_numbers[0]
    before = renderer.for_other_frame(result.burst.spool, first, frames[first].gain)
    after, trust = renderer.thumbnail(SIDE), renderer.trust_map(SIDE)
    return {
        "name": frames[first].name,
        "lines": result.lines,
        "before": _jpeg(before.thumbnail(SIDE)),
        "after": _jpeg(after),
        "strength": result.strength,
        "trust": data_uri(png_bytes(to_uint8(trust))),
        "size": after.shape[:2],
        "reduced": after.shape[:2] != renderer.size,
        "crops": [
            {"title": title, "before": _jpeg(_cut(before, window)), "after": _jpeg(_cut(renderer, window))}
            for title, window in choose_crops(renderer, trust).items()
        ],
        "points": to_script_json(kernel_points(result, renderer.header.orientation)),
        "names": to_script_json([printable(frames[i].name) for i in result.frame_numbers]),
    }


def to_script_json(values: object) -> str:
    """Serialise values to JSON that cannot end a script element, whatever files are called."""
    return json.dumps(values).replace("<", "\\u003c")


def kernel_points(result: DenoiseResult, orientation: int) -> list[dict[str, Any]]:
    """List the kernels of the grid, oriented as in the upright picture, with positions as shares of its sides."""
    H, W = (result.single or result).spool.size
    rows = []
    for point in result.kernels:
        y, x = to_upright(((point["y"] + 0.5) / H, (point["x"] + 0.5) / W), orientation)
        kernels = [turn_upright(np.array(k), orientation).tolist() for k in point["k"]]
        rows.append({"y": round(y, 4), "x": round(x, 4), "k": kernels, "share": point["share"], "n": point["averaged"]})
    return rows


def to_upright(place: tuple[Any, Any], orientation: int) -> tuple[Any, Any]:
    """Convert places (numbers or arrays) from shares of the stored picture's sides to shares of the upright one's."""
    y, x = place if orientation < 5 else place[::-1]
    down, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return (1 - y if down else y), (1 - x if right else x)


def choose_crops(renderer: Renderer, trust: np.ndarray[Any, Any]) -> dict[str, Window]:
    """Choose informative crops that show different places: windows of the stored picture, by title. One without a place
    of its own, at least half a crop from the others, is left out."""
    small = renderer.thumbnail(SEARCH).mean(-1)
    sides = [max(1, round(CROP * n / side)) for n, side in zip(small.shape, renderer.size, strict=True)]
    ty, tx = (np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(small.shape, trust.shape, strict=True))
    detail, (y, x) = np.hypot(*np.gradient(small)), np.indices(small.shape)
    interest = {
        "the middle": -np.hypot(y - small.shape[0] // 2, x - small.shape[1] // 2),
        "least trust in the burst": -uniform_filter(trust[np.ix_(ty, tx)], sides, mode="nearest"),
        "most detail": detail,
        "dark": detail - small,
    }
    corner = _corners(renderer, small.shape)
    least_distance = CROP / 2 - max(renderer.size) / max(small.shape)  # up to a pixel of the reduced picture
    crops, free = {}, np.ones(small.shape, bool)
    for title, value in interest.items():
        if free.any():
            place = np.unravel_index(int(np.argmax(np.where(free, value, -np.inf))), small.shape)
            y0, x0 = (int(start[place]) for start in corner)
            H, W = renderer.header.size
            crops[title] = Window(y0, min(H, y0 + CROP), x0, min(W, x0 + CROP))
            free &= (abs(corner[0] - y0) >= least_distance) | (abs(corner[1] - x0) >= least_distance)
    return crops


def _corners(renderer: Renderer, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Compute first rows and columns (h, w) of the crops around the places of an upright thumbnail of that shape: near
    a border a crop is moved inside."""
    y, x = ((np.arange(n) + 0.5) / n for n in shape)
    inverse = {6: 8, 8: 6}.get(renderer.header.orientation, renderer.header.orientation)
    down, across = np.meshgrid(y, x, indexing="ij")
    v, u = to_upright((down, across), inverse)
    y0, x0 = (
        np.clip(place * n - CROP / 2, 0, max(0, n - CROP)).astype(np.int64) // 2 * 2
        for place, n in zip((v, u), renderer.header.size, strict=True)
    )
    return y0, x0


def _cut(renderer: Renderer, window: Window) -> np.ndarray[Any, Any]:
    return turn_upright(renderer.render_window(window), renderer.header.orientation)


def _jpeg(picture: np.ndarray[Any, Any]) -> str:
    return data_uri(jpeg_bytes(picture), "image/jpeg")
