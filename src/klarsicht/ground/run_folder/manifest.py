"""Manifest of a run: its settings, the identity of its inputs, and the library versions it was made with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from klarsicht import __version__
from klarsicht.ground.errors import RunMismatch, StoreError

Manifest = dict[str, Any]

STORE_VERSION = 2
# MIGRATIONS[v] turns a manifest of version v into one of version v + 1. Readers apply it in memory only.
MIGRATIONS: dict[int, Callable[[Manifest], Manifest]] = {
    1: lambda old: old | {"checksums": False},  # whether every file of the run was written with a checksum
}
LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "numba",
    "torch",
    "torchvision",
    "zarr",
    "pyarrow",
    "pillow",
)


class ManifestShape(BaseModel):
    """Shape of a manifest, as far as it is read by its names; other facts are free."""

    klarsicht: str = ""
    settings: dict[str, Any]
    identity: dict[str, str]
    libraries: dict[str, str]
    creation_time: str = Field(alias="created")
    checksums: bool
    steps: dict[str, Annotated[int, Field(ge=0)]] = {}
    finished_steps: list[str] = Field([], alias="finished")
    data: str | None = None
    names: list[str] = []
    model_notes: list[str] = []
    arrays: list[str] = []
    index: dict[str, int] | None = None
    absorbed_share: float | None = Field(None, alias="absorbed")


def new_manifest(facts: Mapping[str, Any]) -> Manifest:
    """Make a manifest of this store version with today's date and the versions of the installed libraries."""
    header = {"store": STORE_VERSION, "klarsicht": __version__, "libraries": library_versions(), "checksums": True}
    return header | {"created": datetime.now(UTC).isoformat(timespec="seconds"), **facts}


def library_versions() -> dict[str, str]:
    """Read the versions of installed libraries without importing them."""
    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def migrate(manifest: Manifest) -> Manifest:
    """Convert a manifest to this version's format.

    Raises:
        StoreError: it was written by a newer klarsicht, or by another program.
    """
    if not isinstance(manifest, dict) or type(manifest.get("store")) is not int or manifest["store"] < 1:
        raise StoreError("manifest.json is not a run's", remedy="Choose another folder.")
    if manifest["store"] > STORE_VERSION:
        raise StoreError(
            "the run was written by a newer klarsicht",
            got=f"store version {manifest['store']}",
            rule=f"this one reads up to {STORE_VERSION}",
            remedy="Upgrade: pip install -U klarsicht.",
        )
    while (version := manifest["store"]) < STORE_VERSION:
        manifest = MIGRATIONS[version](manifest) | {"store": version + 1}
    return manifest


def require_agreement(facts: Mapping[str, Any], manifest: Manifest) -> None:
    """Check that every wanted fact stands in the manifest.

    Raises:
        RunMismatch: names the first fact that differs, and both values.
    """
    here, there = flatten(facts), flatten({key: manifest.get(key) for key in facts})
    for key in here | there:
        if here.get(key) != there.get(key):
            raise RunMismatch(
                f"the run was made with another {key}",
                got=repr(here.get(key)),
                rule=f"the run has {there.get(key)!r}",
                remedy="Choose another --out, or repeat the run's own settings, data and model.",
            )


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
