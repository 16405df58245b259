"""A burst of files on its way into a spool: frames checked, compared in brightness and sharpness, and put down."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.photograph import Header, Photograph, Planes
from klarsicht.burst.files import reading
from klarsicht.ground.disk import write_atomically
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.progress import track

CELLS = 24  # along the longer side, whose brightness is compared
MOST_DRIFT = 2 ** (1 / 3)  # of exposure: a third of a stop
LEAST_DRIFT = 1.005
SATURATED = 0.95
FRAMES, STATS = "frames.f32", "frames.json"


@dataclass(frozen=True)
class Frame:
    """What is known of one frame. gain: what it was multiplied by to be as bright as the first. sharpness: of fine
    detail, noise included. refused: why it cannot serve, or nothing."""

    name: str
    gain: float
    sharpness: float
    refused: str = ""


@dataclass(frozen=True, eq=False)
class LoadedBurst:
    """Headers of all files; the spool and its frames in the same order; the number of the reference."""

    headers: tuple[Header, ...]
    spool: FrameStore
    frames: tuple[Frame, ...]
    reference: int

    @property
    def header(self) -> Header:
        """The reference's."""
        return self.headers[self.reference]

    @property
    def order(self) -> list[int]:
        """The reference, then the others that can serve, the sharpest first."""
        others = [i for i, f in enumerate(self.frames) if i != self.reference and not f.refused]
        return [self.reference, *sorted(others, key=lambda i: -self.frames[i].sharpness)]


def load_frames(paths: Sequence[Path], folder: Path, reference: str | None = None, linear: bool = False) -> LoadedBurst:
    """Reads the files into folder/frames.f32, one at a time; what was put there before a stop stays.

    Raises InputError for files that do not fit together, UsageError for a reference that is not among them.
    """
    chosen = _chosen(paths, reference)
    known = _remembered(folder)
    headers: list[Header] = []
    frames: list[Frame] = []
    cells: list[npt.NDArray[np.float64]] = []
    spool: FrameStore | None = None
    for i, negative in enumerate(track(reading.burst(paths, linear), len(paths), "reading")):
        if spool is None:
            spool = FrameStore(folder / FRAMES, (len(paths), *negative.light.shape))
            spool.allocate()
        headers.append(negative.header)
        cells.append(cell_means(negative.light))
        _check_exposure(headers[0], negative.header)
        frame = _frame(negative, cells[0], cells[-1])
        if i >= known:
            spool.put(i, negative.light if frame.gain == 1 else negative.light * np.float32(frame.gain))
            write_atomically(folder / STATS, json.dumps({"frames": i + 1}).encode())
        frames.append(frame)
    assert spool is not None
    frames = _majority(frames)
    best = chosen if chosen is not None else max(range(len(frames)), key=lambda i: _merit(frames[i]))
    return LoadedBurst(tuple(headers), spool, tuple(frames), best)


def _chosen(paths: Sequence[Path], reference: str | None) -> int | None:
    if reference is None:
        return None
    names = [path.name for path in paths]
    if reference in names:
        return names.index(reference)
    if reference.isdigit() and 1 <= int(reference) <= len(names):
        return int(reference) - 1
    rule = f"a frame's name, or its number, 1 to {len(names)}"
    raise UsageError("reference", got=reference, rule=rule)


def _remembered(folder: Path) -> int:
    try:
        return int(json.loads((folder / STATS).read_text())["frames"])
    except (OSError, ValueError, KeyError):
        return 0


def _merit(frame: Frame) -> float:
    return -1.0 if frame.refused else frame.sharpness


def _frame(negative: Photograph, first: npt.NDArray[np.float64], own: npt.NDArray[np.float64]) -> Frame:
    gain, name = brightness_ratio(first, own), negative.header.path.name
    if not 1 / MOST_DRIFT <= gain <= MOST_DRIFT:
        told = f"{name} is {-math.log2(gain):+.1f} EV off the first frame: another exposure, or another scene"
        return Frame(name, 1.0, 0.0, told)
    if 1 / LEAST_DRIFT < gain < LEAST_DRIFT:
        gain = 1.0
    return Frame(name, gain, sharpness(negative.light))


def _majority(frames: list[Frame]) -> list[Frame]:
    """Where most frames differ from the first, it is not they that are odd. Raises InputError."""
    refused = [f for f in frames if f.refused]
    if 2 * len(refused) >= len(frames):
        remedy = "Leave out what is of another scene, or exposed otherwise."
        raise InputError(refused[0].refused, rule="a third of a stop is the most that is evened out", remedy=remedy)
    return frames


def _check_exposure(first: Header, other: Header) -> None:
    """Raises InputError where the files themselves say that the burst is a bracket."""
    if first.exposure and other.exposure and not 1 / MOST_DRIFT <= other.exposure / first.exposure <= MOST_DRIFT:
        got = f"{math.log2(other.exposure / first.exposure):+.1f} EV"
        rule = f"at most 1/3 EV off {first.path.name}"
        raise InputError(f"{other.path.name} has another exposure", got=got, rule=rule, remedy="Leave it out.")


def cell_means(light: Planes) -> npt.NDArray[np.float64]:
    """(C, rows, columns): mean light of cells, about 24 along the longer side."""
    C, H, W = light.shape
    side = max(1, -(-max(H, W) // CELLS))
    Y, X = max(1, H // side), max(1, W // side)
    h, w = min(side, H), min(side, W)
    means: npt.NDArray[np.float64] = light[:, : Y * h, : X * w].reshape(C, Y, h, X, w).mean((2, 4), np.float64)
    return means


def brightness_ratio(first: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """The g that makes g x other as bright as the first: a weighted median, saturated cells left out."""
    usable = (first < SATURATED) & (other < SATURATED) & (first > 0) & (other > 0)
    if not usable.any():
        return 1.0
    ratios, weights = (first / np.where(usable, other, 1))[usable], (first + other)[usable]
    order = np.argsort(ratios)
    total = np.cumsum(weights[order])
    return float(ratios[order][np.searchsorted(total, total[-1] / 2)])


def sharpness(light: Planes) -> float:
    """Mean squared step between neighbours two pixels wide, over the square of the mean."""
    H, W = light.shape[1] // 2 * 2, light.shape[2] // 2 * 2
    grey = sum(light[:, y:H:2, x:W:2].mean(0) for y in (0, 1) for x in (0, 1))
    assert not isinstance(grey, int)
    steps = sum(float(np.square(np.diff(grey, axis=axis)).mean()) for axis in (0, 1))
    return steps / max(float(grey.mean()), 1e-6) ** 2
