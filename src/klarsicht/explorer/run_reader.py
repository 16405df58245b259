"""Reader of a run folder for pages: what was read is kept until the file that it came from changes."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from klarsicht.audit.results import ranking
from klarsicht.explorer.run_images import RunImages
from klarsicht.ground.config import require_shape
from klarsicht.ground.errors import StoreError
from klarsicht.ground.run_folder.manifest import Manifest
from klarsicht.ground.run_folder.run_files import MANIFEST
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.step_words import describe_step, is_measured_beside

T = TypeVar("T")


class AuditSettingsShape(BaseModel):
    """Shape of the settings of an audit, as far as pages read them."""

    model: str
    target: str
    metric: list[str]
    method: str
    megapixels: float
    white_level: int | None


@dataclass
class RunReader:
    """Reader of a run, for several threads at once; `data` is where the corpus is now, if it moved."""

    store: RunStore
    data: str | None = None
    _cache: dict[str, tuple[Hashable, Any]] = field(default_factory=dict)
    _locks: defaultdict[str, threading.RLock] = field(default_factory=lambda: defaultdict(threading.RLock))

    def keep(self, name: str, stamp: Hashable, read: Callable[[], T]) -> T:
        """Return what was read under this name and stamp; read it where the stamp changed."""
        with self._locks[name]:  # what takes long is read once, and nothing else waits for it
            if name not in self._cache or self._cache[name][0] != stamp:
                self._cache[name] = (stamp, read())
            value: T = self._cache[name][1]
            return value

    def stamp(self, *names: str) -> tuple[str, ...]:
        """Return a text for each of some files of the run that changes with the file; "0" where there is none."""
        return tuple(map(self._stamp, names))

    def _stamp(self, name: str) -> str:
        try:
            known = (self.store.path / name).stat()
        except OSError:
            return "0"
        return f"{known.st_mtime_ns:x}.{known.st_size}.{known.st_ino:x}"

    @property
    def manifest(self) -> Manifest:
        return self.keep("manifest", self.stamp(MANIFEST), self._read_manifest)

    def _read_manifest(self) -> Manifest:
        manifest = self.store.manifest
        with self.store.translate_parse_errors(MANIFEST):
            require_shape(manifest["settings"], AuditSettingsShape)
        return manifest

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.manifest.get("names", ())]

    @property
    def metrics(self) -> list[str]:
        return [str(metric) for metric in self.manifest["settings"]["metric"]]

    def images(self) -> RunImages:
        """Return the images of the run; raises StoreError where their relevance is not computed yet."""
        return self.keep("images", (), lambda: RunImages.of(self.store, self.data))

    def list_steps(self) -> list[dict[str, Any]]:
        """List the steps of the run with their done and total units, and the ranking."""
        finished = self.manifest["finished"]
        steps = [
            {"name": name, "done": units if name in finished else self.store.count_units(name), "units": units}
            for name, units in self.manifest["steps"].items()
        ]
        steps.append({"name": "ranking", "done": int(self.store.has_file(ranking.FILE)), "units": 1})
        return [one | {"words": describe_step(one["name"]), "beside": is_measured_beside(one["name"])} for one in steps]

    def require_ready(self) -> None:
        """Read the images of the run, where they can be read already; called early, so that no page waits for it."""
        with suppress(StoreError):
            self.images()
