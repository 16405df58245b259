"""Frames on disk, so that memory does not depend on how many they are or how large.

Axes: N frames, C channels, H W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.photograph import Planes
from klarsicht.ground.disk import sync, writing

STRIP = 4 << 20  # pixels of all channels that are looked at together
FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Window:
    """Rows y0 to y1, columns x0 to x1 of a frame; may reach beyond its borders."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def size(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    def grown(self, margin: int) -> Window:
        return Window(self.y0 - margin, self.y1 + margin, self.x0 - margin, self.x1 + margin)

    def moved(self, dy: int, dx: int) -> Window:
        return Window(self.y0 + dy, self.y1 + dy, self.x0 + dx, self.x1 + dx)

    def within(self, size: tuple[int, int]) -> Window:
        """What of it lies in a frame of that size."""
        H, W = size
        return Window(_clip(self.y0, H), _clip(self.y1, H), _clip(self.x0, W), _clip(self.x1, W))

    def common(self, other: Window) -> Window:
        """What lies in both."""
        return Window(max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1))

    def inside(self, outer: Window) -> tuple[slice, slice]:
        """Where it lies in what was read of an outer window."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)


def _clip(place: int, most: int) -> int:
    return min(max(place, 0), most)


def rows_of_a_strip(channels: int, width: int, multiple: int = 1) -> int:
    return max(multiple, STRIP // (channels * width) // multiple * multiple)


@dataclass(frozen=True)
class FrameStore:
    """A file of float32, (N, C, H, W). It is mapped only while it is read or written: what is mapped counts as memory
    in use."""

    path: Path
    shape: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[2], self.shape[3]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * FLOAT.itemsize

    def allocate(self) -> None:
        """Where the system can, its place on the disk too: a full one says so now, and not while the file is mapped.

        Raises DiskFull, StoreError.
        """
        with writing(self.path), self.path.open("ab") as file:
            file.truncate(self.bytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.bytes)

    def put(self, frame: int, light: Planes) -> None:
        """One frame, durably."""
        with writing(self.path):
            with self.path.open("r+b") as file:
                file.seek(frame * self.bytes // self.shape[0])
                file.write(np.ascontiguousarray(light, FLOAT).data)
            sync(self.path)

    def put_window(self, frame: int, window: Window, light: npt.NDArray[np.float32]) -> None:
        with writing(self.path):
            mapped = np.memmap(self.path, FLOAT, "r+", shape=self.shape)
            mapped[frame, :, window.y0 : window.y1, window.x0 : window.x1] = light
            mapped.flush()

    def window(self, frame: int, window: Window) -> Planes:
        """(C, h, w), the border repeated where the window reaches beyond it."""
        H, W = self.size
        there = window.within(self.size)
        y0, x0 = min(there.y0, H - 1), min(there.x0, W - 1)
        part = self.part(frame, Window(y0, max(there.y1, y0 + 1), x0, max(there.x1, x0 + 1)))
        h, w = window.size
        above, left = min(max(-window.y0, 0), h - 1), min(max(-window.x0, 0), w - 1)
        rows = np.clip(np.arange(h) - above, 0, part.shape[1] - 1)
        columns = np.clip(np.arange(w) - left, 0, part.shape[2] - 1)
        if (h, w) == part.shape[1:]:
            return part
        return np.ascontiguousarray(part[:, rows[:, None], columns])

    def part(self, frame: int, inside: Window) -> Planes:
        """(C, h, w) of a window that lies in the frame."""
        mapped = np.memmap(self.path, FLOAT, "r", shape=self.shape)
        return np.array(mapped[frame, :, inside.y0 : inside.y1, inside.x0 : inside.x1])

    def surroundings(self, frame: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(K, 3, 3): around the places (K, 3), of channel, row and column; the border repeated."""
        (H, W), around = self.size, np.arange(-1, 2)
        c, y, x = places.T[:, :, None, None]
        mapped = np.memmap(self.path, FLOAT, "r", shape=self.shape)
        rows, columns = np.clip(y + around[:, None], 0, H - 1), np.clip(x + around, 0, W - 1)
        return np.array(mapped[frame, c, rows, columns])

    def windows(self, frames: Sequence[int], window: Window) -> Frames:
        """(len(frames), C, h, w)."""
        return np.stack([self.window(i, window) for i in frames])

    def strips(self, frame: int, multiple: int = 1) -> Iterator[tuple[int, Planes]]:
        """First row and light of strips of full width, from top to bottom, a multiple of rows each but the last."""
        for window in self.bands(multiple):
            yield window.y0, self.window(frame, window)

    def bands(self, multiple: int = 1) -> list[Window]:
        """Where strips lie."""
        C, H, W = self.shape[1:]
        rows = rows_of_a_strip(C, W, multiple)
        return [Window(y0, min(H, y0 + rows), 0, W) for y0 in range(0, H, rows)]
