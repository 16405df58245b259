"""Corpora that are sequences in Python: torchvision's and Hugging Face's datasets, lists of arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from klarsicht.audit.explanation.data.class_names import describe_renamed, make_distinct, require_distinct
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.pictures import PictureReader, hash_stored
from klarsicht.ground.errors import CorpusError, ImageError, ProgramFailed
from klarsicht.ground.foreign import foreign_errors, foreign_errors_on_image
from klarsicht.ground.names import describe_value
from klarsicht.ground.pictures.stored_images import STORED_KINDS
from klarsicht.ground.progress import note, track
from klarsicht.ground.ranges import IMAGE_WEIGHT
from klarsicht.ground.user_arguments import as_kind

PICTURE_KEYS, LABEL_KEYS = ("image", "img", "picture", "pixel_values"), ("label", "labels", "fine_label", "target")


class Items(Protocol):
    """Sequence of items, each read by its number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class SequenceReader(PictureReader):
    """Pictures of a sequence; a path is the number of an item. Each picture was hashed when the corpus was opened."""

    items: Items
    fingerprints: Sequence[bytes]

    def read(self, path: str) -> Any:
        with foreign_errors_on_image(
            ProgramFailed, "an item that was read cannot be read again", of=f"item {int(path)}"
        ):
            return split_item(self.items[int(path)], int(path))[0]

    def fingerprint(self, path: str) -> bytes:
        return self.fingerprints[int(path)]


def open_sequence(items: Items, classes: Sequence[str] | None = None) -> Corpus:
    """Open a sequence of (picture, label[, source[, weight]]) as a corpus; each picture is read once for its hash.
    items: a picture is a path, the bytes of an image file, a Pillow image, or an array as
    `ground.pictures.images.picture_from_array` takes it. An item may be a mapping with the keys image, label, and
    optionally source and weight. classes: names of labels that are numbers; by default those of the sequence, as
    `classes` or in `features`, made distinct with a note; else the numbers. Raises InputError: one of `classes` stands
    twice; CorpusError: no items, an item that is none, or one that is another picture each time it is read."""
    n = len(items)
    if classes:
        require_distinct([str(name) for name in classes], "the list of class names")
    own = _names_of(items)
    names = tuple(classes) if classes else make_distinct(own)
    if not classes and (renamed := describe_renamed(own, names)):
        note(renamed)
    read = []
    with foreign_errors(CorpusError, "a sequence cannot be read", of=type(items).__name__):
        for number in track(range(n), n, "reading pictures"):
            picture, *rest = split_item(items[number], number)
            read.append((_fingerprint(picture, number), *rest))
        if n and read[0][0] != _fingerprint(split_item(items[0], 0)[0], 0):
            raise CorpusError(
                "a sequence gives another picture each time", got=f"item 0 of {type(items).__name__}",
                rule="pictures that stay", remedy="Leave random transforms out: the model's own transform is applied.",
            )  # fmt: skip
    digits = len(str(max(n - 1, 0)))
    numbers = tuple(f"{i:0{digits}d}" for i in range(n))
    prints, labels, sources, weights = zip(*read, strict=True) if read else ((), (), (), ())
    return Corpus(
        keys=numbers,
        paths=numbers,
        labels=tuple(_label_text(label, names) for label in labels),
        sources=sources,
        weights=weights if any(weight != 1 for weight in weights) else (),
        reader=SequenceReader(items, prints),
    )


def split_item(item: Any, number: int) -> tuple[Any, Any, str, float]:
    """Split an item into picture, label, source ("" where unknown) and weight (1 where not given); raises CorpusError
    for what is no item."""
    if isinstance(item, Mapping):
        picture = next((item[key] for key in PICTURE_KEYS if key in item), None)
        label = next((item[key] for key in LABEL_KEYS if key in item), None)
        parts = (picture, label, item.get("source"), item.get("weight"))
    elif isinstance(item, tuple | list) and 2 <= len(item) <= 4:
        parts = (*item, *[None] * (4 - len(item)))
    else:
        raise _no_item(item, number)
    picture, label, source, weight = parts
    if picture is None or label is None:
        raise _no_item(item, number)
    weight = 1.0 if weight is None else as_kind(f"weight of item {number}", weight, float)
    IMAGE_WEIGHT.require(f"weight of item {number}", weight)
    if not str(require_name(label, f"label of item {number}")).strip():
        raise CorpusError(f"item {number} has no label", got=repr(label), remedy="Name it, or leave it out.")
    return picture, label, "" if source is None else str(require_name(source, f"source of item {number}")), weight


def require_name(value: Any, name: str) -> Any:
    """Return a label or a source; raises CorpusError unless it is a text, an integer or a finite number: images would
    share NaN or a tuple as a name that nobody gave."""
    plain = value.item() if getattr(value, "shape", None) == () else value
    if isinstance(plain, str | int) or (isinstance(plain, float) and math.isfinite(plain)):
        return value
    rule = "a text, an integer or a finite number"
    raise CorpusError(f"{name} is not a name", got=describe_value(value), rule=rule, remedy="Name it, or leave it out.")


def _no_item(item: Any, number: int) -> CorpusError:
    got = f"item {number}: {sorted(map(str, item)) if isinstance(item, Mapping) else type(item).__name__}"
    rule = "(picture, label[, source[, weight]]), or a mapping with image and label"
    return CorpusError("an item is not a picture with a label", got=got, rule=rule)


def _fingerprint(picture: Any, number: int) -> bytes:
    try:
        return hash_stored(picture)
    except ImageError as error:
        got = f"item {number}: {error.got}"
        raise CorpusError("an item of a sequence is not a picture", got=got, rule=STORED_KINDS) from error


def _names_of(items: Items) -> Sequence[str]:
    """Read the names of the classes that a sequence itself has; empty where it has none."""
    if isinstance(names := getattr(items, "classes", None), list | tuple):
        return [str(name) for name in names]
    features: Any = getattr(items, "features", None)
    for key in LABEL_KEYS if isinstance(features, Mapping) else ():
        if names := getattr(features.get(key), "names", None):
            return [str(name) for name in names]
    return ()


def _label_text(label: Any, names: Sequence[str]) -> str:
    number = label.item() if hasattr(label, "item") else label
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(names):
        return names[number]
    return str(number)
