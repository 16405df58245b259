"""The run folder: arrays, tables and pictures, written so that they survive an interruption at any moment.

    RUN/manifest.json                   provenance of the run: settings, identity, versions
    RUN/lock                            held by the one process that writes; names its pid
    RUN/arrays.zarr/<name>              zarr v3; one shard per work unit
    RUN/tables/<name>.parquet           a whole table, or
    RUN/tables/<name>/<unit>.parquet    its parts, one per work unit
    RUN/done/<step>/<unit>.json         the markers, with size and checksum of each file that the unit wrote
    RUN/checksums/<file>.json           size and checksum of each other file
    RUN/pictures/
    RUN/claims/                         what processes that share the run work on; empty when none does
    RUN/embedding/                      states of the training of the learned embedding
    RUN/decisions.jsonl                 decisions of a person, see `decisions`

Missing zarr data reads as 0, so **the marker decides** whether a unit is complete: it is written last, after the unit's
shards and parts have reached the disk. A unit without a marker is computed again, over whatever an interrupted process
left. Whatever is read is compared with its checksum first; `verification` compares all files, and makes damaged ones
count as never written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from klarsicht.ground.checksums import Checksum, Written, describe_difference, find_damage
from klarsicht.ground.claims import Claims, remove_claims
from klarsicht.ground.disk import hold_lock, remove_leftovers, share_lock, translate_write_errors, write_atomically
from klarsicht.ground.errors import InputError, RunDamaged, RunMismatch, StoreError
from klarsicht.ground.manifest import Manifest, library_versions, new_manifest, require_agreement, to_json
from klarsicht.ground.markers import Marker, damaged
from klarsicht.ground.operating_system import sync
from klarsicht.ground.run_files import MANIFEST, RunFiles, check_name, record_path
from klarsicht.ground.shards import Shard, Sharing
from klarsicht.ground.stored_array import StoredArray

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[str, Any]
CHUNK_BYTES = 256 * 1024
GROUP = "arrays.zarr/zarr.json"
CLAIMS = "claims"  # folder of the claims of processes that share a run


@dataclass(frozen=True)
class RunStore(RunFiles):
    """One run folder. It holds only its path, so it is cheap to make and can be sent to worker processes.

    Names of arrays, tables and steps are plain words; names of other files are paths inside the run. Every writing
    method raises DiskFull or StoreError as `disk.translate_write_errors` does; every reading method raises StoreError
    for what does not exist, and RunDamaged for what is missing or altered since it was written.
    """

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
            RunDamaged: its manifest is not as it was written.
            StoreError: a newer klarsicht wrote it.
        """
        if isinstance(path, RunStore):
            return path
        store = cls(Path(path))
        if not store.exists:
            rule = "a run folder holds manifest.json"
            raise InputError("no run in this folder", got=path, rule=rule, remedy="Check the path.")
        _ = store.manifest
        return store

    def changed_libraries(self) -> dict[str, tuple[str, str]]:
        """Compare library versions with those at creation; returns those that differ: {name: (then, now)}."""
        now = library_versions()
        then: dict[str, str] = self.manifest["libraries"]
        return {name: (old, now.get(name, "none")) for name, old in then.items() if old != now.get(name)}

    def _found(self, wanted: Manifest) -> None:
        """Create the folder and its manifest; raises StoreError where it holds other files."""
        with translate_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = self._foreign_files()
        if foreign and not self.exists:
            raise StoreError(
                "the output folder is not empty and holds no run",
                got=f"{foreign[0]} in {self.path}",
                remedy="Choose another --out, or empty the folder.",
            )
        with self.lock():
            if not self.exists:  # another process may have created it meanwhile
                self.write_json(MANIFEST, new_manifest(wanted))

    def _foreign_files(self) -> list[str]:
        """List what no creation of a run puts into its folder; one that was killed may leave a checksum and no run."""
        record = Path(record_path(MANIFEST))
        ours = {Path("lock"), record.parent, record}
        found = (p.relative_to(self.path) for folder in ("*", f"{record.parent}/*") for p in self.path.glob(folder))
        return sorted(str(p) for p in found if p not in ours and not p.match(".*.tmp"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's write lock, and remove partial files of killed processes on entry.

        Raises:
            RunLocked: another process holds it.
        """
        with hold_lock(self.path / "lock"):
            self._tidy()
            yield

    @contextmanager
    def share(self, shard: Shard | None) -> Iterator[Sharing]:
        """Work on the run with other processes that share it, or alone where there is no shard, as `lock`.

        Raises:
            RunLocked: another process works on it alone.
            StoreError: the file system has no locks.
        """
        if shard is None:
            with self.lock():
                yield Sharing()
            return
        with share_lock(self.path / "lock", self._tidy):
            claims = Claims(self.path / CLAIMS)
            with claims.beating():
                yield Sharing(shard, claims)

    def _tidy(self) -> None:
        """Remove what killed processes left: partial files, and claims. Only a process alone may call it."""
        remove_leftovers(self.path)
        remove_claims(self.path / CLAIMS)

    # Arrays

    def create_array(
        self, name: str, shape: tuple[int, ...], dtype: DTypeLike, unit_rows: int, step: str | None = None
    ) -> None:
        """Create an array of zeros whose shards hold `unit_rows` rows of the first axis. Idempotent; shards that exist
        are kept.

        Args:
            step: the step whose unit i writes shard i, and names its checksum in its marker; then no row of a unit
                without a marker can be read. None: shards without checksums.

        Raises:
            RunMismatch: the run has an array of that name with another shape, dtype or unit.
        """
        dtype, shards = np.dtype(dtype), (unit_rows, *shape[1:])
        if not self.is_created(name):
            self._new_array(name, shape, dtype, shards, step)
        array = self.array(name).zarr
        has, wants = (array.shape, array.dtype, array.shards), (tuple(shape), dtype, shards)
        if has != wants:
            raise RunMismatch(
                f"the run has another array {name!r}",
                got="shape {}, dtype {}, unit {}".format(*wants),
                rule="the run has shape {}, dtype {}, unit {}".format(*has),
                remedy="Choose another --out, or repeat the run's own settings.",
            )

    def _new_array(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], shards: tuple[int, ...], step: str | None
    ) -> None:
        """Create the zarr array and write its metadata, and that of the group, to the disk."""
        import zarr

        folder = self._array_folder(name)
        metadata = (GROUP, _metadata(name))
        with translate_write_errors(folder):
            for one in metadata:  # what was not written to its end
                if one == _metadata(name) or not self._is_recorded(GROUP):
                    self.inside(one).unlink(missing_ok=True)
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
                attributes={} if step is None else {"step": step},
                overwrite=False,  # shards of an array whose metadata was lost are kept
            )
            for written in (folder / "zarr.json", folder, folder.parent):
                sync(written)
        for one in metadata:
            self._admit(one, Checksum.of_file(self.inside(one)))

    def write_rows(self, name: str, start: int, values: ArrayLike) -> Written:
        """Write whole units of an array; they are on the disk when the call returns.

        Args:
            start: first row; a multiple of the array's unit.
            values: (rows, ...); ends on a unit's boundary or at the array's end.

        Returns:
            The checksum of each shard, for the marker; None for a shard of zeros, which is not stored.
        """
        import zarr

        values = np.asarray(values)
        with self.parsing(_metadata(name)):
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
            written = {
                f"arrays.zarr/{name}/{shard.name}": Checksum.of_file(shard) if shard.exists() else None
                for shard in shards
            }
        blocks = (values[a : a + unit] for a in range(0, len(values), unit))
        if lost := [one for one, block in zip(written, blocks, strict=True) if written[one] is None and block.any()]:
            rule = "one process writes a unit"
            raise StoreError("another process removed a file while it was written", got=lost[0], rule=rule)
        return written

    def array(self, name: str) -> StoredArray:
        """Open a stored array, read-only. Rows that no unit has written read as 0 where the array names no step."""
        import zarr

        folder = self._existing_array(name)
        self.read_bytes(_metadata(name))
        with self.parsing(_metadata(name)):
            array = zarr.open_array(folder, mode="r")
            step = array.attrs.get("step")
        return StoredArray(
            array, f"arrays.zarr/{name}", partial(self._check_shard, None if step is None else str(step))
        )

    def _check_shard(self, step: str | None, unit: int, name: str) -> None:
        """Check that a shard is as its unit wrote it, or at least not empty where no step is known.

        Raises:
            RunDamaged: it is not.
            StoreError: the unit is not done.
        """
        if step is not None:
            self._check_unit_file(self.marker(step, unit), name, find_damage)
        elif self.inside(name).is_file() and not self.inside(name).stat().st_size:
            raise damaged(name, "0 bytes")  # which zarr reads as zeros

    def has_array(self, name: str) -> bool:
        """Whether the array exists."""
        return self.has_file(_metadata(name)) and self.has_file(GROUP)

    def is_created(self, name: str) -> bool:
        """Whether the array was created to the end: it exists, and its metadata and the group's have checksums."""
        return self.has_array(name) and all(map(self._is_recorded, (GROUP, _metadata(name))))

    def _array_folder(self, name: str) -> Path:
        return self.path / "arrays.zarr" / check_name(name)

    def _existing_array(self, name: str) -> Path:
        if not self.has_array(name):
            raise self._absent("array", name)
        return self._array_folder(name)

    # Tables

    def write_table(self, name: str, table: pa.Table | Columns) -> None:
        """Write a whole table; it takes precedence over parts of the same name."""
        self.write_bytes(_table(name), _to_parquet(table))

    def write_part(self, name: str, unit: int, table: pa.Table | Columns) -> Written:
        """Write one work unit's rows of a table; returns their checksum, for the marker."""
        return self.write_unit_file(_part(name, unit), _to_parquet(table))

    def table(self, name: str, step: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the whole table where one was written, else its parts in the order of their units.

        Args:
            step: read only the parts that are named in this step's markers. Without it every existing part is read,
                unverified: each is complete, but the rest of its unit may still be missing.
            columns: read only these, where the table has them; None: all.

        Raises:
            StoreError: no such table, or units of the step are not done.
            RunDamaged: a file is missing or altered.
        """
        import pyarrow as pa

        if self.has_file(_table(name)):
            contents = {_table(name): self.read_bytes(_table(name))}
        elif step is None:
            contents = {_part(name, unit): self._read(_part(name, unit)) for unit in sorted(self._parts(name))}
        else:
            contents = self._read_parts(name, step)
        if not contents:
            raise self._absent("table", name)
        tables = []
        for file, content in contents.items():
            with self.parsing(file):
                tables.append(_from_parquet(content, columns))
        return pa.concat_tables(tables, promote_options="default")

    def has_table(self, name: str, step: str | None = None) -> bool:
        """Whether the whole table or any part of it exists, or was written and is lost.

        Args:
            step: the step whose units write the parts.
        """
        begun = step is not None and (self._units(step) or step in self.manifest.get("finished", ()))
        return self.has_file(_table(name)) or bool(self._parts(name) or begun)

    def part(self, name: str, number: int, step: str) -> pa.Table | None:
        """Read one part of a table, compared with the marker that names it; None where no unit of the step wrote it.

        Raises:
            RunDamaged: the part or a marker is missing or altered.
        """
        file = _part(name, number)
        for unit in sorted(self._units(step), key=lambda unit: unit != number):
            if file in (self.marker(step, unit).files or {}):
                with self.parsing(file):
                    return _from_parquet(self.read_unit_file(file, step, unit))
        return None

    def _read_parts(self, name: str, step: str) -> dict[str, bytes]:
        """Read the parts of a table that a step's units wrote, each compared with its marker."""
        known, contents = self._parts(name), {}
        for unit, marker in self.markers(step).items():
            part = _part(name, unit)
            if part in marker.files if marker.files is not None else unit in known:
                contents[part] = self.read_unit_file(part, step, unit)
        return contents

    def _parts(self, name: str) -> dict[int, Path]:
        return _files_by_unit(self.inside(f"tables/{name}"))

    # Markers

    def mark_done(self, step: str, unit: int, written: Written | None = None, **facts: Any) -> None:
        """Write the marker of a unit: all of its data is on the disk. Call it last.

        Args:
            written: checksum of each file that the unit wrote, as the writing methods return them.
        """
        write_atomically(self._marker(step, unit), Marker(step, unit, written or {}, facts).to_json())

    def is_done(self, step: str, unit: int) -> bool:
        """Whether the unit has its marker."""
        return self._marker(step, unit).is_file()

    def done_units(self, step: str) -> set[int]:
        """List the units that have their marker."""
        return set(self._units(step))

    def marker(self, step: str, unit: int) -> Marker:
        """Read the marker of a unit.

        Raises:
            RunDamaged: it is damaged, or missing from a step that was finished.
            StoreError: the unit is not done.
        """
        try:
            marker = Marker.read(self._marker(step, unit), step, unit)
        except FileNotFoundError:
            raise self._undone(step, unit) from None
        if marker.files is None and self.keeps_checksums:
            raise damaged(_marker(step, unit), "its checksums are missing")
        return marker

    def markers(self, step: str) -> dict[int, Marker]:
        """Read the markers of a step, in the order of the units.

        Raises:
            RunDamaged: one is damaged, or missing from a step that was finished.
            StoreError: a unit of the step is not done.
        """
        units = range(self.manifest.get("steps", {}).get(step, 0))
        return {unit: self.marker(step, unit) for unit in sorted(self._units(step).keys() | set(units))}

    def finished_units(self, step: str) -> dict[int, dict[str, Any]]:
        """Read the facts in the markers of a step's finished units, in the order of the units.

        Raises:
            RunDamaged: a marker is damaged, or missing from a step that was finished.
        """
        manifest = self.manifest
        all_of_them = range(manifest["steps"][step]) if step in manifest.get("finished", ()) else ()
        return {unit: dict(self.marker(step, unit).facts) for unit in sorted({*self._units(step), *all_of_them})}

    def count_units(self, step: str) -> int:
        """Count the units of a step that have their marker, without reading it."""
        return len(self._units(step))

    def finish_step(self, step: str, units: int) -> None:
        """Record that all units of a step are done: a marker that is missing from now on is damage."""
        manifest = self.manifest
        finished = sorted({*manifest.get("finished", ()), step})
        self.update_manifest(steps=manifest.get("steps", {}) | {step: units}, finished=finished)

    def is_finished(self, step: str) -> bool:
        """Whether all units of a step are done, as far as is known: older versions kept no record of it."""
        manifest = self.manifest
        return step in manifest.get("finished", ()) or not manifest["checksums"]

    def discard_step(self, step: str) -> None:
        """Remove the markers of a step, and then the files that they name."""
        written: set[str] = set()
        for unit in self._units(step):
            with suppress(RunDamaged):
                written |= (self.marker(step, unit).files or {}).keys()
        self.clear_markers(step)
        with translate_write_errors(self.path):
            for name in written:
                self.inside(name).unlink(missing_ok=True)

    def clear_markers(self, step: str) -> None:
        """Remove the markers of a step, so that its units are computed again."""
        finished = self.manifest.get("finished", [])
        if step in finished:
            self.update_manifest(finished=[one for one in finished if one != step])
        folder = self.path / "done" / check_name(step)
        with translate_write_errors(folder):
            for marker in self._units(step).values():
                marker.unlink(missing_ok=True)
            if folder.is_dir():
                sync(folder)

    def _units(self, step: str) -> dict[int, Path]:
        """List the markers of a step by unit."""
        return _files_by_unit(self.path / "done" / check_name(step))

    def _marker(self, step: str, unit: int) -> Path:
        return self.inside(_marker(step, unit))

    def _undone(self, step: str, unit: int) -> StoreError:
        """Make the error of a unit without a marker."""
        if step in self.manifest.get("finished", ()):
            return damaged(_marker(step, unit), "missing")
        return StoreError(
            "the run is not finished",
            got=f"no marker of unit {unit} of step {step} in {self.path}",
            remedy="Give the command that began it again: it computes what is missing.",
        )

    # Files of units: their checksums stand in the unit's marker

    def write_unit_file(self, name: str, content: bytes) -> Written:
        """Write a file of a work unit; returns its checksum, for the marker."""
        write_atomically(self.inside(name), content)
        return {name: Checksum.of(content)}

    def read_unit_file(self, name: str, step: str, unit: int = 0) -> bytes:
        """Read a file that a unit wrote.

        Raises:
            RunDamaged: it is missing or altered, or the marker does not name it.
            StoreError: the unit is not done.
        """
        if not self.keeps_checksums and not self.is_done(step, unit):
            return self._read(name)  # older versions marked no pictures
        marker = self.marker(step, unit)
        if marker.files is not None and not self.inside(name).exists():
            self._check_unit_file(marker, name, find_damage)
        content = self._read(name)
        self._check_unit_file(marker, name, lambda _, expected: describe_difference(Checksum.of(content), expected))
        return content

    def _check_unit_file(self, marker: Marker, name: str, difference: Callable[[Path, Checksum | None], str]) -> None:
        """Compare a file with the marker of its unit; raises RunDamaged. A marker without checksums says nothing."""
        if marker.files is None:
            return
        if name not in marker.files:
            raise damaged(name, f"its checksum is missing from {_marker(marker.step, marker.unit)}")
        if what := difference(self.inside(name), marker.files[name]):
            raise damaged(name, what)


def _metadata(array: str) -> str:
    return f"arrays.zarr/{check_name(array)}/zarr.json"


def _table(name: str) -> str:
    return f"tables/{check_name(name)}.parquet"


def _part(table: str, unit: int) -> str:
    return f"tables/{check_name(table)}/{unit:05d}.parquet"


def _marker(step: str, unit: int) -> str:
    return f"done/{check_name(step)}/{unit:05d}.json"


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


def _from_parquet(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Decode the bytes of a parquet file, or those of its columns that are named."""
    import pyarrow as pa
    from pyarrow import parquet

    file = parquet.ParquetFile(pa.BufferReader(content))
    return file.read(None if columns is None else [name for name in columns if name in file.schema_arrow.names])
