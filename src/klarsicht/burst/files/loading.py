"""Loading a burst of files into a frame store, scaled to the exposure of the first, with a check of each frame's
brightness and scene and a measure of its sharpness."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.photograph import AS_WRITTEN, Header, Photograph, Planes, ReadSettings
from klarsicht.burst.files import reading, scene_majority
from klarsicht.burst.files.dark_frame import DarkFrame
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
    detail over the squared mean, noise included. rejection: the reason to exclude the frame, or empty. detail: the same
    energy in the brightness of the first, which a bright object that comes into the picture does not change."""

    name: str
    gain: float
    sharpness: float
    rejection: str = ""
    detail: float = 0.0


@dataclass(frozen=True, eq=False)
class LoadedBurst:
    """A burst in a frame store. headers, frames: of all files, in its order; reference: the index of the reference.
    hot: places (n, 3) of pixels that dark frames show to be hot: plane, row and column."""

    headers: tuple[Header, ...]
    spool: FrameStore
    frames: tuple[Frame, ...]
    reference: int
    hot: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))

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
    paths: Sequence[Path],
    folder: Path,
    reference: str | None = None,
    settings: ReadSettings = AS_WRITTEN,
    dark: Sequence[Path] = (),
) -> LoadedBurst:
    """Read the files into folder/frames.f32, one at a time; frames stored before an interruption are not written again.
    reference: a name or number; by default the sharpest frame, in a bracket of those of the middle exposure. Without
    one, frames of another scene than most are rejected. dark: dark frames, which are subtracted. Raises InputError for
    files that do not fit together, UsageError for a reference that is not among them."""
    names = reading.name_frames(paths)
    index = None if reference is None else find_named_frame(names, reference, "--reference")
    darkness = DarkFrame.read(dark, folder, settings) if dark else None
    read_frames = _read_frames(paths, folder, settings, 0, darkness)
    if 2 * read_frames.rejected_count >= len(paths) and (base := read_frames.usual_frame) is not None:
        read_frames = _read_frames(paths, folder, settings, base, darkness)
    frames = _reject_copies(_check_majority(list(read_frames.frames)), read_frames, index)
    if index is None and not _is_bracket(frames):
        frames = _reject_other_scenes(frames, read_frames.thumbnails)
    if index is not None and frames[index].rejection:
        raise InputError(
            "the frame to begin with cannot be used", got=frames[index].rejection,
            rule="the reference is exposed as most frames are", remedy="Name another by --reference, or leave it out.",
        )  # fmt: skip
    best = index if index is not None else _choose_reference(frames)
    hot = darkness.hot if darkness else np.zeros((0, 3), np.int64)
    return LoadedBurst(read_frames.headers, read_frames.spool, tuple(frames), best, hot)


@dataclass(frozen=True, eq=False)
class ReadFrames:
    """All files of a burst as they were read, and what tells their exposures, scenes and copies; of each frame."""

    headers: tuple[Header, ...]
    spool: FrameStore
    frames: tuple[Frame, ...]
    cells: tuple[Cells, ...]
    thumbnails: tuple[npt.NDArray[np.float64], ...]

    @property
    def rejected_count(self) -> int:
        return sum(bool(frame.rejection) for frame in self.frames)

    @property
    def usual_frame(self) -> int | None:
        """The first frame with whose exposure more than half of all frames agree; None without one."""
        everyone = list(zip(self.headers, self.cells, strict=True))
        for i, (header, cells) in enumerate(everyone):
            alike = (_exposures_agree(*_measure_exposures(header, cells, *other)) for other in everyone)
            if 2 * sum(alike) > len(everyone):
                return i
        return None


def _read_frames(
    paths: Sequence[Path], folder: Path, settings: ReadSettings, base: int, darkness: DarkFrame | None
) -> ReadFrames:
    """Read the files into folder/frames.f32, without their darkness, scaled to the exposure of the frame `base`; those
    stored before an interruption are not written again."""

    def read(path: Path) -> Photograph:
        photograph = reading.read(path, settings)
        if darkness is not None:
            darkness.subtract_from(photograph.light, photograph.header)
        return photograph

    names = reading.name_frames(paths)
    known = count_stored(folder / STATS, base)
    headers: list[Header] = []
    frames: list[Frame] = []
    cells: list[Cells] = []
    thumbnails: list[npt.NDArray[np.float64]] = []
    based_on: tuple[Header, Cells] | None = None
    spool: FrameStore | None = None
    if base:
        photograph = read(paths[base])
        based_on = photograph.header, Cells.measure(photograph.light)
        del photograph

    def add(i: int, photograph: Photograph) -> None:
        nonlocal spool, based_on
        light, header = photograph.light, photograph.header
        headers.append(header)
        reading.check_alike(headers[0], header)
        if spool is None:
            spool = FrameStore(folder / FRAMES, (len(paths), *light.shape))
            spool.allocate()
        cells.append(Cells.measure(light))
        thumbnails.append(scene_majority.thumbnail(light))
        based_on = based_on or (header, cells[0])
        frame = _frame(names[i], photograph, *_measure_exposures(*based_on, header, cells[-1]), names[base])
        if i >= known:
            if frame.gain != 1:
                np.multiply(light, np.float32(frame.gain), out=light)  # a product of its own would take as much again
            spool.write_frame(i, light)
            write_atomically(folder / STATS, json.dumps({"frames": i + 1, "base": base}).encode())
        frames.append(frame)

    for i, path in enumerate(track(paths, len(paths), "reading")):
        add(i, read(path))  # no name holds a photograph while the next one is read
    assert spool is not None
    return ReadFrames(tuple(headers), spool, tuple(frames), tuple(cells), tuple(thumbnails))


