"""Arrays of a run, whose shards are compared with their checksums before a row of them is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.markers import damaged
from klarsicht.ground.memory import is_out_of_memory

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class StoredArray:
    """Array of a run, read-only: `array[rows]` by number, slice or numbers of rows, and the further axes as zarr does.

    Attributes:
        zarr: the zarr array; missing shards read as 0.
        name: its path inside the run.
        check: function (unit, path inside the run) that raises RunDamaged for a shard that is not as it was written.
    """

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
        """Read rows.

        Raises:
            RunDamaged: a shard of them is missing, altered or cannot be decoded.
            StoreError: the unit that writes them is not done.
        """
        rows = key[0] if isinstance(key, tuple) else key
        for unit in self._units(rows):
            self.check(unit, self._shard(unit))
        try:
            return np.asarray(self.zarr.oindex[key])
        except (KlarsichtError, IndexError, MemoryError):
            raise
        except Exception as error:  # zarr's codecs raise nearly anything on damaged data
            if is_out_of_memory(error):
                raise
            raise damaged(self.name, f"cannot be decoded: {type(error).__name__}: {error}") from error

    def _units(self, rows: Any) -> list[int]:
        """List the shards that hold some rows."""
        each = (self.zarr.shards or self.zarr.chunks)[0]
        return [int(unit) for unit in np.unique(np.arange(len(self))[rows] // each)]

    def _shard(self, unit: int) -> str:
        """Return the path of a shard inside the run."""
        return f"{self.name}/{self.zarr.metadata.encode_chunk_key((unit, *[0] * (self.zarr.ndim - 1)))}"
