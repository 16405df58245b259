"""Manifest of a run: its settings, the identity of its inputs, and the library versions it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, Field

from klarsicht import __version__
from klarsicht.ground.errors import InputError, RunMismatch

Manifest = dict[str, Any]

FORMAT: Final = 1
"""Number of the form of run folders and of corrections. A change after which one of before would be misread raises it;
there is one form, and no reader of another."""
SHOWN_OF_HASH: Final = 12  # first digits of a hash that a message shows
LIBRARIES = ("numpy", "scipy", "scikit-learn", "numba", "torch", "torchvision", "zarr", "pyarrow", "pillow")


class ManifestShape(BaseModel):
    """Shape of a manifest, as far as it is read by its names; other facts are free."""

    klarsicht: str
    settings: dict[str, Any]
    identity: dict[str, str]
    libraries: dict[str, str]
    creation_time: str = Field(alias="created")
    steps: dict[str, Annotated[int, Field(ge=0)]]
    finished_steps: list[str] = Field(alias="finished")
    data: str | None = None
    code: dict[str, str] = {}
    names: list[str] = []
    model_notes: list[str] = []
    arrays: list[str] = []
    index: dict[str, int] | None = None
    absorbed_share: float | None = Field(None, alias="absorbed")


def new_manifest(facts: Mapping[str, Any]) -> Manifest:
    """Make a manifest with today's date and the versions of the installed libraries, of no step yet."""
    header = {"format": FORMAT, "klarsicht": __version__, "libraries": library_versions()}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return header | {"created": now, "steps": {}, "finished": [], **facts}


def library_versions() -> dict[str, str]:
    """Read the versions of installed libraries without importing them."""
    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def require_format(record: Any, file: str, remedy: str) -> None:
    """Check that a folder has the form that is read here, by the number in the record in its JSON file. Raises
    InputError: another number, or none; the remedy says how the folder is made again."""
    number = record.get("format", "none") if isinstance(record, dict) else "none"
    if type(number) is not int or number != FORMAT:
        rule = f"klarsicht {__version__} reads format {FORMAT}"
        raise InputError(f"{file} has another format", got=f"format {number}", rule=rule, remedy=remedy)


def require_agreement(facts: Mapping[str, Any], manifest: Manifest) -> None:
    """Check that every wanted fact stands in the manifest. Raises RunMismatch: names the first that differs, a setting
    by its option, and hashes by their beginning."""
    here, there = flatten(facts), flatten({key: manifest.get(key) for key in facts})
    for key in here | there:
        if here.get(key) != there.get(key):
            kind, _, name = key.partition(".")
            got, had = (
                str(facts.get(key))[:SHOWN_OF_HASH] if kind == "identity" else repr(facts.get(key))
                for facts in (here, there)
            )
            what = {"settings": f"--{name.replace('_', '-')}", "identity": name}.get(kind, key)
            raise RunMismatch(
                f"the run was made with another {what}", got=got, rule=f"the run has {had}",
                remedy="Choose another --out, or repeat the run's own settings, data and model.",
            )  # fmt: skip


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping: {"a": {"b": 1}} becomes {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def to_json(content: Any) -> bytes:
    """Encode plain values, paths, mappings and numpy numbers and arrays as JSON."""
    return json.dumps(content, indent=1, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Convert a value that the json module cannot encode."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
