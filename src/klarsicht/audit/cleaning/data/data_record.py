"""Write the action on each image of a corpus, and the resulting corpus, as tables: CSV or parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import write_atomically

FOUND, PROBABLE = "image of the finding", "probability"  # why an image counts as a carrier
MANIFEST: Final = ("path", "label", "source", "split", "weight")
Row = Sequence[str | float]


@dataclass(frozen=True)
class ImageRecord:
    """Action on one image; label, source and split are of the original corpus, paths relative to OUT. sha256: of the
    original file; "" where it cannot be read. new_path, new_weight: "" and 0 where the new corpus lacks the image. why:
    the reason why it was skipped, or why it counts as a carrier. white_level: code of white of a 16-bit file; "" where
    none is stated. artifact_of: classes whose artifact the image carries, separated by semicolons."""

    path: str
    label: str
    source: str
    split: str
    sha256: str
    action: str
    new_path: str
    new_label: str
    new_weight: float
    why: str = ""
    white_level: str = ""
    artifact_of: str = ""

    @property
    def in_new_corpus(self) -> bool:
        """Whether the new manifest contains the image."""
        return self.new_weight > 0

    def manifest_row(self, weight: float, white_levels: bool) -> Row:
        """Return the row of a manifest, with the white level where any image of the corpus has one."""
        white = (self.white_level,) if white_levels else ()
        return (self.new_path, self.new_label, self.source, self.split, weight, *white)


def write_tables(out: Path, lines: Sequence[ImageRecord], tables: str) -> None:
    """Write record, quarantine and manifest in a format of `TABLES`; the manifest last."""

    def table(name: str, header: Sequence[str], rows: Sequence[Row]) -> None:
        write_atomically(out / f"{name}.{tables}", TABLES[tables](header, rows))

    table("record", [field.name for field in fields(ImageRecord)], [tuple(asdict(line).values()) for line in lines])
    whites = any(line.white_level for line in lines)
    header = (*MANIFEST, "white_level") if whites else MANIFEST
    aside = [line.manifest_row(1.0, whites) for line in lines if line.new_path and not line.in_new_corpus]
    if aside:
        table("quarantine", header, aside)
    kept = [line.manifest_row(line.new_weight, whites) for line in lines if line.in_new_corpus]
    table("manifest", header, kept)


def read_record(out: Path, tables: str) -> list[ImageRecord]:
    """Read the record that `write_tables` wrote. Raises InputError if it lacks a column, or cannot be read."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    file, names = out / f"record.{tables}", [field.name for field in fields(ImageRecord)]
    try:
        if tables == "parquet":
            rows = parquet.read_table(file).to_pylist()
        else:
            asked = arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
            rows = arrow_csv.read_csv(file, convert_options=asked).to_pylist()
        known = [{name: row[name] for name in names if name in row} for row in rows]
        return [ImageRecord(**row | {"new_weight": float(row["new_weight"])}) for row in known]
    except (KeyError, ValueError, TypeError, OSError, pa.ArrowException) as error:
        raise InputError(
            "the record of a cleaned corpus cannot be read", got=f"{file}: {error}",
            remedy="Make it again with `klarsicht audit clean-data`.",
        ) from error  # fmt: skip


def encode_csv(header: Sequence[str], rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    shown = ([f"{cell:g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    csv.writer(text).writerows([list(header), *shown])
    return text.getvalue().encode()


def encode_parquet(header: Sequence[str], rows: Sequence[Row]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, ())
    content = io.BytesIO()
    parquet.write_table(pa.table({name: list(cells) for name, cells in columns.items()}), content)
    return content.getvalue()


TABLES: Final[dict[str, Callable[[Sequence[str], Sequence[Row]], bytes]]] = {
    "csv": encode_csv,
    "parquet": encode_parquet,
}
