"""What was done to each image of a corpus, and the corpus that results, as tables: CSV or parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from klarsicht.ground.disk import write_atomically

MANIFEST: Final = ("path", "label", "source", "split", "weight")
Row = Sequence[str | float]


@dataclass(frozen=True)
class ImageRecord:
    """What is done to one image.

    Attributes:
        path, new_path: from OUT; new_path is "" where the new corpus lacks the image.
        sha256: of the original file; "" where it cannot be read.
        new_weight: 0 where the new corpus lacks the image.
        why: the reason why it was skipped.
    """

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

    @property
    def stays(self) -> bool:
        """In the new manifest."""
        return self.new_weight > 0

    def entry(self, weight: float) -> Row:
        """Of a manifest."""
        return (self.new_path, self.new_label, self.source, self.split, weight)


def write(out: Path, lines: Sequence[ImageRecord], tables: str) -> None:
    """Record, quarantine and manifest; the manifest last.

    Args:
        tables: a name of `TABLES`.
    """

    def table(name: str, header: Sequence[str], rows: Sequence[Row]) -> None:
        write_atomically(out / f"{name}.{tables}", TABLES[tables](header, rows))

    table("record", [field.name for field in fields(ImageRecord)], [tuple(asdict(line).values()) for line in lines])
    aside = [line.entry(1.0) for line in lines if line.new_path and not line.stays]
    if aside:
        table("quarantine", MANIFEST, aside)
    table("manifest", MANIFEST, [line.entry(line.new_weight) for line in lines if line.stays])


def as_csv(header: Sequence[str], rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    shown = ([f"{cell:g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    csv.writer(text).writerows([list(header), *shown])
    return text.getvalue().encode()


def as_parquet(header: Sequence[str], rows: Sequence[Row]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, ())
    content = io.BytesIO()
    parquet.write_table(pa.table({name: list(cells) for name, cells in columns.items()}), content)
    return content.getvalue()


TABLES: Final[dict[str, Callable[[Sequence[str], Sequence[Row]], bytes]]] = {"csv": as_csv, "parquet": as_parquet}
