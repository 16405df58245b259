"""Callables of a user, given as `package.module:callable` or `file.py:callable`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.foreign import foreign_errors

WHERE_FROM = "Check the path: it counts from the present folder, and that of a run from the folder where it was made."


@contextmanager
def import_callable(spec: str, kind: type[KlarsichtError], what: str, remedy: str) -> Iterator[Any]:
    """Import what `package.module:callable` or `file.py:callable` names. The current folder, or that of the file, is
    importable while the context is open; exceptions in it are converted by `foreign.foreign_errors`, as those of the
    import."""
    path, _, attribute = spec.rpartition(":")
    folder = Path(path).resolve().parent if path.endswith(".py") else Path.cwd()
    with _importable(folder), foreign_errors(kind, what, of=spec, remedy=remedy):
        package = _import_file(Path(path), kind) if path.endswith(".py") else importlib.import_module(path)
        if not hasattr(package, attribute):
            near = difflib.get_close_matches(attribute, dir(package), n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else ""
            raise kind(f"{path} has no {attribute!r}", got=repr(spec), remedy=hint)
        yield getattr(package, attribute)


def find_files(spec: str) -> tuple[Path, ...] | None:
    """Find the files that an import of a specification runs, the module's own last, without importing any: that alone
    where it is imported already, none of Python's own library, None where nothing is there."""
    path = spec.rpartition(":")[0]
    if path.endswith(".py"):
        return (Path(path),) if Path(path).is_file() else None
    if path in sys.modules:
        own = getattr(sys.modules[path], "__file__", None)
        return (Path(own),) if own and not _is_of_python(Path(own)) else ()
    parts, files = path.split("."), list[Path]()
    places: list[str] | None = None
    with _importable(Path.cwd()):
        for depth in range(len(parts)):
            module_spec = _find_module(".".join(parts[: depth + 1]), places)
            if module_spec is None:
                return None
            files += [Path(module_spec.origin)] if module_spec.has_location and module_spec.origin is not None else []
            places = list(module_spec.submodule_search_locations or ())
    return () if any(map(_is_of_python, files)) else tuple(files)


def _find_module(name: str, places: list[str] | None) -> ModuleSpec | None:
    """Find a module as an import does, in the places of its package; None: at the top."""
    found = (finder.find_spec(name, places) for finder in sys.meta_path)
    return next((one for one in found if one is not None), None)


def _is_of_python(file: Path) -> bool:
    """Test for a file of the standard library, in whose folder installed packages lie as well."""
    folders = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    inside = any(file.is_relative_to(folder) for folder in folders)
    return inside and not {"site-packages", "dist-packages"} & {*file.parts}


def _import_file(path: Path, kind: type[KlarsichtError]) -> ModuleType:
    """Import a file under a name of its own, so that it hides no installed package."""
    if not path.is_file():
        raise kind("no such file", got=str(path), rule="file.py:callable", remedy=WHERE_FROM)
    name = f"klarsicht_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise kind("the file cannot be imported", got=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
