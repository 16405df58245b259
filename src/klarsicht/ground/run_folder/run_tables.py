"""Tables of a run folder as parquet: whole ones, and parts that work units wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.run_files import check_name
from klarsicht.ground.run_folder.run_markers import RunMarkers, files_by_unit
from klarsicht.ground.texts import Texts

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class RunTables(RunMarkers):
    """Tables of a run folder. A whole table takes precedence over parts of its name."""

    def write_table(self, name: str, table: pa.Table | Columns) -> None:
        """Write a whole table; it takes precedence over parts of the same name."""
        self.write_bytes(_table(name), _to_parquet(table))

    def write_blocks(self, name: str, blocks: Iterable[pa.Table]) -> None:
        """Write a whole table from blocks of its rows, of one schema, one of which is held at a time."""
        import pyarrow as pa
        from pyarrow import parquet

        sink, rest = pa.BufferOutputStream(), iter(blocks)
        first = next(rest)
        with parquet.ParquetWriter(sink, first.schema) as writer:
            writer.write_table(first)
            for block in rest:
                writer.write_table(block)
        self.write_bytes(_table(name), bytes(sink.getvalue()))

    def write_part(self, name: str, unit: int, table: pa.Table | Columns) -> Written:
        """Write one work unit's rows of a table; returns their checksum, for the marker."""
        return self.write_unit_file(_part(name, unit), _to_parquet(table))

    def table(self, name: str, step: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the whole table where one was written, else its parts in the order of their units: those named in the
        markers of the step, or all that exist, unverified. Only the columns that are named, if any. Raises StoreError:
        no such table, or units of the step are not done; RunDamaged: a file is missing or altered."""
        import pyarrow as pa

        tables = [self._decode(file, content, columns) for file, content in self._contents(name, step)]
        if not tables:
            raise self._absent("table", name)
        return pa.concat_tables(tables, promote_options="default")

    def texts(self, name: str, column: str) -> Texts:
        """Read a column of texts of a table without a Python object for each, and by blocks of rows: a whole column is
        never there in two forms. Raises StoreError, RunDamaged: as `table` does."""
        if not self.has_table(name):
            raise self._absent("table", name)
        return Texts.of_chunks(self._blocks(name, column))

    def _blocks(self, name: str, column: str) -> Iterator[pa.Array]:
        from pyarrow import parquet

        for file, content in self._contents(name, None):
            with self.translate_parse_errors(file):
                for batch in parquet.ParquetFile(_reader(content)).iter_batches(columns=[column]):
                    yield batch.column(column)

    def _contents(self, name: str, step: str | None) -> Iterator[tuple[str, bytes]]:
        """Read the files of a table one after the other, each with its name inside the run."""
        if self.has_file(_table(name)):
            yield _table(name), self.read_bytes(_table(name))
        elif step is None:
            yield from ((_part(name, unit), self._read(_part(name, unit))) for unit in sorted(self._parts(name)))
        else:
            parts = {_part(name, unit): unit for unit, marker in self.markers(step).items()
                     if _part(name, unit) in marker.files}  # fmt: skip
            yield from ((part, self.read_unit_file(part, step, unit)) for part, unit in parts.items())

    def has_table(self, name: str, step: str | None = None) -> bool:
        """Test whether the whole table or any part of it, by units of the step, exists, or was written and is lost."""
        begun = step is not None and (self._units(step) or self.is_finished(step))
        return self.has_file(_table(name)) or bool(self._parts(name) or begun)

    def part(self, name: str, number: int, step: str) -> pa.Table | None:
        """Read one part of a table, compared with the marker that names it; None where no unit of the step wrote it."""
        file = _part(name, number)
        for unit in sorted(self._units(step), key=lambda unit: unit != number):
            if file in self.marker(step, unit).files:
                return self._decode(file, self.read_unit_file(file, step, unit))
        return None

    def done_parts(self, name: str, step: str, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Read some columns of the parts of a table that a step's units wrote so far, each with its unit."""
        for unit in sorted(self._units(step)):
            file = _part(name, unit)
            if file in self.marker(step, unit).files:
                yield unit, self._decode(file, self.read_unit_file(file, step, unit), columns)

    def _decode(self, name: str, content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
        """Decode the bytes of a parquet file, or those of its columns that are named."""
        from pyarrow import parquet

        with self.translate_parse_errors(name):
            file = parquet.ParquetFile(_reader(content))
            return file.read(None if columns is None else [one for one in columns if one in file.schema_arrow.names])

    def _parts(self, name: str) -> dict[int, Path]:
        return files_by_unit(self.inside(f"tables/{name}"))


def _table(name: str) -> str:
    return f"tables/{check_name(name)}.parquet"


def _part(table: str, unit: int) -> str:
    return f"tables/{check_name(table)}/{unit:05d}.parquet"


def _to_parquet(table: pa.Table | Columns) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table if isinstance(table, pa.Table) else pa.table(dict(table)), sink)
    return bytes(sink.getvalue())


def _reader(content: bytes) -> pa.BufferReader:
    import pyarrow as pa

    return pa.BufferReader(content)
