"""Selection and reading of a burst's files: their order, and checks that they belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from klarsicht.burst.data.photograph import AS_WRITTEN, Header, Photograph, ReadSettings
from klarsicht.burst.files import developed, raw
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import read_to_end, require_regular_file, translate_faults

FRAME_ENDINGS = (*raw.RAW_ENDINGS, *developed.PICTURE_ENDINGS)
NAMES_SHOWN = 3  # file names in a message


def list_frames(paths: Sequence[Path]) -> tuple[Path, ...]:
    """List the frame files: files as given, and folders as the photographs in them, by name. Raises InputError where
    there are none, one is given twice, or one is no regular file."""
    files = []
    for path in paths:
        with translate_faults(path):
            files += _files(path)
    for file in files:
        with translate_faults(file):
            require_regular_file(file)
    if not files:
        remedy = "Give files, or a folder that holds DNG, camera raw, TIFF, PNG, JPEG or HEIC files."
        others = sum(not path.is_dir() for folder in paths for path in folder.iterdir())
        got = f"{others} files of other kinds" if others else "empty folders"
        raise InputError("no frames", got=got, rule="a burst has at least one", remedy=remedy)
    if twice := sorted({file.name for file in files if files.count(file) > 1}):
        raise InputError("a frame is given twice", got=", ".join(twice[:NAMES_SHOWN]), remedy="Give each once.")
    return tuple(files)


def name_frames(paths: Sequence[Path]) -> list[str]:
    """Name each file by as few folders and its name as tell it from the others, whatever the case of letters."""
    parts = [path.absolute().parts for path in paths]
    names: list[str] = []
    for own in parts:
        length = 1
        while length < len(own) and sum(_last_parts(other, length) == _last_parts(own, length) for other in parts) > 1:
            length += 1
        names.append("/".join(own[-length:]))
    return names


def _last_parts(parts: tuple[str, ...], length: int) -> tuple[str, ...]:
    return tuple(part.casefold() for part in parts[-length:])


def select_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that are folders. Raises Unreachable for one that is out of reach."""
    folders = []
    for path in paths:
        with translate_faults(path):
            folders += [path] if path.is_dir() else []
    return folders


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in FRAME_ENDINGS and file.name[0] != ".")
    require_regular_file(path)
    if not path.exists():
        raise InputError("no such file", got=path, remedy="Check the path.")
    if path.suffix.lower() not in FRAME_ENDINGS:
        rule = f"frames are photographs ({', '.join(FRAME_ENDINGS)})"
        remedy = "Write the frames of a video to PNG or TIFF files first."
        raise InputError(f"{path.name} is no photograph", got=path.suffix or "no ending", rule=rule, remedy=remedy)
    return [path]


def read(path: Path, settings: ReadSettings = AS_WRITTEN) -> Photograph:
    """Read one photograph. Raises InputError for a file that is damaged or no photograph, Unreachable, MissingExtra."""
    with translate_faults(path):
        require_regular_file(path)
        if not path.stat().st_size:
            raise InputError(f"{path.name} is empty", remedy="Copy it again, or leave it out.")
        reader = raw.read if path.suffix.lower() in raw.RAW_ENDINGS else developed.read
        try:
            return reader(path, settings)
        except InputError:
            read_to_end(path)
            raise


def check_alike(first: Header, other: Header) -> None:
    """Raise InputError unless both are alike in colour, size, levels, camera (if both name it) and mosaic pattern."""
    if first.size != other.size:
        (h, w), (height, width) = first.size, other.size
        raise _differs("size", first, other, f"{w} x {h} pixels", f"{width} x {height} pixels")
    for what in ("colour", "levels", "camera"):
        here, there = getattr(first, what), getattr(other, what)
        unnamed = what == "camera" and not (here and there)
        if here != there and not unnamed:
            raise _differs(what, first, other, here, there)
    if first.sensor and other.sensor and first.sensor.pattern != other.sensor.pattern:
        raise _differs("its mosaic", first, other, first.sensor.pattern, other.sensor.pattern)


def _differs(what: str, first: Header, other: Header, here: object, there: object) -> InputError:
    known, odd = name_frames([first.path, other.path])
    rule = f"frames of a burst are alike, and {known} has {here}"
    remedy = "Leave out the one that is not of this burst."
    return InputError(f"{odd} differs from the other frames in {what}", got=there, rule=rule, remedy=remedy)
