"""Columns of texts that are held without a Python object for each: names and paths of a million images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 4096  # texts that are Python objects at once
SHORT_COLUMN = 2**31 - 1  # bytes of text that a column of Arrow's type `string` can hold


@dataclass(frozen=True, eq=False)
class Texts(Sequence[str]):
    """Sequence of N texts: a common beginning up to a slash, and the rest of each in one Arrow array of `large_string`,
    8 bytes and its UTF-8 each; a Python text takes 57 bytes more. Equal to any sequence of the same texts."""

    prefix: str
    array: pa.Array

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Convert a sequence of texts; one that is converted stays as it is. Raises UnicodeEncodeError: a text has no
        UTF-8, such as the name of a file in another encoding."""
        if isinstance(texts, Texts):
            return texts
        prefix = _common_folder(min(texts), max(texts)) if texts else ""
        blocks = ([text[len(prefix) :] for text in texts[i : i + BLOCK]] for i in range(0, len(texts), BLOCK))
        return cls.of_blocks(prefix, blocks)

    @classmethod
    def of_blocks(cls, prefix: str, blocks: Iterable[Sequence[str]]) -> Texts:
        """Join blocks of ends to the texts of a common beginning. Raises UnicodeEncodeError: see `of`."""
        import pyarrow as pa

        arrays = [pa.array(block, pa.large_string()) for block in blocks]
        return cls(prefix, pa.concat_arrays([pa.array([], pa.large_string()), *arrays]))

    @classmethod
    def of_chunks(cls, chunks: Iterable[pa.Array]) -> Texts:
        """Join parts of a column of texts, one of which is held in its own form; None becomes "". The folder that the
        first part has in common is held once, as long as the others begin with it."""
        import pyarrow as pa
        from pyarrow import compute

        prefix, ends = None, list[pa.Array]()
        for chunk in chunks:
            texts = chunk.cast(pa.large_string()).fill_null("")
            if prefix is None:
                low, high = (one.as_py() or "" for one in compute.min_max(texts).values())
                prefix = _common_folder(low, high)
            if prefix and not compute.all(compute.starts_with(texts, prefix)).as_py():
                ends = [cls(prefix, end).to_column().cast(pa.large_string()) for end in ends]
                prefix = ""
            ends.append(compute.utf8_slice_codeunits(texts, len(prefix)) if prefix else texts)
        return cls(prefix or "", pa.concat_arrays([pa.array([], pa.large_string()), *ends]))

    def to_column(self) -> pa.Array:
        """Convert to a column of a table, of type `string` where that can hold so much."""
        import pyarrow as pa
        from pyarrow import compute

        prefix, nothing = (pa.scalar(text, pa.large_string()) for text in (self.prefix, ""))
        whole = compute.binary_join_element_wise(prefix, self.array, nothing)
        return whole.cast(pa.string()) if whole.nbytes < SHORT_COLUMN else whole

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Texts: ...

    def __getitem__(self, at: int | slice) -> str | Texts:
        if isinstance(at, slice):
            return self.take(range(len(self))[at])
        return self.prefix + str(self.array[int(at)].as_py())

    def take(self, rows: Iterable[int]) -> Texts:
        import pyarrow as pa

        return replace(self, array=self.array.take(pa.array(np.fromiter(rows, np.int64))))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            for end in self.array.slice(start, BLOCK).to_pylist():
                yield self.prefix + end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str) or len(self) != len(other):
            return False
        if isinstance(other, Texts) and other.prefix == self.prefix:
            return bool(self.array.equals(other.array))
        return all(mine == its for mine, its in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash((len(self), self[0] if len(self) else ""))

    def __repr__(self) -> str:
        return f"Texts({self.prefix!r}, {len(self)})"

    @cached_property
    def are_distinct(self) -> bool:
        """Whether no two texts are equal. 64 bits of each are sorted; the texts are compared only where two agree."""
        hashes = np.fromiter(map(hash, self), np.int64, len(self))
        hashes.sort()
        return not (hashes[1:] == hashes[:-1]).any() or len(set(self)) == len(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"prefix": self.prefix, "array": self.array}


def _common_folder(low: str, high: str) -> str:
    """Return the folder that all texts between two begin with, up to its slash; empty where they share none."""
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[: low.rfind("/", 0, same) + 1]
