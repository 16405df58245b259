"""Arrays of a run folder as zarr v3: one shard per work unit, each with its checksum in the unit's marker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from klarsicht.ground.errors import RunMismatch, StoreError
from klarsicht.ground.machine.disk import translate_write_errors
from klarsicht.ground.machine.operating_system import sync
from klarsicht.ground.run_folder.checksums import Checksum, Written, find_damage
from klarsicht.ground.run_folder.run_files import check_name
from klarsicht.ground.run_folder.run_markers import RunMarkers
from klarsicht.ground.run_folder.stored_array import StoredArray

CHUNK_BYTES = 256 * 1024
GROUP = "arrays.zarr/zarr.json"


@dataclass(frozen=True)
class RunArrays(RunMarkers):
    """Arrays of a run folder. Missing zarr data reads as 0, so the markers decide which rows may be read."""

    def create_array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike, unit_rows: int, step: str) -> None:
        """Create an array of zeros whose shards hold `unit_rows` rows of the first axis; shards that exist are kept.
        Unit i of the step writes shard i, and only its marker lets rows be read. Raises RunMismatch: the run has an
        array of that name with another shape, dtype or unit."""
        dtype, shards = np.dtype(dtype), (unit_rows, *shape[1:])
        if not self.is_created(name):
            self._new_array(name, shape, dtype, shards, step)
        array = self.array(name).zarr
        has, wants = (array.shape, array.dtype, array.shards), (tuple(shape), dtype, shards)
        if has != wants:
            form, remedy = "shape {}, dtype {}, unit {}", "Choose another --out, or repeat the run's own settings."
            got, rule = form.format(*wants), "the run has " + form.format(*has)
            raise RunMismatch(f"the run has another array {name!r}", got=got, rule=rule, remedy=remedy)

    def _new_array(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], shards: tuple[int, ...], step: str
    ) -> None:
        """Create the zarr array and write its metadata, and that of the group, to the disk."""
        import zarr

        folder = self._array_folder(name)
        metadata = (GROUP, metadata_file(name))
        with translate_write_errors(folder):
            for one in metadata:  # what was not written to its end
                if one == metadata_file(name) or not self._is_recorded(GROUP):
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
                attributes={"step": step},
                overwrite=False,  # shards of an array whose metadata was lost are kept
            )
            for written in (folder / "zarr.json", folder, folder.parent):
                sync(written)
        for one in metadata:
            self._admit(one, Checksum.of_file(self.inside(one)))

    def write_rows(self, name: str, start: int, values: ArrayLike) -> Written:
        """Write whole units of an array from row `start`; they are on the disk when the call returns. Returns the
        checksum of each shard, for the marker; None for a shard of zeros, which is not stored."""
        import zarr

        values = np.asarray(values)
        with self.translate_parse_errors(metadata_file(name)):
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
        """Open a stored array, read-only."""
        import zarr

        folder = self._existing_array(name)
        self.read_bytes(metadata_file(name))
        with self.translate_parse_errors(metadata_file(name)):
            array = zarr.open_array(folder, mode="r")
            step = str(array.attrs["step"])
        return StoredArray(array, f"arrays.zarr/{name}", partial(self._check_shard, step))

    def _check_shard(self, step: str, unit: int, name: str) -> None:
        """Check that a shard is as its unit wrote it. Raises RunDamaged; StoreError: the unit is not done."""
        self._check_unit_file(self.marker(step, unit), name, find_damage)

    def array_names(self) -> list[str]:
        """Names of all arrays of the run."""
        names = sorted(file.parent.name for file in self.inside(GROUP).parent.glob("*/zarr.json"))
        return [*filter(self.has_array, names)]

    def has_array(self, name: str) -> bool:
        return self.has_file(metadata_file(name)) and self.has_file(GROUP)

    def is_created(self, name: str) -> bool:
        """Whether the array was created to the end: it exists, and its metadata and the group's have checksums."""
        return self.has_array(name) and all(map(self._is_recorded, (GROUP, metadata_file(name))))

    def _array_folder(self, name: str) -> Path:
        return self.path / "arrays.zarr" / check_name(name)

    def _existing_array(self, name: str) -> Path:
        if not self.has_array(name):
            raise self._absent("array", name)
        return self._array_folder(name)


def metadata_file(array: str) -> str:
    """Return the path inside the run of the metadata of an array."""
    return f"arrays.zarr/{check_name(array)}/zarr.json"


def _chunk_rows(shards: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Choose the most rows that divide a unit and stay under CHUNK_BYTES, so that reading one row is cheap."""
    row_bytes = dtype.itemsize * int(np.prod(shards[1:]))
    return max((n for n in range(1, shards[0] + 1) if shards[0] % n == 0 and n * row_bytes <= CHUNK_BYTES), default=1)
