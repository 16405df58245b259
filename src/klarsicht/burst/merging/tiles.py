"""Tiled processing of a picture of any size in bounded memory, which can be resumed after an interruption.

A tile's window is its core with a halo that covers all that its result depends on; its context, between the two, is
what the tests of its core need. All begin at multiples of the steps of the network and of the alignment mesh, so that
tiles give the same result as the whole picture.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.frame_store import Window
from klarsicht.ground.machine.disk import translate_read_errors, translate_write_errors, write_atomically
from klarsicht.ground.machine.memory import short_budget
from klarsicht.ground.progress import progress

LEAST, MOST = 2 * STEP, 64 * STEP  # side of a tile's core
P = TypeVar("P")
Box = tuple[int, int, int, int]  # rows y0 to y1 and columns x0 to x1 of cells, ends exclusive
LOG, GRID = "tiles.jsonl", "sides.json"


@dataclass(frozen=True)
class Tile:
    """One tile. core: the part that it writes. context: with what must be filtered to test the core. window: with all
    that a filter reads for the context. All are inside the picture."""

    number: int
    core: Window
    context: Window
    window: Window


@dataclass(frozen=True)
class Grid:
    """Tiles of `sides` (y, x), multiples of STEP; windows extend `halo` beyond the core, contexts `margin`."""

    size: tuple[int, int]
    sides: tuple[int, int]
    halo: int
    margin: int = 0

    def __len__(self) -> int:
        return -(-self.size[0] // self.sides[0]) * -(-self.size[1] // self.sides[1])

    def __iter__(self) -> Iterator[Tile]:
        (H, W), (h, w) = self.size, self.sides
        corners = [(y, x) for y in range(0, H, h) for x in range(0, W, w)]
        for number, (y, x) in enumerate(corners):
            core = Window(y, y + h, x, x + w).clip_to(self.size)
            context, window = (core.grow(round_up_to_step(m)).clip_to(self.size) for m in (self.margin, self.halo))
            yield Tile(number, core, context, window)

    @property
    def largest(self) -> tuple[int, int]:
        """Pixels of the largest context and of the largest window."""
        return _product(map(max, self._lengths(self.margin))), _product(map(max, self._lengths(self.halo)))

    @property
    def total_window_area(self) -> int:
        """Pixels of all windows, a measure of the work."""
        return _product(map(sum, self._lengths(self.halo)))

    def _lengths(self, margin: int) -> list[list[int]]:
        """Compute the lengths of the cores with a margin within the picture, along both axes."""
        m = round_up_to_step(margin)
        return [
            [min(first + side + m, length) - max(first - m, 0) for first in range(0, length, side)]
            for length, side in zip(self.size, self.sides, strict=True)
        ]


def candidate_sides(length: int) -> list[int]:
    """List the sides that cut a length into 1, 2, 3, ... parts of about one size."""
    most = max(1, length // LEAST)
    return sorted({min(MOST, round_up_to_step(-(-length // parts))) for parts in range(1, most + 1)})


def round_up_to_step(length: int) -> int:
    """Round up to a multiple of STEP, where windows may begin."""
    return -(-length // STEP) * STEP


def _product(lengths: Iterable[int]) -> int:
    height, width = lengths
    return height * width


MemoryNeed = Callable[[int, int], float]
"""Function from the pixels of a tile's context and of its window to the bytes that it takes."""


def choose_grid(
    size: tuple[int, int], halo: int, margin: int, need: MemoryNeed, memory: float, share: float = 1.0
) -> Grid:
    """Choose the grid of least work whose tiles take this share of `memory` bytes. Raises UsageError if none does."""
    grids = [Grid(size, sides, halo, margin) for sides in product(candidate_sides(size[0]), candidate_sides(size[1]))]
    fits = [grid for grid in grids if need(*grid.largest) <= memory * share]
    if fits:
        return min(fits, key=lambda grid: (grid.total_window_area, len(grid)))
    least = min(need(*grid.largest) for grid in grids)
    raise short_budget(memory, least / share, "these frames need")


