"""Corpora in files of arrays: NPZ, HDF5, and the IDX files of MNIST and its kin."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.data import locations
from klarsicht.audit.explanation.data.corpus import Corpus, CorpusRow
from klarsicht.audit.explanation.data.manifest import ColumnNames
from klarsicht.audit.explanation.data.pictures import PictureReader
from klarsicht.ground.errors import CorpusError, ImageError, KlarsichtError
from klarsicht.ground.machine.disk import is_fault_of_place
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.optional import load

NPZ, HDF5 = (".npz",), (".h5", ".hdf5", ".hdf")
PICTURE_ARRAYS = ("images", "image", "x", "X", "data", "pictures")
LABEL_ARRAYS = ("labels", "label", "y", "Y", "targets", "target")
SPLITS = ("train", "val", "valid", "validation", "test")
IDX_IMAGES = "-images-idx3-ubyte"
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""Number types of an IDX file by the third byte of its magic number."""


@dataclass(frozen=True)
class ArrayReader(PictureReader):
    """Pictures along the first axis of arrays; a path is FILE#ARRAY#ROW. A vector of uint8, as HDF5 keeps the bytes of
    an image file, is read as bytes."""

    def read(self, path: str) -> Any:
        file, name, row = path.rsplit("#", 2)
        try:
            value = open_arrays(file)[name][int(row)]
        except Exception as error:
            if isinstance(error, KlarsichtError) or is_out_of_memory(error) or is_fault_of_place(error):
                raise
            raise ImageError("an array cannot be read", got=f"{path}: {error}") from error
        if isinstance(value, bytes):
            return bytes(value)
        pixels = np.asarray(value)
        return pixels.tobytes() if pixels.ndim == 1 and pixels.dtype == np.uint8 else pixels


@dataclass(frozen=True)
class ArrayNames:
    """Names of the arrays of one split: pictures, labels and sources ("" where none)."""

    pictures: str
    labels: str
    sources: str = ""
    split: str = ""


def is_arrays(file: str) -> bool:
    """Test by its ending whether a file holds arrays."""
    return file.lower().endswith((*NPZ, *HDF5))


def open_array_file(file: str, names: ColumnNames) -> Corpus:
    """Open a corpus in an NPZ or HDF5 file, a path or URL. Its arrays, in HDF5 by paths inside the file, are by default
    one of PICTURE_ARRAYS and LABEL_ARRAYS; where only names with a split exist, such as train_images or x_test, each
    split is read. Raises as `open_arrays`, and CorpusError where an array is missing, or arrays differ in length."""
    arrays = open_arrays(file)
    splits = choose_arrays(tuple(arrays), names)
    if not splits:
        got, remedy = f"{file} with {', '.join(arrays) or 'nothing'}", "Name them by --path-column and --label-column."
        raise CorpusError("no arrays of pictures and labels", got=got, remedy=remedy)
    if names.source and not any(one.sources for one in splits):
        got, remedy = f"{names.source}; there are {', '.join(arrays)}", "Correct --source-column, or leave it out."
        raise CorpusError("no array of sources of that name", got=got, remedy=remedy)
    key = file.replace("\\", "/").rpartition("/")[2]
    return Corpus.of_rows((row for one in splits for row in _rows(file, key, arrays, one)), ArrayReader())


def choose_arrays(array_names: Sequence[str], names: ColumnNames) -> list[ArrayNames]:
    """Choose the arrays of pictures, labels and sources: those of the names as they are, else those of every split, as
    train_images, x_train or train/images."""
    pictures = (names.path,) if names.path else PICTURE_ARRAYS
    labels = (names.label,) if names.label else LABEL_ARRAYS

    def chosen(form: str, split: str = "") -> list[ArrayNames]:
        picture = [name for one in pictures if (name := form.format(one)) in array_names]
        label = [name for one in labels if (name := form.format(one)) in array_names]
        source = form.format(names.source) if names.source and form.format(names.source) in array_names else ""
        return [ArrayNames(picture[0], label[0], source, split)] if picture and label else []

    forms = {split: (f"{split}_{{}}", f"{{}}_{split}", f"{split}/{{}}") for split in SPLITS}
    of_splits = [next(filter(None, (chosen(form, split) for form in some)), []) for split, some in forms.items()]
    return chosen("{}") or [one for some in of_splits for one in some]


