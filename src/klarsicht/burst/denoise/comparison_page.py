"""One HTML page that needs nothing else: before and after under a slider, with zoom; kernels at a grid of points."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoise.pipeline import Denoised
from klarsicht.burst.files.rendering import Renderer, turned
from klarsicht.burst.files.write_pictures import jpeg_bytes
from klarsicht.ground.disk import write_atomically
from klarsicht.ground.images import data_uri, png_bytes, to_uint8

SIDE = 2000  # of the pictures on the page, at most
CROP = 320  # pixels of a crop at full size
SEARCH = 64  # side of the small picture in which places are looked for
PAGE = "before_after.html.j2"


@dataclass(frozen=True)
class Crop:
    """A place at full size, as data URIs."""

    title: str
    before: str
    after: str


def write(path: Path, found: Denoised, room: Renderer) -> None:
    """Replaces the page as a whole."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("klarsicht.burst")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    write_atomically(path, pages.get_template(PAGE).render(**contents(found, room)).encode())


def contents(found: Denoised, room: Renderer) -> dict[str, Any]:
    """What the template is given."""
    frames, room = found.roll.frames, room.to_look_at
    first = found.used[0]
    before = room.beside(found.roll.spool, first, frames[first].gain)
    after, trust = room.small(SIDE), room.trust(SIDE)
    return {
        "name": frames[first].name,
        "lines": found.lines,
        "before": _jpeg(before.small(SIDE)),
        "after": _jpeg(after),
        "trust": data_uri(png_bytes(to_uint8(trust))),
        "size": after.shape[:2],
        "reduced": after.shape[:2] != room.size,
        "crops": [
            Crop(title, _jpeg(_cut(before, window)), _jpeg(_cut(room, window)))
            for title, window in places(room, trust).items()
        ],
        "points": in_script(points(found, room.header.orientation)),
        "names": in_script([frames[i].name for i in found.used]),
    }


def in_script(values: object) -> str:
    """JSON that cannot end a script, whatever files are called."""
    return json.dumps(values).replace("<", "\\u003c")


def points(found: Denoised, orientation: int) -> list[dict[str, Any]]:
    """Kernels of the grid, where they lie in the upright picture (shares of its sides), as they lie there."""
    H, W = found.spool.size
    told = []
    for point in found.kernels:
        y, x = upright(((point["y"] + 0.5) / H, (point["x"] + 0.5) / W), orientation)
        kernels = [turned(np.array(k), orientation).tolist() for k in point["k"]]
        told.append({"y": round(y, 4), "x": round(x, 4), "k": kernels, "share": point["share"], "n": point["averaged"]})
    return told


def upright(place: tuple[float, float], orientation: int) -> tuple[float, float]:
    """Shares of the stored picture's sides as shares of the upright one's; see `developing.turned`."""
    y, x = place if orientation < 5 else place[::-1]
    down, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return (1 - y if down else y), (1 - x if right else x)


def places(room: Renderer, trust: np.ndarray[Any, Any]) -> dict[str, Window]:
    """Where to look closely: windows of the stored picture."""
    small = room.small(SEARCH).mean(-1)
    ty, tx = (np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(small.shape, trust.shape, strict=True))
    detail = np.hypot(*np.gradient(small))
    looked = {
        "the middle": (small.shape[0] // 2, small.shape[1] // 2),
        "most detail": np.unravel_index(int(np.argmax(detail)), small.shape),
        "dark": np.unravel_index(int(np.argmin(small - detail)), small.shape),
        "least trust in the burst": np.unravel_index(int(np.argmin(trust[np.ix_(ty, tx)])), small.shape),
    }
    return {title: _window(room, (int(y) + 0.5, int(x) + 0.5), small.shape) for title, (y, x) in looked.items()}


def _window(room: Renderer, place: tuple[float, float], of: tuple[int, ...]) -> Window:
    """Around a place of the upright picture."""
    y, x = place[0] / of[0], place[1] / of[1]
    inverse = {6: 8, 8: 6}.get(room.header.orientation, room.header.orientation)
    v, u = upright((y, x), inverse)
    H, W = room.header.size
    top, left = (int(min(max(p * n - CROP / 2, 0), max(0, n - CROP))) // 2 * 2 for p, n in ((v, H), (u, W)))
    return Window(top, min(H, top + CROP), left, min(W, left + CROP))


def _cut(room: Renderer, window: Window) -> np.ndarray[Any, Any]:
    cut: np.ndarray[Any, Any] = turned(room.part(window), room.header.orientation)
    return cut


def _jpeg(shown: np.ndarray[Any, Any]) -> str:
    return data_uri(jpeg_bytes(shown), "image/jpeg")
