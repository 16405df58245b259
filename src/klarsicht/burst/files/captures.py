"""Captures by the tags of their files, and the bursts that they make: frames of one camera and one setting in quick
succession."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, takewhile
from pathlib import Path

from klarsicht.burst.data.photograph import (
    EXPOSURE_TIME,
    F_NUMBER,
    FOCAL_LENGTH,
    ISO,
    MAKE,
    MODEL,
    TIME_FORM,
    TIME_OF_CAPTURE,
    ReadSettings,
)
from klarsicht.burst.files import developed, raw
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import require_regular_file, translate_faults
from klarsicht.ground.pictures.tiff_tags import LENGTH, WIDTH, Tags

FRACTION_OF_SECOND = 37521
SAME_EXPOSURE = 2 ** (1 / 3)  # a third of a stop, as much as is evened out in a burst
PAUSE = 2.0  # seconds between two frames of a burst at most, by default


@dataclass(frozen=True)
class Capture:
    """One frame by its tags. time: when its exposure began. seconds: of exposure, 0 if unknown. iso: 0 if unknown.
    setting: what frames of a burst have in common: kind of file, size, camera, f-number and focal length."""

    path: Path
    time: datetime
    seconds: float
    iso: float
    setting: tuple[object, ...]

    @property
    def exposure(self) -> float:
        return self.seconds * (self.iso or 1)

    def is_exposed_like(self, other: Capture) -> bool:
        """Whether exposure and ISO are the same, up to a third of a stop; what is unknown agrees."""
        pairs = ((self.exposure, other.exposure), (self.iso, other.iso))
        return all(not (a and b) or 1 / SAME_EXPOSURE <= a / b <= SAME_EXPOSURE for a, b in pairs)

    def pause_until(self, other: Capture) -> float:
        """Return the seconds from the end of this exposure to the begin of another; a camera that takes a dark frame
        after each one takes as long as the exposure, which does not count."""
        return (other.time - self.time).total_seconds() - 2 * self.seconds


def read_capture(path: Path, settings: ReadSettings) -> Capture:
    """Read the tags of a photograph; its pixels are not decoded. Raises InputError: the file is damaged, or does not
    say when it was captured; MissingExtra, Unreachable."""
    with translate_faults(path):
        require_regular_file(path)
        is_raw = path.suffix.lower() in raw.RAW_ENDINGS
        tags = raw.read_tags(path) if is_raw else developed.read_tags(path, settings)
    start = _time_of_capture(tags)
    if start is None:
        remedy = "Denoise its burst alone: give its frames, and -o without {}."
        raise InputError(f"{path.name} does not say when it was captured", rule="bursts differ in time", remedy=remedy)
    numbers = (tags.number(tag) for tag in (WIDTH, LENGTH, F_NUMBER, FOCAL_LENGTH))
    setting = (path.suffix.lower(), tags.words(MAKE), tags.words(MODEL), *numbers)
    return Capture(path, start, tags.number(EXPOSURE_TIME) or 0.0, tags.number(ISO) or 0.0, setting)


def _time_of_capture(tags: Tags) -> datetime | None:
    try:
        second = datetime.strptime(tags.words(TIME_OF_CAPTURE), TIME_FORM)
    except ValueError:
        return None
    digits = re.match("[0-9]{1,6}", tags.words(FRACTION_OF_SECOND))
    return second.replace(microsecond=int(digits[0].ljust(6, "0")) if digits else 0)


def select_raw_files(files: Sequence[Path]) -> list[Path]:
    """Leave out the developed pictures that a camera wrote beside a raw file of the same name."""
    raw_names = {_name_in_folder(path) for path in files if path.suffix.lower() in raw.RAW_ENDINGS}
    return [p for p in files if p.suffix.lower() in raw.RAW_ENDINGS or _name_in_folder(p) not in raw_names]


def _name_in_folder(path: Path) -> tuple[Path, str]:
    return path.parent, path.stem.casefold()


def group_captures(captures: Iterable[Capture], pause: float) -> list[list[Capture]]:
    """Group captures into bursts and single frames, by time: frames of one setting and exposure, with pauses of at most
    so many seconds; or brackets, whose exposures change from each frame to the next at one ISO."""

    def in_order(one: Capture) -> tuple[object, ...]:
        return str(one.setting), one.time, one.path.name

    groups: list[list[Capture]] = []
    for _, alike in groupby(sorted(captures, key=in_order), key=lambda one: one.setting):
        successions: list[list[Capture]] = []
        for one in alike:
            if successions and successions[-1][-1].pause_until(one) <= pause:
                successions[-1].append(one)
            else:
                successions.append([one])
        groups += [group for succession in successions for group in _split_by_exposure(succession)]
    return sorted(groups, key=lambda group: (group[0].time, group[0].path.name))


def _split_by_exposure(succession: Sequence[Capture]) -> list[list[Capture]]:
    """Split frames in quick succession where their exposure changes; if it changes at each frame, at one ISO, where the
    first exposure of a bracket comes again."""
    runs: list[list[Capture]] = []
    for one in succession:
        if runs and runs[-1][0].is_exposed_like(one):
            runs[-1].append(one)
        else:
            runs.append([one])
    if len(runs) < len(succession) or len({one.iso for one in succession}) > 1:
        return runs
    brackets = [[succession[0]]]
    for one in succession[1:]:
        if brackets[-1][0].is_exposed_like(one):
            brackets.append([one])
        else:
            brackets[-1].append(one)
    return brackets


def name_bursts(bursts: Sequence[Sequence[Capture]]) -> list[str]:
    """Name each burst by its first and its last file, as IMG_0001-0008; a name that was given before gets a number."""
    counts: Counter[str] = Counter()
    names: list[str] = []
    for burst in bursts:
        first, last = burst[0].path.stem, burst[-1].path.stem
        shared = "".join(a for a, _ in takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False)))
        rest = last[len(shared.rstrip("0123456789")) :]
        name = f"{first}-{rest}" if rest else first
        counts[name.casefold()] += 1
        count = counts[name.casefold()]
        names.append(name if count == 1 else f"{name} ({count})")
    return names