def open_idx(root: str, files: Sequence[str]) -> Corpus:
    """Open a corpus in IDX files: SPLIT-images-idx3-ubyte beside SPLIT-labels-idx1-ubyte, or both with .gz; raises
    CorpusError where labels are missing, or a file is not as IDX says."""
    rows: list[CorpusRow] = []
    for file in files:
        path, labels = locations.join(root, file), file.replace("images-idx3", "labels-idx1")
        split = file.rpartition("/")[2].partition("-")[0]
        names = ArrayNames("images", "labels", split="test" if split == "t10k" else split)
        rows += _rows(path, file, {"images": _read_idx(path), "labels": _read_idx(locations.join(root, labels))}, names)
    return Corpus.of_rows(rows, ArrayReader())


def _rows(file: str, key: str, arrays: Mapping[str, Any], names: ArrayNames) -> list[CorpusRow]:
    """Make the rows of one split of the arrays of a file, whose keys begin with `key`."""
    n, labels = len(arrays[names.pictures]), _texts(arrays[names.labels], f"{file}#{names.labels}")
    sources = _texts(arrays[names.sources], f"{file}#{names.sources}") if names.sources else [""] * n
    if "" in labels:
        got = f"item {labels.index('')} of {file}#{names.labels}"
        raise CorpusError("a picture has no label", got=got, remedy="Name it, or leave the picture out.")
    if not n == len(labels) == len(sources):
        raise CorpusError("arrays of different lengths", got=f"{n} pictures and {len(labels)} labels in {file}")
    places = (f"#{names.pictures}#{row}" for row in range(n))
    each = zip(places, labels, sources, strict=True)
    return [CorpusRow(key + place, file + place, label, source, names.split) for place, label, source in each]


def _texts(values: Any, name: str) -> list[str]:
    """Convert labels (n,) or (n, 1), numbers or texts, to texts."""
    array = np.asarray(values[:])
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1:
        rule = "one number or text for each picture"
        raise CorpusError("labels are not a list", got=f"{name} of shape {array.shape}", rule=rule)
    if np.issubdtype(flat.dtype, np.floating) and not np.isfinite(flat).all():
        i = int(np.flatnonzero(~np.isfinite(flat))[0])
        raise CorpusError("a label is not a number", got=f"{flat[i]} in {name}, item {i}", rule="finite numbers")
    whole = np.issubdtype(flat.dtype, np.floating) and bool((flat == np.rint(flat)).all())
    items = (flat.astype(np.int64) if whole else flat).tolist()
    return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in items]


def close_arrays() -> None:
    """Forget the files that are open: they may have been replaced."""
    open_arrays.cache_clear()
    _read_idx.cache_clear()


@lru_cache(maxsize=8)
def open_arrays(file: str) -> Mapping[str, Any]:
    """Open the arrays of a file by name; they stay open in this process. Raises CorpusError where that fails, and
    MissingExtra for HDF5 without the extra `hdf5`."""
    if IDX_IMAGES in file:
        return {"images": _read_idx(file)}
    try:
        if file.lower().endswith(HDF5):
            return _open_hdf5(file)
        with np.load(io.BytesIO(locations.read_all(file)), allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorpusError("a file of arrays cannot be read", got=f"{file}: {error}", rule="NPZ or HDF5") from error


def _open_hdf5(file: str) -> Mapping[str, Any]:
    h5py = load("h5py", "hdf5")
    file_of_arrays = h5py.File(locations.open_binary(file) if locations.is_url(file) else file, "r")
    arrays: dict[str, Any] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim:
            arrays[name] = item

    file_of_arrays.visititems(add)
    return arrays


@lru_cache(maxsize=8)
def _read_idx(file: str) -> NDArray[Any]:
    """Read an IDX file (LeCun, Cortes and Burges, the MNIST database): magic number, sizes, numbers. Raises CorpusError
    where it is missing or differs from that."""
    try:
        content = locations.read_all(file)
        head = gzip.decompress(content) if file.endswith(".gz") else content
        kind, axes = np.dtype(IDX_TYPES[head[2]]), head[3]
        shape = tuple(int.from_bytes(head[4 + 4 * i : 8 + 4 * i]) for i in range(axes))
        return np.frombuffer(head, kind, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, LookupError) as error:
        raise CorpusError("an IDX file cannot be read", got=f"{file}: {error}", rule="magic, sizes, numbers") from error


def is_idx(file: str) -> bool:
    """Test by its name whether a file holds the pictures of an IDX corpus."""
    return Path(file).name.removesuffix(".gz").endswith(IDX_IMAGES)
