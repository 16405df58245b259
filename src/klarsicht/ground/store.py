"""The run folder: arrays, tables and pictures, written so that they survive an interruption at any moment.

    RUN/manifest.json                   provenance of the run: settings, identity, versions
    RUN/lock                            held by the one process that writes; names its pid
    RUN/arrays.zarr/<name>              zarr v3; one shard per work unit
    RUN/tables/<name>.parquet           a whole table, or
    RUN/tables/<name>/<unit>.parquet    its parts, one per work unit
    RUN/done/<step>/<unit>.json         the markers
    RUN/pictures/

Missing zarr data reads as 0, so **the marker decides** whether a unit is complete: it is written last, after the unit's
shards and parts have reached the disk. A unit without a marker is computed again, over whatever an interrupted process
left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from klarsicht.ground.disk import hold_lock, remove_leftovers, sync, translate_write_errors, write_atomically
from klarsicht.ground.errors import InputError, RunMismatch, StoreError
from klarsicht.ground.manifest import Manifest, library_versions, migrate, new_manifest, require_agreement, to_json

if TYPE_CHECKING:
    import pyarrow as pa
    import zarr

Columns = Mapping[str, Any]
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class RunStore:
    """One run folder. It holds only its path, so it is cheap to make and can be sent to worker processes.

    Names of arrays, tables and steps are plain words; names of other files are paths inside the run. Every writing
    method raises DiskFull or StoreError as `disk.translate_write_errors` does; every reading method raises StoreError
    for what does not exist.
    """

    path: Path

    @classmethod
    def create(
        cls, path: str | Path, *, settings: Mapping[str, Any], identity: Mapping[str, str], **fixed: Any
    ) -> RunStore:
        """Create a run folder, or open the existing one where everything that decides its content agrees.

        Args:
            settings: the run's settings, nested mappings of plain values.
            identity: content hashes, for instance of the corpus and the model.
            fixed: other facts that decide the content: partition, dtype, threads.

        Raises:
            RunMismatch: the folder holds a run with other settings, identity or fixed facts; names the first.
            StoreError: the folder is not empty and holds no run, or cannot be written.
            RunLocked: another process is creating this run just now.
        """
        store = cls(Path(path))
        wanted = json.loads(to_json({"settings": settings, "identity": identity, **fixed}))
        if not store.exists:
            store._found(wanted)
        require_agreement(wanted, store.manifest)
        return store

    @classmethod
    def open(cls, path: str | Path | RunStore) -> RunStore:
        """Open the run in a folder for reading.

        Raises:
            InputError: no run in the folder.
            StoreError: its manifest cannot be read, or a newer klarsicht wrote it.
        """
        if isinstance(path, RunStore):
            return path
        store = cls(Path(path))
        if not store.exists:
            rule = "a run folder holds manifest.json"
            raise InputError("no run in this folder", got=path, rule=rule, remedy="Check the path.")
        _ = store.manifest
        return store

    @property
    def exists(self) -> bool:
        """Whether the folder holds a manifest."""
        return (self.path / "manifest.json").is_file()

    @property
    def manifest(self) -> Manifest:
        """Settings, identity, fixed facts, versions and date, migrated to this version's format."""
        return migrate(self.read_json("manifest.json"))

    def update_manifest(self, **facts: Any) -> None:
        """Add or replace facts of the manifest besides those fixed at creation."""
        self.write_json("manifest.json", self.manifest | facts)

    def changed_libraries(self) -> dict[str, tuple[str, str]]:
        """Compare library versions with those at creation; returns those that differ: {name: (then, now)}."""
        now = library_versions()
        then: dict[str, str] = self.manifest["libraries"]
        return {name: (old, now.get(name, "none")) for name, old in then.items() if old != now.get(name)}

    def _found(self, wanted: Manifest) -> None:
        """Create the folder and its manifest; raises StoreError where it holds other files."""
        with translate_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(p.name for p in self.path.iterdir() if p.name != "lock" and not p.match(".*.tmp"))
        if foreign and not self.exists:
            raise StoreError(
                "the output folder is not empty and holds no run",
                got=f"{foreign[0]} in {self.path}",
                remedy="Choose another --out, or empty the folder.",
            )
        with self.lock():
            if not self.exists:  # another process may have created it meanwhile
                self.write_json("manifest.json", new_manifest(wanted))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's write lock, and remove partial files of killed processes on entry.

        Raises:
            RunLocked: another process holds it.
        """
        with hold_lock(self.path / "lock"):
            remove_leftovers(self.path)
            yield

    # Arrays

    def create_array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike, unit_rows: int) -> None:
        """Create an array of zeros whose shards hold `unit_rows` rows of the first axis. Idempotent.

        Raises:
            RunMismatch: the run has an array of that name with another shape, dtype or unit.
        """
        dtype, shards = np.dtype(dtype), (unit_rows, *shape[1:])
        if not self.has_array(name):
            self._new_array(name, shape, dtype, shards)
        array = self.array(name)
        has, wants = (array.shape, array.dtype, array.shards), (tuple(shape), dtype, shards)
        if has != wants:
            raise RunMismatch(
                f"the run has another array {name!r}",
                got="shape {}, dtype {}, unit {}".format(*wants),
                rule="the run has shape {}, dtype {}, unit {}".format(*has),
                remedy="Choose another --out, or repeat the run's own settings.",
            )

    def _new_array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], shards: tuple[int, ...]) -> None:
        """Create the zarr array and write its metadata to the disk."""
        import zarr

        folder = self._array_folder(name)
        with translate_write_errors(folder):
            zarr.open_group(folder.parent, mode="a")  # else zarr writes the group's metadata after the array's
            zarr.create_array(
                self.path / "arrays.zarr",
                name=name,
                shape=shape,
                dtype=dtype,
                shards=shards,
                chunks=(_chunk_rows(shards, dtype), *shards[1:]),
                fill_value=0,
                chunk_key_encoding={"name": "default", "separator": "."},  # one flat folder of shards
                overwrite=True,  # a kill inside this call leaves a folder without metadata
            )
            for written in (folder / "zarr.json", folder, folder.parent):
                sync(written)

    def write_rows(self, name: str, start: int, values: ArrayLike) -> None:
        """Write whole units of an array; they are on the disk when the call returns.

        Args:
            start: first row; a multiple of the array's unit.
            values: (rows, ...); ends on a unit's boundary or at the array's end.
        """
        import zarr

        values = np.asarray(values)
        array = zarr.open_array(self._existing_array(name), mode="r+")
        rows, stop, unit = array.shape[0], start + len(values), (array.shards or array.chunks)[0]
        if start % unit or stop > rows or (stop % unit and stop != rows):
            raise ValueError(f"rows {start} to {stop} of {rows} are not whole units of {unit}")
        keys = ((i, *[0] * (array.ndim - 1)) for i in range(start // unit, -(-stop // unit)))
        shards = [self._array_folder(name) / array.metadata.encode_chunk_key(key) for key in keys]
        with translate_write_errors(self._array_folder(name)):
            for shard in shards:  # else zarr reads it first, and a power cut may have torn it
                shard.unlink(missing_ok=True)
            array[start:stop] = values
            for shard in filter(Path.exists, shards):  # zarr leaves out a shard of zeros
                sync(shard)
            sync(self._array_folder(name))

    def array(self, name: str) -> zarr.Array[Any]:
        """Open a stored array, read-only. Rows of units without a marker read as 0."""
        import zarr

        return zarr.open_array(self._existing_array(name), mode="r")

    def has_array(self, name: str) -> bool:
        """Whether the array exists."""
        return (self._array_folder(name) / "zarr.json").is_file()

    def _array_folder(self, name: str) -> Path:
        return self.path / "arrays.zarr" / _check_name(name)

    def _existing_array(self, name: str) -> Path:
        if not self.has_array(name):
            raise self._absent("array", name)
        return self._array_folder(name)

    # Tables

    def write_table(self, name: str, table: pa.Table | Columns) -> None:
        """Write a whole table; it takes precedence over parts of the same name."""
        write_atomically(self._table_file(name), _to_parquet(table))

    def write_part(self, name: str, unit: int, table: pa.Table | Columns) -> None:
        """Write one work unit's rows of a table."""
        write_atomically(self._parts_folder(name) / f"{unit:05d}.parquet", _to_parquet(table))

    def table(self, name: str, step: str | None = None) -> pa.Table:
        """Read the whole table where one was written, else its parts in the order of their units.

        Args:
            step: read only the parts of units that carry this step's marker. Without it every existing part is read:
                each is complete, but the rest of its unit may still be missing.
        """
        import pyarrow as pa
        from pyarrow import parquet

        files = self._table_files(name)
        if step is not None and not self._table_file(name).is_file():
            files = {unit: files[unit] for unit in files.keys() & self.finished_units(step).keys()}
        if not files:
            raise self._absent("table", name)
        return pa.concat_tables(
            [parquet.ParquetFile(files[unit]).read() for unit in sorted(files)], promote_options="default"
        )

    def has_table(self, name: str) -> bool:
        """Whether the whole table or any part of it exists."""
        return bool(self._table_files(name))

    def _table_files(self, name: str) -> dict[int, Path]:
        whole = self._table_file(name)
        return {0: whole} if whole.is_file() else _files_by_unit(self._parts_folder(name))

    def _table_file(self, name: str) -> Path:
        return self.path / "tables" / f"{_check_name(name)}.parquet"

    def _parts_folder(self, name: str) -> Path:
        return self.path / "tables" / _check_name(name)

    # Markers

    def mark_done(self, step: str, unit: int, **facts: Any) -> None:
        """Write the marker of a unit: all of its data is on the disk. Call it last."""
        write_atomically(self._marker(step, unit), to_json(facts))

    def is_done(self, step: str, unit: int) -> bool:
        """Whether the unit has its marker."""
        return self._marker(step, unit).is_file()

    def finished_units(self, step: str) -> dict[int, dict[str, Any]]:
        """Read the facts in the markers of a step's finished units, in the order of the units."""
        markers = _files_by_unit(self.path / "done" / _check_name(step))
        return {unit: json.loads(markers[unit].read_bytes()) for unit in sorted(markers)}

    def clear_markers(self, step: str) -> None:
        """Remove the markers of a step, so that its units are computed again."""
        folder = self.path / "done" / _check_name(step)
        with translate_write_errors(folder):
            for marker in _files_by_unit(folder).values():
                marker.unlink(missing_ok=True)
            if folder.is_dir():
                sync(folder)

    def _marker(self, step: str, unit: int) -> Path:
        return self.path / "done" / _check_name(step) / f"{unit:05d}.json"

    # Other files

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file inside the run."""
        write_atomically(self._inside(name), to_json(content))

    def read_json(self, name: str) -> Any:
        """Read a JSON file inside the run; raises StoreError where it is missing or damaged."""
        try:
            return json.loads(self._inside(name).read_bytes())
        except FileNotFoundError:
            raise self._absent("file", name) from None
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {name} of the run", got=error, remedy="Make the run again.") from error

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file inside the run."""
        write_atomically(self._inside(name), content)

    def _inside(self, name: str) -> Path:
        """Return the path of a file inside the run; raises StoreError for names that lead out of it."""
        return self.path.joinpath(*map(_check_name, name.split("/")))

    def _absent(self, kind: str, name: str) -> StoreError:
        """Make the error of a missing array, table or file."""
        remedy = "Run the command that makes it again."
        return StoreError(f"the run has no {kind} {name!r}", got=self.path, remedy=remedy)


def _check_name(name: str) -> str:
    """Return the name if it is allowed inside a run; raises StoreError otherwise."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        rule = "letters, digits, _ . + - only, and no path out of the run"
        raise StoreError("not a name inside a run", got=repr(name), rule=rule)
    return name


def _files_by_unit(folder: Path) -> dict[int, Path]:
    """List the files of a folder by unit number."""
    return {int(p.stem): p for p in folder.glob("*") if p.stem.isdecimal()}


def _chunk_rows(shards: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Choose the chunk size: the most rows that divide a unit and stay under CHUNK_BYTES, so that reading one row is
    cheap.
    """
    row_bytes = dtype.itemsize * int(np.prod(shards[1:]))
    return max((n for n in range(1, shards[0] + 1) if shards[0] % n == 0 and n * row_bytes <= CHUNK_BYTES), default=1)


def _to_parquet(table: pa.Table | Columns) -> bytes:
    """Encode a table as the bytes of a parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table if isinstance(table, pa.Table) else pa.table(dict(table)), sink)
    return bytes(sink.getvalue().to_pybytes())
