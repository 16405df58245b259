"""Frames in a file on disk, so that memory does not depend on their number or size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.photograph import Planes
from klarsicht.ground.machine.disk import translate_write_errors
from klarsicht.ground.machine.operating_system import sync

STRIP = 4 << 20  # values, over all channels, of one strip
FLOAT = np.dtype("<f4")

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Rows y0 to y1 and columns x0 to x1 (end exclusive) of a frame, or beyond its borders."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def size(self) -> tuple[int, int]:
        return self.y1 - self.y0, self.x1 - self.x0

    def grow(self, margin: int) -> Window:
        """Extend the window by a margin on each side."""
        return Window(self.y0 - margin, self.y1 + margin, self.x0 - margin, self.x1 + margin)

    def translate(self, dy: int, dx: int) -> Window:
        """Shift the window by (dy, dx) pixels."""
        return Window(self.y0 + dy, self.y1 + dy, self.x0 + dx, self.x1 + dx)

    def clip_to(self, size: tuple[int, int]) -> Window:
        """Intersect the window with a frame of that size (height, width)."""
        H, W = size
        return Window(_clamp(self.y0, H), _clamp(self.y1, H), _clamp(self.x0, W), _clamp(self.x1, W))

    def intersect(self, other: Window) -> Window:
        """Return the intersection of both windows."""
        return Window(max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1))

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Return the row and column slices of this window in an array that holds an outer window."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)


def _clamp(place: int, most: int) -> int:
    return min(max(place, 0), most)


def strip_rows(channels: int, width: int, multiple: int = 1) -> int:
    """Return the rows of a full-width strip of about STRIP values: a multiple of `multiple`, at least one."""
    return max(multiple, STRIP // (channels * width) // multiple * multiple)


@dataclass(frozen=True)
class FrameStore:
    """A file of float32 (N, C, H, W), mapped only while it is used, because mapped pages count as memory."""

    path: Path
    shape: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[2], self.shape[3]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * FLOAT.itemsize

    def allocate(self) -> None:
        """Create the file at full size, with its disk blocks reserved where the system can, so that a full disk is
        reported now; the file is then as long as before. Raises DiskFull, StoreError."""
        with translate_write_errors(self.path, self.bytes), self.path.open("ab") as file:
            before = file.seek(0, os.SEEK_END)
            try:
                file.truncate(self.bytes)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self.bytes)
            except OSError:
                file.truncate(before)
                raise

    def write_frame(self, frame: int, light: Planes) -> None:
        """Write one frame (C, H, W) durably (with fsync)."""
        with translate_write_errors(self.path):
            with self.path.open("r+b") as file:
                file.seek(frame * self.bytes // self.shape[0])
                for plane in light:  # one after the other: planes are copied where they lie interleaved
                    file.write(np.ascontiguousarray(plane, FLOAT).data)
            sync(self.path)

    def write_window(self, frame: int, window: Window, light: npt.NDArray[np.float32]) -> None:
        """Write values (C, h, w) into a window of a frame."""
        with translate_write_errors(self.path):
            mapped = np.memmap(self.path, FLOAT, "r+", shape=self.shape)
            mapped[frame, :, window.y0 : window.y1, window.x0 : window.x1] = light
            mapped.flush()

    def read_window(self, frame: int, window: Window) -> Planes:
        """Read a window (C, h, w) of a frame; the border is repeated where the window reaches beyond the frame."""
        H, W = self.size
        there = window.clip_to(self.size)
        y0, x0 = min(there.y0, H - 1), min(there.x0, W - 1)
        part = self.read_inner_window(frame, Window(y0, max(there.y1, y0 + 1), x0, max(there.x1, x0 + 1)))
        h, w = window.size
        above, beside = min(max(-window.y0, 0), h - 1), min(max(-window.x0, 0), w - 1)
        if (h, w) == part.shape[1:]:
            return part
        after = h - above - part.shape[1], w - beside - part.shape[2]
        return np.pad(part, ((0, 0), (above, after[0]), (beside, after[1])), mode="edge")

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        """Read a window (C, h, w) that lies within the frame."""
        mapped = np.memmap(self.path, FLOAT, "r", shape=self.shape)
        return np.array(mapped[frame, :, inside.y0 : inside.y1, inside.x0 : inside.x1])

    def locate_neighbours(self, places: Places) -> tuple[Places, Places]:
        """Return rows and columns (k, 3, 3) around k places (channel, row, column); the border is repeated."""
        (H, W), around = self.size, np.arange(-1, 2)
        y, x = places.T[1:, :, None, None]
        return np.clip(y + around[:, None], 0, H - 1), np.clip(x + around, 0, W - 1)

    def read_neighbourhoods(self, frame: int, places: Places) -> npt.NDArray[np.float32]:
        """Read k places and their neighbours, (k, 3, 3)."""
        mapped = np.memmap(self.path, FLOAT, "r", shape=self.shape)
        return np.array(mapped[frame, places[:, 0, None, None], *self.locate_neighbours(places)])

    def read_windows(self, frames: Sequence[int], window: Window) -> Frames:
        """Read one window of n frames, (n, C, h, w)."""
        light = np.empty((len(frames), self.shape[1], *window.size), np.float32)
        for k, i in enumerate(frames):
            light[k] = self.read_window(i, window)
        return light

    def read_strips(self, frame: int, multiple: int = 1) -> Iterator[tuple[int, Planes]]:
        """Yield first row and values of strips of full width, all but the last of a multiple of `multiple` rows."""
        for window in self.strip_windows(multiple):
            yield window.y0, self.read_window(frame, window)

    def mean(self, frame: int) -> float:
        """Compute the mean of a frame over all channels and pixels."""
        return float(sum(light.sum(dtype=np.float64) for _, light in self.read_strips(frame)) / np.prod(self.shape[1:]))

    def strip_windows(self, multiple: int = 1) -> list[Window]:
        """Return the windows of the strips that `read_strips` reads."""
        C, H, W = self.shape[1:]
        rows = strip_rows(C, W, multiple)
        return [Window(y0, min(H, y0 + rows), 0, W) for y0 in range(0, H, rows)]
