"""A picture of any size made piece by piece in bounded memory, and gone on with where it was stopped.

A tile's window is its own part with a halo that covers all that decides about it; what is judged lies between the two.
All begin at multiples of what the network and the mesh step by. So tiles equal the whole. Axes: C channels, H W pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from klarsicht.burst.align.tiled import STEP
from klarsicht.burst.data.frame_store import Window
from klarsicht.ground.disk import write_atomically, writing
from klarsicht.ground.errors import UsageError
from klarsicht.ground.progress import progress

LEAST, MOST = 2 * STEP, 64 * STEP  # side of a tile's own part
LOG, GRID = "tiles.jsonl", "sides.json"


@dataclass(frozen=True)
class Tile:
    """own: the part that a tile gives. near: with what must be filtered to judge it. window: with all that a filter
    looks at for that. All inside the picture."""

    number: int
    own: Window
    near: Window
    window: Window


@dataclass(frozen=True)
class Grid:
    """Tiles whose `sides` (y, x) are multiples of STEP over a picture of `size`, each seeing `halo` around it, and
    judged by what is `close`."""

    size: tuple[int, int]
    sides: tuple[int, int]
    halo: int
    close: int = 0

    def __len__(self) -> int:
        return -(-self.size[0] // self.sides[0]) * -(-self.size[1] // self.sides[1])

    def __iter__(self) -> Iterator[Tile]:
        (H, W), (h, w) = self.size, self.sides
        corners = [(y, x) for y in range(0, H, h) for x in range(0, W, w)]
        for number, (y, x) in enumerate(corners):
            own = Window(y, y + h, x, x + w).within(self.size)
            near, window = (own.grown(stepped(m)).within(self.size) for m in (self.close, self.halo))
            yield Tile(number, own, near, window)

    @property
    def largest(self) -> tuple[int, int]:
        """Pixels of the largest near part and of the largest window."""
        return max(area(tile.near) for tile in self), max(area(tile.window) for tile in self)

    @property
    def looked_at(self) -> int:
        """Pixels of all windows: what is to be done."""
        return sum(area(tile.window) for tile in self)


def even_sides(length: int) -> list[int]:
    """That cut a length into 1, 2, 3, ... parts of about one size."""
    most = max(1, length // LEAST)
    return sorted({min(MOST, stepped(-(-length // parts))) for parts in range(1, most + 1)})


def stepped(length: int) -> int:
    """To where windows may begin."""
    return -(-length // STEP) * STEP


def area(window: Window) -> int:
    return window.size[0] * window.size[1]


Need = Callable[[int, int], float]
"""Bytes that a tile takes, by the pixels of its near part and of its window."""


def fitting(size: tuple[int, int], halo: int, close: int, need: Need, memory: float) -> Grid:
    """Of the grids whose tiles take `memory` bytes at most, the one with the least to do. Raises UsageError."""
    grids = [Grid(size, sides, halo, close) for sides in product(even_sides(size[0]), even_sides(size[1]))]
    fits = [grid for grid in grids if need(*grid.largest) <= memory]
    if fits:
        return min(fits, key=lambda grid: (grid.looked_at, len(grid)))
    least = min(need(*grid.largest) for grid in grids)
    got, rule = f"{memory / 1e9:.2g} GB", f"these frames need {least / 1e9:.2g} GB"
    raise UsageError("memory", got=got, rule=rule, remedy="Give a larger --memory.")


def kept(grid: Grid, folder: Path, memory: float) -> Grid:
    """The grid whose tiles a stopped run has numbered, whatever fits today; else this one, which is remembered. Where
    less memory is allowed than then, tiles are begun anew."""
    file = folder / GRID
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = None
    if known is not None and known["memory"] <= memory:
        return replace(grid, sides=tuple(known["sides"]))
    (folder / LOG).unlink(missing_ok=True)
    write_atomically(file, json.dumps({"sides": grid.sides, "memory": memory}).encode())
    return grid


Told = Mapping[str, Any]


def run(grid: Grid, folder: Path, work: Callable[[Tile], Told], label: str) -> list[Told]:
    """What `work` tells of each tile (plain JSON values), in order; tiles that the folder's log has are not done again.

    `work` must have written its pixels durably when it returns.
    """
    done = finished(folder)
    with progress(label, len(grid), len(done)) as advance:
        for tile in grid:
            if tile.number not in done:
                done[tile.number] = work(tile)
                _log(folder / LOG, {"tile": tile.number, "told": dict(done[tile.number])})
                advance()
    return [done[number] for number in range(len(grid))]


def finished(folder: Path) -> dict[int, Told]:
    """By number; a last line that a kill cut off is not counted."""
    try:
        lines = (folder / LOG).read_text().splitlines(keepends=True)
    except OSError:
        return {}
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return {int(entry["tile"]): entry["told"] for entry in entries}


def _log(path: Path, entry: Told) -> None:
    with writing(path), path.open("r+b" if path.exists() else "wb") as file:
        _drop_half_a_line(file, path)
        file.write(json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _drop_half_a_line(file: Any, path: Path) -> None:
    content = path.read_bytes()
    file.truncate(content.rfind(b"\n") + 1)
    file.seek(0, 2)


def evenly(count: int, wanted: int) -> Sequence[int]:
    """About that many numbers below `count`, spread out."""
    return sorted({(2 * k + 1) * count // (2 * wanted) for k in range(wanted)} & set(range(count)))