def find_named_frame(names: Sequence[str], text: str, option: str) -> int:
    """Return the index of the frame given by name or by number from 1. Raises UsageError, which names the option."""
    if text in names:
        return names.index(text)
    if 1 <= (parse_digits(text) or 0) <= len(names):
        return int(text) - 1
    raise UsageError(
        "no such frame", got=text, rule=f"a frame's name, or its number, 1 to {len(names)}",
        remedy=f"Name another by {option}, or leave it out.",
    )  # fmt: skip


def count_stored(stats: Path, base: int = 0) -> int:
    """Return the number of frames that an interrupted run has stored, by the file that it kept of them. base: the frame
    to whose exposure they must have been scaled."""
    try:
        record = json.loads(stats.read_text())
        return int(record["frames"]) if record.get("base", 0) == base else 0
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


def _frame(name: str, photograph: Photograph, by_tags: float, gain: float, base: str) -> Frame:
    """Compute the statistics of a photograph from the ratio of exposures by its tags, and the measured gain, towards
    the frame named `base`."""
    if not _exposures_agree(by_tags, gain):
        off = f"{name} is {-math.log2(gain / by_tags):+.1f} EV off {base}"
        told = ": another exposure, or another scene" if by_tags == 1 else ", beside its exposure: another scene"
        return Frame(name, 1.0, 0.0, off + told)
    if 1 / LEAST_DRIFT < gain < LEAST_DRIFT:
        gain = 1.0
    measure = sharpness(photograph.light)
    return Frame(name, gain, measure, detail=measure * (gain * float(photograph.light.mean())) ** 2)


def _measure_exposures(first: Header, first_cells: Cells, other: Header, other_cells: Cells) -> tuple[float, float]:
    """Return the first frame's exposure over the other's by their tags, and as measured; as the tags say, where no
    light is below white in both."""
    by_tags = exposure_ratio(first, other)
    return by_tags, brightness_ratio(first_cells, other_cells) or by_tags


def _exposures_agree(by_tags: float, measured: float) -> bool:
    """Whether two frames' ratio of brightness is that of their exposures, up to MOST_DRIFT."""
    return 1 / MOST_DRIFT <= measured / by_tags <= MOST_DRIFT


def _check_majority(frames: list[Frame]) -> list[Frame]:
    """Return the frames. Raises InputError if half of them are exposed otherwise than the others."""
    misfits = [f for f in frames if f.rejection]
    if 2 * len(misfits) >= len(frames):
        remedy = (
            "Leave out what is of another scene, or exposed otherwise. For a folder of several bursts, give "
            "`burst denoise` -o 'clean/{}.dng' or the like."
        )
        raise InputError(misfits[0].rejection, rule="a third of a stop is the most that is evened out", remedy=remedy)
    return frames


def _reject_copies(frames: list[Frame], read_frames: ReadFrames, reference: int | None) -> list[Frame]:
    """Reject the copies of other frames, of which the reference stays, else the first: no two exposures have the same
    noise, and copies would tell that there is none."""
    out = list(frames)
    order = sorted(range(len(frames)), key=lambda i: i != reference)
    for k, i in enumerate(order):
        twins = (j for j in order[:k] if not out[j].rejection and _is_copy(read_frames, i, j))
        if not out[i].rejection and (twin := next(twins, None)) is not None:
            out[i] = replace(frames[i], rejection=f"{frames[i].name} is a copy of {frames[twin].name}")
    return out


def _is_copy(read_frames: ReadFrames, i: int, j: int) -> bool:
    """Whether two frames hold the same light: the same statistics first, then the same pixels."""
    if read_frames.frames[i].sharpness != read_frames.frames[j].sharpness or not np.array_equal(
        read_frames.cells[i].mean, read_frames.cells[j].mean
    ):
        return False
    strips = zip(read_frames.spool.read_strips(i), read_frames.spool.read_strips(j), strict=True)
    return all(np.array_equal(here, there) for (_, here), (_, there) in strips)


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


@dataclass(frozen=True, eq=False)
class Cells:
    """Light of square cells, about 24 along the longer side, (C, rows, columns). is_open: whether no pixel of a cell
    is near white: one that is cut off there makes the mean too dark."""

    mean: npt.NDArray[np.float64]
    is_open: npt.NDArray[np.bool_]

    @classmethod
    def measure(cls, light: Planes) -> Cells:
        """Measure the cells of light (C, H, W)."""
        C, H, W = light.shape
        side = max(1, -(-max(H, W) // CELLS))
        Y, X = max(1, H // side), max(1, W // side)
        h, w = min(side, H), min(side, W)
        cells = light[:, : Y * h, : X * w].reshape(C, Y, h, X, w)
        return cls(cells.mean((2, 4), np.float64), cells.max((2, 4)) < SATURATED)


def brightness_ratio(first: Cells, other: Cells) -> float | None:
    """Compute the gain g for which g x other matches the first: a weighted median over cells without saturated pixels;
    if there is none, over those whose mean is not saturated; None if there is none either."""
    usable = (first.mean < SATURATED) & (other.mean < SATURATED) & (first.mean > 0) & (other.mean > 0)
    if (strictly := usable & first.is_open & other.is_open).any():
        usable = strictly
    if not usable.any():
        return None
    ratios = (first.mean / np.where(usable, other.mean, 1))[usable]
    weights = (first.mean + other.mean)[usable]
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
