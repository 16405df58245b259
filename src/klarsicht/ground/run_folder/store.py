"""The run folder: arrays, tables and pictures, written so that they survive an interruption at any moment.

    RUN/manifest.json                   provenance of the run: settings, identity, versions
    RUN/lock                            held by the one process that writes; names its pid
    RUN/arrays.zarr/<name>              zarr v3; one shard per work unit
    RUN/tables/<name>.parquet           a whole table, or its parts: RUN/tables/<name>/<unit>.parquet
    RUN/done/<step>/<unit>.json         the markers, with size and checksum of each file that the unit wrote
    RUN/checksums/<file>.json           size and checksum of each other file
    RUN/pictures/
    RUN/turn                            held by the one shard that does what is no unit
    RUN/embedding/                      states of the training of the learned embedding
    RUN/decisions.jsonl                 decisions of a person, see `decisions`

Missing zarr data reads as 0, so **the marker decides** whether a unit is complete: it is written last. A unit without a
marker is computed again. Whatever is read is compared with its checksum first."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from markupsafe import Markup

from klarsicht.ground.errors import InputError, StoreError, UsageError
from klarsicht.ground.machine.disk import hold_lock, remove_leftovers, share_lock, translate_write_errors
from klarsicht.ground.run_folder.manifest import Manifest, new_manifest, require_agreement, to_json
from klarsicht.ground.run_folder.run_arrays import RunArrays
from klarsicht.ground.run_folder.run_files import MANIFEST, WRITE_LOCK, record_path
from klarsicht.ground.run_folder.run_tables import RunTables
from klarsicht.ground.run_folder.shards import Shard, Shares, Sharing

TURN = "turn"
SHARES_FILE = "shares.json"


@dataclass(frozen=True)
class RunStore(RunArrays, RunTables):
    """One run folder. It holds only its path, so it can be sent to worker processes. Names of arrays, tables and steps
    are plain words; names of other files are paths inside the run. Writing methods raise DiskFull or StoreError;
    reading methods StoreError for what does not exist, and RunDamaged for what is missing or altered."""

    MADE_BY: ClassVar = "Give the folder of a run, or what audit.run returned."

    def __repr__(self) -> str:
        return f"RunStore({str(self.path)!r})"

    def __dir__(self) -> list[str]:
        """List what a person reads; the names that write are for the commands."""
        return ["array", "has_array", "has_table", "manifest", "path", "read_json", "report", "table", "texts"]

    def _repr_html_(self) -> str:
        link = Markup(', <a href="{}">report</a>').format(self.report) if self.report.is_file() else ""
        return Markup("<p>run {}{}</p>").format(self.path, link)

    @property
    def report(self) -> Path:
        """File of the report, once `audit.run` wrote it."""
        return self.path / "report.html"

    @classmethod
    def create(
        cls, path: str | Path, *, settings: Mapping[str, Any], identity: Mapping[str, str], **facts: Any
    ) -> RunStore:
        """Create a run folder, or open the existing one where its settings, identity (hashes of corpus and model) and
        other facts that decide its content agree. Raises RunMismatch: they do not, and the first is named; StoreError:
        the folder holds other files, or cannot be written; RunLocked: another process is creating this run."""
        store = cls(Path(path))
        wanted = json.loads(to_json({"settings": settings, "identity": identity, **facts}))
        if not store.exists:
            store._create_folder(wanted)
        require_agreement(wanted, store.manifest)
        return store

    @classmethod
    def open(cls, path: str | Path | RunStore) -> RunStore:
        """Open the run in a folder for reading. Raises UsageError: what is given is no path; InputError: no run in the
        folder, or one of another format; RunDamaged: its manifest is not as it was written."""
        if isinstance(path, RunStore):
            return path
        if not isinstance(path, str | os.PathLike):
            rule = "the folder of a run, or what audit.run returned"
            raise UsageError("this is not a run", got=type(path).__name__, rule=rule)
        store = cls(Path(path))
        if not store.exists:
            rule = "a run folder holds manifest.json"
            raise InputError("there is no run in this folder", got=path, rule=rule, remedy="Check the path.")
        _ = store.manifest
        return store

    def _create_folder(self, manifest: Manifest) -> None:
        """Create the folder and its manifest; raises StoreError where it holds other files."""
        with translate_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.require_own()
        with self.lock():
            if not self.exists:  # another process may have created it meanwhile
                self.write_json(MANIFEST, new_manifest(manifest))

    def require_own(self) -> None:
        """Check that the folder is new, empty or a run, as far as can be seen without writing. Raises StoreError: it
        holds other files, or is one, or cannot be written."""
        place = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        with translate_write_errors(self.path):
            if not place.is_dir():
                raise OSError(errno.ENOTDIR, f"{place} is a file")
            if not os.access(place, os.W_OK):
                raise OSError(errno.EACCES, f"{place} cannot be written")
            foreign = self._foreign_files()
        if foreign and not self.exists:
            got, remedy = f"{foreign[0]} in {self.path}", "Choose another --out, or empty the folder."
            raise StoreError("the output folder is not empty and holds no run", got=got, remedy=remedy)

    def _foreign_files(self) -> list[str]:
        """List what no creation of a run puts into its folder; one that was killed may leave a checksum and no run."""
        record = Path(record_path(MANIFEST))
        ours = {Path("lock"), Path(WRITE_LOCK), record.parent, record}
        found = (p.relative_to(self.path) for folder in ("*", f"{record.parent}/*") for p in self.path.glob(folder))
        return sorted(str(p) for p in found if p not in ours and not p.match(".*.tmp"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's write lock, after partial files of killed processes are removed. Raises RunLocked."""
        with hold_lock(self.path / "lock"):
            self._tidy()
            yield

    @contextmanager
    def share(self, shard: Shard | None) -> Iterator[Sharing]:
        """Work on the run with other processes that share it, or alone where there is no shard, as `lock`. Raises
        RunLocked: another process works on it alone; StoreError: the file system has no locks."""
        if shard is None:
            with self.lock():
                yield Sharing()
            return
        with share_lock(self.path / "lock", self._tidy):
            yield Sharing(shard, self.path / TURN)

    def _tidy(self) -> None:
        """Remove what killed processes left: partial files. Only a process alone may call it."""
        remove_leftovers(self.path)
        (self.path / TURN).unlink(missing_ok=True)

    def shares(self) -> dict[str, Shares]:
        """Read the shares of the steps that shards work on."""
        if not self.has_file(SHARES_FILE):
            return {}
        with self.translate_parse_errors(SHARES_FILE):
            return {str(step): Shares(int(one[0]), str(one[1])) for step, one in self.read_json(SHARES_FILE).items()}

    def write_shares(self, shares: Mapping[str, Shares]) -> None:
        """Write the shares of the steps that shards work on; no file where there are none."""
        if shares:
            self.write_json(SHARES_FILE, {step: [one.count, one.command] for step, one in shares.items()})
        elif self.has_file(SHARES_FILE):
            self.remove_file(SHARES_FILE)
