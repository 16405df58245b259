"""Files of a corpus on local disks and, by fsspec, at URLs: s3://, gs://, hf://, https:// and others."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from klarsicht.ground.errors import CorpusError, InputError, KlarsichtError, MissingExtra
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.optional import load
from klarsicht.ground.user_paths import as_path

CLOUD_EXTRA = "cloud"


def is_url(path: str | Path) -> bool:
    """Tell whether a path is a URL."""
    return "://" in str(path)


def require_place(data: str | Path) -> None:
    """Check that a local corpus is there; a URL is not looked at.

    Raises:
        CorpusError: neither a file nor a folder is at this path.
        UsageError: no file can have this path.
    """
    if not is_url(data) and not ((place := as_path("--data", data)).is_dir() or place.is_file()):
        raise CorpusError("no such folder or manifest", got=data, remedy="Check the path of --data.")


def open_binary(path: str) -> IO[bytes]:
    """Open a local file or a URL for reading.

    Raises:
        CorpusError: it cannot be opened.
        MissingExtra: a URL, and fsspec or the package for its scheme is not installed.
    """
    try:
        if not is_url(path):
            if not Path(path).is_file():
                raise CorpusError("no such file", got=path, remedy="Check the path of --data.")
            return Path(path).open("rb")
        system, inside = _file_system(path)
        opened: IO[bytes] = system.open(inside, "rb")
        return opened
    except Exception as error:
        raise _unreadable(path, error, CorpusError) from error


def read_range(path: str, start: int, length: int) -> bytes:
    """Read some bytes of a file or URL.

    Raises:
        CorpusError: it cannot be read.
        MissingExtra: see `open_binary`.
    """
    if is_url(path):
        system, inside = _file_system(path)
        try:
            return bytes(system.cat_file(inside, start=start, end=start + length))
        except Exception as error:
            raise _unreadable(path, error, CorpusError) from error
    try:
        with open_binary(path) as file:
            file.seek(start)
            return file.read(length)
    except OSError as error:
        raise _unreadable(path, error, CorpusError) from error


def read_ends(path: str, ends: int) -> tuple[int, bytes]:
    """Read the size and the first and last `ends` bytes of a URL, which may overlap in none of them.

    Raises:
        CorpusError: it cannot be read.
    """
    system, inside = _file_system(path)
    try:
        size = int(system.size(inside))
        head = bytes(system.cat_file(inside, start=0, end=min(ends, size))) if size else b""
        rest = max(size - ends, len(head))
        return size, head + (bytes(system.cat_file(inside, start=rest, end=size)) if rest < size else b"")
    except Exception as error:
        raise _unreadable(path, error, CorpusError) from error


def list_files(folder: str) -> list[str]:
    """List the files below a folder or URL by their paths inside it, sorted by components; hidden ones are left out.

    Raises:
        CorpusError: it cannot be listed.
    """
    if is_url(folder):
        system, inside = _file_system(folder)
        try:
            paths = system.find(inside)
        except Exception as error:
            raise _unreadable(folder, error, CorpusError) from error
        prefix = inside.rstrip("/") + "/"
        names = [name.removeprefix(prefix) for name in paths if name.startswith(prefix)]
    else:
        names = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
    shown = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    return sorted(shown, key=lambda name: name.split("/"))


def is_folder(url: str) -> bool:
    """Tell whether a URL is a folder.

    Raises:
        CorpusError: there is nothing, or it cannot be asked.
    """
    system, inside = _file_system(url)
    try:
        return bool(system.info(inside)["type"] == "directory")
    except Exception as error:
        raise _unreadable(url, error, CorpusError) from error


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
    """Open the file system of a URL; return it and the path inside it.

    Raises:
        MissingExtra: fsspec, or the package for this scheme, is not installed.
        CorpusError: an unknown scheme, or no access.
    """
    core = load("fsspec.core", CLOUD_EXTRA)
    try:
        system, inside = core.url_to_fs(url)
    except ImportError as error:
        remedy = f"pip install 'klarsicht[{CLOUD_EXTRA}]', or the package that it names."
        raise MissingExtra(f"no package for {url.partition('://')[0]}://", got=error, remedy=remedy) from error
    except Exception as error:
        raise _unreadable(url, error, CorpusError) from error
    return system, str(inside)


def _unreadable(path: str, error: Exception, kind: type[InputError]) -> Exception:
    """Convert whatever a file system raises to an error of ours."""
    if isinstance(error, KlarsichtError) or is_out_of_memory(error):
        return error
    reason = f"{type(error).__name__}: {error}".split("\n")[0]
    return kind("cannot be read", got=f"{path}: {reason}", remedy="Check --data, and whether it may be read.")


def read_into_memory(path: str) -> IO[bytes]:
    """Read a whole file or URL into memory; raises as `open_binary`."""
    return io.BytesIO(read_all(path))


def read_all(path: str) -> bytes:
    """Read the bytes of a whole file or URL; raises as `open_binary`."""
    try:
        with open_binary(path) as file:
            return file.read()
    except KlarsichtError:
        raise
    except Exception as error:
        raise _unreadable(path, error, CorpusError) from error
