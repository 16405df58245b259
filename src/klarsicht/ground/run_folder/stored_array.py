"""Arrays of a run, whose shards are compared with their checksums before a row of them is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.run_folder.markers import damage_error

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class StoredArray:
    """Array of a run, read-only: `array[rows]` by number, slice or numbers of rows, and the further axes as zarr does.
    `check` raises RunDamaged for a shard (unit, path inside the run) that is not as it was written."""

    zarr: zarr.Array[Any]
    name: str
    check: Callable[[int, str], None]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.zarr.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.zarr.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read rows. Raises RunDamaged: a shard is lost, altered or cannot be decoded; StoreError: its unit is not
        done."""
        rows = key[0] if isinstance(key, tuple) else key
        for unit in self._units(rows):
            self.check(unit, self._shard(unit))
        try:
            return self._read(key)
        except (KlarsichtError, IndexError, MemoryError):
            raise
        except Exception as error:  # zarr's codecs raise nearly anything on damaged data
            if is_out_of_memory(error):
                raise
            raise damage_error(self.name, f"cannot be decoded: {type(error).__name__}: {error}") from error

    def _read(self, key: Any) -> NDArray[Any]:
        """Read rows; where they are many numbers, shard by shard, which takes a tenth of zarr's memory and half its
        time."""
        rows, *axes = key if isinstance(key, tuple) else (key,)
        numbers = np.arange(len(self))[rows]
        if isinstance(rows, slice) or numbers.ndim != 1 or not len(numbers):
            return np.asarray(self.zarr.oindex[key])
        units, read = numbers // self._shard_rows, np.empty(0, self.dtype)
        for i, unit in enumerate(np.unique(units)):
            own = numbers[units == unit]
            block = np.asarray(self.zarr.oindex[(slice(own.min(), own.max() + 1), *axes)])
            if i == 0:
                read = np.empty((len(numbers), *block.shape[1:]), self.dtype)
            read[units == unit] = block[own - own.min()]
        return read

    @property
    def _shard_rows(self) -> int:
        return int((self.zarr.shards or self.zarr.chunks)[0])

    def _units(self, rows: Any) -> list[int]:
        return [int(unit) for unit in np.unique(np.arange(len(self))[rows] // self._shard_rows)]

    def _shard(self, unit: int) -> str:
        return f"{self.name}/{self.zarr.metadata.encode_chunk_key((unit, *[0] * (self.zarr.ndim - 1)))}"
