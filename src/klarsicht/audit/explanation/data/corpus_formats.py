"""Open a corpus of any format: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from klarsicht.audit.explanation.data import locations, manifest
from klarsicht.audit.explanation.data.array_files import close_arrays, is_arrays, is_idx, open_array_file, open_idx
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.label_cells import LabelCells
from klarsicht.audit.explanation.data.manifest import DEFAULT_NAMES, ColumnNames
from klarsicht.audit.explanation.data.sequences import open_sequence
from klarsicht.audit.explanation.data.tables_in_memory import is_table, open_table
from klarsicht.audit.explanation.data.tables_of_pictures import (
    ARROW,
    PARQUET,
    close_tables,
    open_tables,
    picture_column,
    read_schema,
)
from klarsicht.audit.explanation.data.tar_archives import TAR, open_archives
from klarsicht.ground.errors import CorpusError, InputError, UsageError
from klarsicht.ground.pictures.stored_images import load_decoder
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.ground.user_paths import as_path

CACHED = "cache-"  # beginning of the names of files that `datasets` keeps beside its own


@check_arguments
def open_corpus(
    data: Any, cells: LabelCells = manifest.ONE_LABEL, names: ColumnNames = DEFAULT_NAMES, decoder: str = "",
    classes: Sequence[str] | None = None,
) -> Corpus:  # fmt: skip
    """Open a corpus.

    Args:
        data: path or URL of a class folder, a CSV or parquet manifest, a parquet file or a folder of them with
            pictures inside, a folder of `datasets`, a WebDataset archive or a folder of them, a folder of IDX files,
            an NPZ or HDF5 file; or a sequence of (picture, label[, source[, weight]]), see `open_sequence`, or a table
            of pandas with columns path,label or image,label, see `open_table`.
        cells: how a manifest writes labels.
        names: names of columns, arrays or members, where they are not the usual ones.
        decoder: a user's function from what is stored (a path, bytes or an array) to a picture or an array of one,
            `package.module:callable` or `file.py:callable`; or "".
        classes: of a sequence or a table with pictures, names of labels that are numbers.

    Raises:
        UsageError: several labels of what is no manifest, or a decoder that cannot be imported.
        CorpusError: there is none at this path, or it cannot be read.
        MissingExtra: a format, or a URL, whose package is not installed.
    """
    if isinstance(data, str | PathLike) and not locations.is_url(str(data)):
        as_path("data", data)
    is_path = isinstance(data, str | Path)
    if is_path and cells.several and not locations.is_url(data) and Path(data).is_dir():
        raise _one_label(data, "a class folder gives each image one label")
    if decoder:
        load_decoder(decoder)
    close_tables()
    close_arrays()
    if not is_path:
        corpus = _open_in_memory(data, cells, names, decoder, classes)
    elif locations.is_folder(place := str(data)):
        corpus = _open_folder(place, names, decoder)
    else:
        corpus = _open_file(place, cells, names, decoder)
    if cells.several and not corpus.separator:
        raise _one_label(data if is_path else type(data).__name__, "one label for each image here")
    return replace(corpus, decoder=decoder) if decoder else corpus


def _open_in_memory(
    data: Any, cells: LabelCells, names: ColumnNames, decoder: str, classes: Sequence[str] | None
) -> Corpus:
    """Open a corpus, a table or a sequence that a user gives in place of a path."""
    if isinstance(data, Corpus):
        return data
    if is_table(data):
        return open_table(data, cells, names, decoder, classes)
    if not hasattr(data, "__getitem__"):
        rule = "a path, a sequence of (picture, label), or a table with columns path,label or image,label"
        raise CorpusError("no corpus", got=type(data).__name__, rule=rule)
    return open_sequence(data, classes)


def _one_label(data: str | Path, what: str) -> UsageError:
    return UsageError(
        what, got=data, rule="only a manifest holds several labels of an image",
        remedy="Leave --label-separator and --label-columns out, or name a CSV or parquet file as --data.",
    )  # fmt: skip


def _open_folder(place: str, names: ColumnNames, decoder: str) -> Corpus:
    """Open a folder: one of classes where it has images, else what containers are in it."""
    try:
        corpus = Corpus.from_folder(place)
    except CorpusError as error:
        none = error
    else:
        _require_no_columns(place, names)
        return corpus
    files = locations.list_files(place)
    arrow = [file for file in files if file.endswith(ARROW) and not file.rpartition("/")[2].startswith(CACHED)]
    if arrow:
        return open_tables(place, arrow, names)
    if archives := [file for file in files if file.endswith(TAR)]:
        return open_archives(place, archives, names)
    if idx := [file for file in files if is_idx(file)]:
        return open_idx(place, idx)
    tables = [file for file in files if file.endswith(PARQUET)]
    if tables and picture_column(read_schema(locations.join(place, tables[0])), names.path):
        return open_tables(place, tables, names)
    if decoder:
        return Corpus.from_folder(place, decoder)
    raise none


def _require_no_columns(place: str, names: ColumnNames) -> None:
    """Raise UsageError where columns of a class folder are named, which has none."""
    if names != DEFAULT_NAMES:
        got = ", ".join(filter(None, (names.path, names.label, names.source)))
        raise UsageError(
            "a class folder has no columns", got=f"{got} for {place}", rule="sub-folders name the classes",
            remedy="Leave out --path-column, --label-column and --source-column, or give a table as --data.",
        )  # fmt: skip


def _open_file(place: str, cells: LabelCells, names: ColumnNames, decoder: str) -> Corpus:
    folder, name = locations.parent(place), place.replace("\\", "/").rpartition("/")[2]
    locations.require_place(place)
    if name.endswith(TAR):
        return open_archives(folder, [name], names)
    if is_arrays(name):
        return open_array_file(place, names)
    if name.endswith(PARQUET) and _holds_pictures(place, names):
        return open_tables(folder, [name], names)
    if name.endswith(ARROW):
        return open_tables(folder, [name], names)
    return Corpus.from_manifest(place, cells, names, decoder)


def holds_several(file: str) -> bool:
    """Test by its ending, and of parquet by its columns, whether a file is one of several pictures."""
    several = file.endswith((TAR, ARROW)) or is_arrays(file)
    return several or (file.endswith(PARQUET) and _holds_pictures(file, DEFAULT_NAMES))


def _holds_pictures(place: str, names: ColumnNames) -> bool:
    """Test whether a parquet file holds pictures; one that cannot be read is left to the manifest's error."""
    try:
        return bool(picture_column(read_schema(place), names.path))
    except InputError:
        return False