def restore_grid(grid: Grid, folder: Path, memory: float) -> Grid:
    """Restore the grid whose tiles a stopped run has numbered, whatever fits today; otherwise store this one. If less
    memory is allowed than then, all tiles are processed anew."""
    file = folder / GRID
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError):
        record = None
    with translate_read_errors(file):
        if record is not None and record["memory"] <= memory:
            return replace(grid, sides=tuple(record["sides"]))
    for log in folder.glob(f"*{LOG}"):  # of what is made of these tiles, too
        log.unlink()
    write_atomically(file, json.dumps({"sides": grid.sides, "memory": memory}).encode())
    return grid


TileRecord = Mapping[str, Any]


def process_tiles(
    parts: Iterable[P], folder: Path, work: Callable[[P], TileRecord], label: str, log: str = LOG
) -> list[TileRecord]:
    """Process the tiles of a picture, and return their records (plain JSON values) in order; tiles in the folder's log
    of that name are not repeated, so `work` must have written its pixels durably when it returns."""
    todo, done = list(parts), read_log(folder, log)
    with progress(label, len(todo), len(done)) as advance:
        for number, part in enumerate(todo):
            if number not in done:
                done[number] = work(part)
                _append_to_log(folder / log, {"tile": number, "told": dict(done[number])})
                advance()
    return [done[number] for number in range(len(todo))]


def read_log(folder: Path, log: str = LOG) -> dict[int, TileRecord]:
    """Read the records of finished tiles by number; an incomplete last line, of a killed process, is ignored."""
    try:
        lines = (folder / log).read_text().splitlines(keepends=True)
    except OSError:
        return {}
    with translate_read_errors(folder / log):
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return {int(entry["tile"]): entry["told"] for entry in entries}


def _append_to_log(path: Path, entry: TileRecord) -> None:
    with translate_write_errors(path), path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(path.read_bytes().rfind(b"\n") + 1)  # an incomplete line
        file.seek(0, 2)
        file.write(json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def cover_marked(
    marks: npt.NDArray[np.bool_], margin: int, halo: int = 0, within: Window | None = None
) -> list[Window]:
    """Cover the marked pixels of a picture (H, W), each with a margin around it, by windows that begin at multiples of
    STEP; they may extend beyond the picture. A window is divided in two where that lessens the area with a halo, as far
    as it lies within another window; None: all of it counts."""
    Y, X = (round_up_to_step(side) // STEP for side in marks.shape)
    wide = np.zeros((Y * STEP, X * STEP), bool)
    wide[: marks.shape[0], : marks.shape[1]] = marks
    around = round_up_to_step(margin)
    cells: npt.NDArray[np.bool_] = np.logical_or.reduce(wide.reshape(Y, STEP, X, STEP), axis=(1, 3))
    return [
        Window(STEP * y0, STEP * y1, STEP * x0, STEP * x1).grow(around)
        for y0, y1, x0, x1 in _divide(cells, (0, Y, 0, X), around + halo, within)
    ]


def _divide(cells: npt.NDArray[np.bool_], box: Box, extra: int, within: Window | None) -> list[Box]:
    """Divide the bounding box of the marked cells in a box in two, and these again, where it lessens the sum of areas,
    each with so many pixels more on all sides, but only within a window."""

    def shrink(y0: int, y1: int, x0: int, x1: int) -> Box | None:
        rows, columns = (np.flatnonzero(cells[y0:y1, x0:x1].any(axis)) for axis in (1, 0))
        if not len(rows):
            return None
        return y0 + int(rows[0]), y0 + int(rows[-1]) + 1, x0 + int(columns[0]), x0 + int(columns[-1]) + 1

    def cost(part: Box | None) -> int:
        if part is None:
            return 0
        y0, y1, x0, x1 = part
        wide = Window(STEP * y0, STEP * y1, STEP * x0, STEP * x1).grow(extra)
        return _product((wide if within is None else wide.intersect(within)).size)

    whole = shrink(*box)
    if whole is None:
        return []
    y0, y1, x0, x1 = whole
    pairs = [(shrink(y0, y, x0, x1), shrink(y, y1, x0, x1)) for y in range(y0 + 1, y1)]
    pairs += [(shrink(y0, y1, x0, x), shrink(y0, y1, x, x1)) for x in range(x0 + 1, x1)]
    best = min(pairs, key=lambda pair: cost(pair[0]) + cost(pair[1]), default=(None, None))
    if best == (None, None) or cost(best[0]) + cost(best[1]) >= cost(whole):
        return [whole]
    return [box for part in best if part is not None for box in _divide(cells, part, extra, within)]
