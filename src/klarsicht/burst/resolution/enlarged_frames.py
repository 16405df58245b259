"""Frames of another store at twice the resolution, by Lanczos's windowed sinc of three lobes (Duchon 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes

FINE_PIXELS = 2  # pixels of the fine grid along one of the sensor
LOBES = 3  # pixels of the sensor that a fine pixel reads on each side


def lanczos_taps(fraction: float) -> npt.NDArray[np.float64]:
    """Compute the weights (2 LOBES,) of the pixels around a place that lies a fraction in [0, 1) behind one of them;
    their sum is 1."""
    away = fraction - np.arange(1 - LOBES, LOBES + 1)
    taps: npt.NDArray[np.float64] = np.sinc(away) * np.sinc(away / LOBES)
    return taps / taps.sum()


def enlarge(light: Planes) -> Planes:
    """Enlarge planes (C, h + 2 LOBES, w + 2 LOBES) by two, without their border: (C, 2 h, 2 w). A pixel p covers the
    fine pixels 2 p and 2 p + 1, whose centres lie a quarter of it before and behind its own."""
    later = lanczos_taps(0.25)
    for axis in (1, 2):
        inside = np.arange(LOBES, light.shape[axis] - LOBES)
        halves = ((later[::-1], 0), (later, -1))
        parts = [correlate1d(light, taps, axis, origin=origin).take(inside, axis) for taps, origin in halves]
        light = np.stack(parts, axis + 1)
        light = light.reshape(*light.shape[:axis], -1, *light.shape[axis + 2 :])
    return np.ascontiguousarray(light, np.float32)


@dataclass(frozen=True)
class EnlargedFrames(FrameStore):
    """Frames (N, C, 2 h, 2 w) of another store, enlarged when they are read."""

    source: FrameStore

    @classmethod
    def of(cls, source: FrameStore) -> EnlargedFrames:
        N, C, h, w = source.shape
        return cls(source.path, (N, C, FINE_PIXELS * h, FINE_PIXELS * w), source)

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        coarse = Window(inside.y0 // 2, -(-inside.y1 // 2), inside.x0 // 2, -(-inside.x1 // 2))
        light = enlarge(self.source.read_window(frame, coarse.grow(LOBES)))
        there = inside.slices_in(Window(2 * coarse.y0, 2 * coarse.y1, 2 * coarse.x0, 2 * coarse.x1))
        return np.ascontiguousarray(light[:, *there])
