"""Files of a corpus on local disks and, by fsspec, at URLs: s3://, gs://, hf://, https:// and others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from klarsicht.ground.errors import CorpusError, KlarsichtError, MissingExtra
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.optional import install_command, load
from klarsicht.ground.user_paths import as_path

CLOUD_EXTRA = "cloud"


def is_url(path: str | Path) -> bool:
    """Test whether a path is a URL."""
    return "://" in str(path)


def require_place(data: str | Path, option: str = "--data") -> None:
    """Check that a local corpus, named by an option, exists, else raise CorpusError; a URL is not opened. Raises
    UsageError for an impossible path."""
    if not is_url(data) and not ((place := as_path(option, data)).is_dir() or place.is_file()):
        raise CorpusError("no such folder or manifest", got=data, remedy=f"Check the path of {option}.")


@contextmanager
def _translate_errors(path: str) -> Iterator[None]:
    """Convert whatever a file system raises to a CorpusError, but not a lack of memory."""
    try:
        yield
    except Exception as error:
        if isinstance(error, KlarsichtError) or is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        remedy = "Check --data, and whether it may be read."
        raise CorpusError("cannot be read", got=f"{path}: {reason}", remedy=remedy) from error


def open_binary(path: str) -> IO[bytes]:
    """Open a local file or a URL for reading; raises CorpusError where that fails, and MissingExtra for a URL where
    fsspec or the package for its scheme is not installed."""
    with _translate_errors(path):
        if is_url(path):
            system, inside = _file_system(path)
            opened: IO[bytes] = system.open(inside, "rb")
            return opened
        if not Path(path).is_file():
            raise CorpusError("no such file", got=path, remedy="Check the path of --data.")
        return Path(path).open("rb")


def read_all(path: str) -> bytes:
    """Read a whole file or URL; raises as `open_binary`."""
    with _translate_errors(path), open_binary(path) as file:
        return file.read()


def read_range(path: str, start: int, length: int) -> bytes:
    """Read `length` bytes of a file or URL; raises as `open_binary`."""
    with _translate_errors(path):
        if is_url(path):
            system, inside = _file_system(path)
            return bytes(system.cat_file(inside, start=start, end=start + length))
        with open_binary(path) as file:
            file.seek(start)
            return file.read(length)


def read_ends(url: str, ends: int) -> tuple[int, bytes]:
    """Read the size of a URL and its first and last `ends` bytes, no byte twice; raises as `open_binary`."""
    system, inside = _file_system(url)
    with _translate_errors(url):
        size = int(system.size(inside))
        head = bytes(system.cat_file(inside, start=0, end=min(ends, size))) if size else b""
        rest = max(size - ends, len(head))
        return size, head + (bytes(system.cat_file(inside, start=rest, end=size)) if rest < size else b"")


def list_files(folder: str) -> list[str]:
    """List the files below a folder or URL by their paths inside it, sorted by components, without hidden ones; raises
    as `open_binary`."""
    if is_url(folder):
        system, inside = _file_system(folder)
        with _translate_errors(folder):
            paths = system.find(inside)
        prefix = inside.rstrip("/") + "/"
        names = [name.removeprefix(prefix) for name in paths if name.startswith(prefix)]
    else:
        names = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
    shown = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    return sorted(shown, key=lambda name: name.split("/"))


def is_folder(place: str) -> bool:
    """Test whether a path or URL is a folder; raises CorpusError where a URL does not exist or does not answer."""
    if not is_url(place):
        return Path(place).is_dir()
    system, inside = _file_system(place)
    with _translate_errors(place):
        return bool(system.info(inside)["type"] == "directory")


def join(folder: str, name: str) -> str:
    """Join a folder or URL and a path inside it; an absolute path or a URL stays as it is."""
    if is_url(name):
        return name
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)


def parent(path: str) -> str:
    """Return the folder of a file or URL."""
    return path.rpartition("/")[0] if is_url(path) else str(Path(path).parent)


@lru_cache(maxsize=64)
def _file_system(url: str) -> tuple[Any, str]:
    """Open the file system of a URL; return it and the path inside it. Raises as `open_binary`."""
    core = load("fsspec.core", CLOUD_EXTRA)
    with _translate_errors(url):
        try:
            system, inside = core.url_to_fs(url)
        except ImportError as error:
            remedy = f"{install_command(CLOUD_EXTRA)}, or the package that it names."
            raise MissingExtra(f"no package for {url.partition('://')[0]}://", got=error, remedy=remedy) from error
    return system, str(inside)
