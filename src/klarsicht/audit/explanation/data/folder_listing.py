"""Files of a folder of classes, of a disk or a URL, and the reasons why some are no images of the corpus. Paths stay
strings: with a million files, path objects would take minutes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import NoReturn

from klarsicht.audit.explanation.data import locations
from klarsicht.audit.explanation.data.pictures import image_endings
from klarsicht.ground.errors import CorpusError


def list_folder(root: str) -> tuple[list[str], list[str], Iterable[list[str]]]:
    """List loose files, class folders, and the keys of all files below each of these, without hidden ones. root: a
    folder or URL. Raises CorpusError where a folder cannot be read."""
    return _list_url(root) if locations.is_url(root) else _list_tree(Path(root))


def _list_tree(root: Path) -> tuple[list[str], list[str], Iterable[list[str]]]:
    """List a folder of a disk."""
    try:
        entries = sorted((entry.name, entry.is_dir()) for entry in os.scandir(root) if not entry.name.startswith("."))
    except OSError as error:
        _raise_unreadable(error)
    labels = [name for name, is_folder in entries if is_folder]
    return [name for name, is_folder in entries if not is_folder], labels, (_list_keys(root, one) for one in labels)


def _list_url(url: str) -> tuple[list[str], list[str], Iterable[list[str]]]:
    """List a folder at a URL."""
    names = locations.list_files(url)
    inside = {label: list(keys) for label, keys in groupby((name for name in names if "/" in name), key=label_of)}
    return [name for name in names if "/" not in name], sorted(inside), inside.values()


def _list_keys(root: Path, label: str) -> list[str]:
    """List the keys of all files below a class folder, sorted by path components."""
    keys = []
    for here, folders, files in os.walk(root / label, onerror=_raise_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(here).relative_to(root).as_posix()
        keys += [f"{place}/{name}" for name in files if not name.startswith(".")]
    return sorted(keys, key=lambda key: key.split("/"))


def _raise_unreadable(error: OSError) -> NoReturn:
    raise CorpusError("a folder cannot be read", got=f"{error.filename}: {error.strerror}", remedy="Check --data.")


def label_of(key: str) -> str:
    return key.partition("/")[0]


def exclusion_reason(key: str, any_ending: bool = False) -> str:
    """Return the reason why a file is not an image of the corpus; "" where it is one."""
    ending = Path(key).suffix.lower()
    if ending not in image_endings() and not any_ending:
        return f"no image by its ending {ending}".rstrip()
    return "" if key.encode(errors="replace").decode() == key else "its name is not UTF-8"


def count_reasons(counts: dict[str, tuple[int, str]], reasons: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Count the files of each reason, and keep the first; reasons: by file, "" of those that are images."""
    for key, reason in reasons.items():
        if reason:
            count, first = counts.get(reason, (0, key))
            counts[reason] = count + 1, first
    return counts


def describe_reasons(reasons: Mapping[str, tuple[int, str]]) -> list[tuple[str, str]]:
    """Name the files of each reason: the one, or how many and the first of them."""
    lines = []
    for reason, (count, first) in sorted(reasons.items()):
        name = first.encode(errors="replace").decode()
        lines.append((name if count == 1 else f"{count} files, such as {name}", reason))
    return lines
