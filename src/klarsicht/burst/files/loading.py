"""Loading a burst of files into a frame store, scaled to the exposure of the first, with a check of each frame's
brightness and scene and a measure of its sharpness."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.photograph import AS_WRITTEN, Header, Photograph, Planes, ReadSettings
from klarsicht.burst.files import reading, scene_majority
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import parse_digits

CELLS = 24  # along the longer side, for the comparison of brightness
MOST_DRIFT = 2 ** (1 / 3)  # of exposure: a third of a stop
LEAST_DRIFT = 1.005  # smaller ratios are not corrected
SATURATED = 0.95  # of white
FRAMES, STATS = "frames.f32", "frames.json"


@dataclass(frozen=True)
class Frame:
    """Statistics of one frame. gain: the factor that matches the brightness of the first. sharpness: energy of fine
    detail, noise included. rejection: the reason to exclude the frame, or empty."""

    name: str
    gain: float
    sharpness: float
    rejection: str = ""


@dataclass(frozen=True, eq=False)
class LoadedBurst:
    """A burst in a frame store. headers, frames: of all files, in its order; reference: the index of the reference."""

    headers: tuple[Header, ...]
    spool: FrameStore
    frames: tuple[Frame, ...]
    reference: int

    @property
    def header(self) -> Header:
        """The header of the reference."""
        return self.headers[self.reference]

    @property
    def is_bracket(self) -> bool:
        """Whether usable frames have exposures that differ by more than is evened out."""
        return _is_bracket(self.frames)

    @property
    def reference_reason(self) -> str:
        """Reason for the reference in words: one that `load_frames` would not choose was asked for."""
        if self.reference != _choose_reference(self.frames):
            return f"as asked for, of {len(self.frames)}"
        return f"the sharpest{' of the middle exposure' if self.is_bracket else ''} of {len(self.frames)}"

    @property
    def order(self) -> list[int]:
        """The indices of the reference and then of the other usable frames, the sharpest first."""
        others = [i for i, f in enumerate(self.frames) if i != self.reference and not f.rejection]
        return [self.reference, *sorted(others, key=lambda i: -self.frames[i].sharpness)]


def load_frames(
    paths: Sequence[Path], folder: Path, reference: str | None = None, settings: ReadSettings = AS_WRITTEN
) -> LoadedBurst:
    """Read the files into folder/frames.f32, one at a time; frames stored before an interruption are not written again.
    reference: a name or number; by default the sharpest frame, in a bracket of those of the middle exposure. Without
    one, frames of another scene than most are rejected. Raises InputError for files that do not fit together,
    UsageError for a reference that is not among them."""
    names = reading.name_frames(paths)
    index = _reference_index(names, reference)
    known = count_stored(folder / STATS)
    headers: list[Header] = []
    frames: list[Frame] = []
    thumbnails: list[npt.NDArray[np.float64]] = []
    first_cells: npt.NDArray[np.float64] | None = None
    spool: FrameStore | None = None

    def add(i: int, photograph: Photograph) -> None:
        nonlocal spool, first_cells
        light, header = photograph.light, photograph.header
        headers.append(header)
        reading.check_alike(headers[0], header)
        if spool is None:
            spool = FrameStore(folder / FRAMES, (len(paths), *light.shape))
            spool.allocate()
        own_cells = cell_means(light)
        thumbnails.append(scene_majority.thumbnail(light))
        first_cells = own_cells if first_cells is None else first_cells
        by_tags = exposure_ratio(headers[0], header)
        frame = _frame(names[i], photograph, by_tags, brightness_ratio(first_cells, own_cells))
        if i >= known:
            if frame.gain != 1:
                np.multiply(light, np.float32(frame.gain), out=light)  # a product of its own would take as much again
            spool.write_frame(i, light)
            write_atomically(folder / STATS, json.dumps({"frames": i + 1}).encode())
        frames.append(frame)

    for i, path in enumerate(track(paths, len(paths), "reading")):
        add(i, reading.read(path, settings))  # no name holds a photograph while the next one is read
    assert spool is not None
    frames = _check_majority(frames)
    if index is None and not _is_bracket(frames):
        frames = _reject_other_scenes(frames, thumbnails)
    best = index if index is not None else _choose_reference(frames)
    return LoadedBurst(tuple(headers), spool, tuple(frames), best)


def _reference_index(names: Sequence[str], reference: str | None) -> int | None:
    """Return the index of the frame given by name or by number from 1; None if none is given. Raises UsageError."""
    if reference is None:
        return None
    if reference in names:
        return names.index(reference)
    if 1 <= (parse_digits(reference) or 0) <= len(names):
        return int(reference) - 1
    rule = f"a frame's name, or its number, 1 to {len(names)}"
    raise UsageError("reference", got=reference, rule=rule)


def count_stored(stats: Path) -> int:
    """Return the number of frames that an interrupted run has stored, by the file that it kept of them."""
    try:
        return int(json.loads(stats.read_text())["frames"])
    except (OSError, ValueError, KeyError):
        return 0


def _choose_reference(frames: Sequence[Frame]) -> int:
    """Choose the sharpest frame that is not rejected, in a bracket of those of the middle exposure."""
    usable = [i for i, frame in enumerate(frames) if not frame.rejection]
    if _is_bracket(frames):
        middle = sorted(frames[i].gain for i in usable)[len(usable) // 2]
        usable = [i for i in usable if 1 / MOST_DRIFT <= frames[i].gain / middle <= MOST_DRIFT]
    return max(usable, key=lambda i: frames[i].sharpness)


def _is_bracket(frames: Sequence[Frame]) -> bool:
    return any(not 1 / MOST_DRIFT <= frame.gain <= MOST_DRIFT for frame in frames)


def _frame(name: str, photograph: Photograph, by_tags: float, gain: float) -> Frame:
    """Compute the statistics of a photograph from the ratio of exposures by its tags, and the measured gain."""
    if not 1 / MOST_DRIFT <= gain / by_tags <= MOST_DRIFT:
        off = f"{name} is {-math.log2(gain / by_tags):+.1f} EV off the first frame"
        told = ": another exposure, or another scene" if by_tags == 1 else ", beside its exposure: another scene"
        return Frame(name, 1.0, 0.0, off + told)
    if 1 / LEAST_DRIFT < gain < LEAST_DRIFT:
        gain = 1.0
    return Frame(name, gain, sharpness(photograph.light))


def _check_majority(frames: list[Frame]) -> list[Frame]:
    """Return the frames. Raises InputError if half of them differ from the first, which may then be the outlier."""
    rejected = [f for f in frames if f.rejection]
    if 2 * len(rejected) >= len(frames):
        remedy = "Leave out what is of another scene, or exposed otherwise."
        raise InputError(rejected[0].rejection, rule="a third of a stop is the most that is evened out", remedy=remedy)
    return frames


def _reject_other_scenes(frames: Sequence[Frame], thumbnails: Sequence[npt.NDArray[np.float64]]) -> list[Frame]:
    """Reject the frames that show another scene than most of those whose brightness agrees with the first."""
    out = list(frames)
    alike = [i for i, frame in enumerate(frames) if not frame.rejection]
    for k in scene_majority.outliers(scene_majority.scene_correlations([thumbnails[i] for i in alike])):
        frame = frames[alike[k]]
        out[alike[k]] = replace(frame, rejection=f"{frame.name} shows another scene than most frames")
    return out


def exposure_ratio(first: Header, other: Header) -> float:
    """Compute the first file's exposure over the other's, by their tags; 1 where unknown or within a third stop."""
    ratio = first.exposure / other.exposure if first.exposure and other.exposure else 1.0
    return 1.0 if 1 / MOST_DRIFT <= ratio <= MOST_DRIFT else ratio


def cell_means(light: Planes) -> npt.NDArray[np.float64]:
    """Compute the mean light (C, rows, columns) of square cells, about 24 along the longer side."""
    C, H, W = light.shape
    side = max(1, -(-max(H, W) // CELLS))
    Y, X = max(1, H // side), max(1, W // side)
    h, w = min(side, H), min(side, W)
    return light[:, : Y * h, : X * w].reshape(C, Y, h, X, w).mean((2, 4), np.float64)


def brightness_ratio(first: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Compute the gain g for which g x other matches the first: a weighted median, without saturated cells."""
    usable = (first < SATURATED) & (other < SATURATED) & (first > 0) & (other > 0)
    if not usable.any():
        return 1.0
    ratios, weights = (first / np.where(usable, other, 1))[usable], (first + other)[usable]
    order = np.argsort(ratios)
    total = np.cumsum(weights[order])
    return float(ratios[order][np.searchsorted(total, total[-1] / 2)])


def sharpness(light: Planes) -> float:
    """Compute the mean squared difference between neighbours two pixels wide, over the square of the mean."""
    H, W = light.shape[1] // 2 * 2, light.shape[2] // 2 * 2
    grey = sum(light[:, y:H:2, x:W:2].mean(0) for y in (0, 1) for x in (0, 1))
    assert not isinstance(grey, int)
    steps = 0.0
    for axis in (0, 1):
        step = np.diff(grey, axis=axis)
        steps += float(np.square(step, out=step).mean())
    return steps / max(float(grey.mean()), 1e-6) ** 2
