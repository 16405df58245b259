"""A picture of any size made piece by piece in bounded memory, and gone on with where it was stopped.

A tile's window is its own part with a halo that covers all that decides about it; windows begin at multiples of what
the network and the mesh step by. So tiles equal the whole. Axes: C channels, H W pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from klarsicht.burst.placing import STEP
from klarsicht.burst.spool import Window
from klarsicht.ground.disk import write_atomically, writing
from klarsicht.ground.errors import UsageError
from klarsicht.ground.progress import progress

LEAST, MOST = 2 * STEP, 64 * STEP  # side of a tile's own part
LOG, GRID = "tiles.jsonl", "grid.json"


@dataclass(frozen=True)
class Tile:
    """own: the part that a tile gives. window: with its halo, inside the picture."""

    number: int
    own: Window
    window: Window


@dataclass(frozen=True)
class Grid:
    """Tiles of `side`, a multiple of STEP, over a picture of `size`, each seeing `halo` around it."""

    size: tuple[int, int]
    side: int
    halo: int

    @property
    def margin(self) -> int:
        """The halo, to where windows may begin."""
        return -(-self.halo // STEP) * STEP

    def __len__(self) -> int:
        return -(-self.size[0] // self.side) * -(-self.size[1] // self.side)

    def __iter__(self) -> Iterator[Tile]:
        H, W = self.size
        corners = [(y, x) for y in range(0, H, self.side) for x in range(0, W, self.side)]
        for number, (y, x) in enumerate(corners):
            own = Window(y, y + self.side, x, x + self.side).within(self.size)
            yield Tile(number, own, own.grown(self.margin).within(self.size))


def fitting(size: tuple[int, int], halo: int, bytes_a_pixel: float, fixed: float, memory: float) -> Grid:
    """The largest tiles whose windows fit into `memory` bytes beside what is `fixed`. Raises UsageError."""
    margin = Grid(size, STEP, halo).margin
    for side in range(MOST, LEAST - 1, -STEP):
        height, width = (min(side + 2 * margin, length) for length in size)
        if fixed + bytes_a_pixel * height * width <= memory:
            even = max(-(-length // -(-length // side)) for length in size)
            return Grid(size, min(side, -(-even // STEP) * STEP), halo)
    need = fixed + bytes_a_pixel * min((LEAST + 2 * margin) ** 2, size[0] * size[1])
    got, rule = f"{memory / 1e9:.2g} GB", f"these frames need {need / 1e9:.2g} GB"
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
        return replace(grid, side=known["side"])
    (folder / LOG).unlink(missing_ok=True)
    write_atomically(file, json.dumps({"side": grid.side, "memory": memory}).encode())
    return grid


def resident() -> float:
    """Bytes of memory that this process holds now (Linux; elsewhere what it usually is with torch)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.6e9
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


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
