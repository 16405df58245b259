"""Class map: a CSV with columns label,index that assigns labels of a corpus to outputs of a model."""

from __future__ import annotations

import csv
from pathlib import Path

from klarsicht.audit.explanation.data.class_names import require_distinct
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import require_regular_file


def read(path: Path, labels: tuple[str, ...], n_classes: int) -> dict[str, int]:
    """Read the output index, 0 to n_classes - 1, of each label from a CSV with columns label,index.

    Raises:
        InputError: the file cannot be read, has a label twice, lacks a label of the corpus, or names an output that the
            model does not have.
    """
    require_regular_file(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [(line["label"], int(line["index"])) for line in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            "the class map cannot be read", got=f"{path}: {error}", rule="a CSV with columns label,index"
        ) from error
    require_distinct([label for label, _ in lines], f"the class map {path}")
    index = dict(lines)
    missing = [label for label in labels if label not in index]
    beyond = [label for label in labels if label in index and not 0 <= index[label] < n_classes]
    if missing or beyond:
        raise InputError(
            "the class map does not cover the corpus" if missing else "the class map names outputs the model has not",
            got=", ".join((missing or beyond)[:5]),
            rule=f"one line for each label, with an index below {n_classes}",
        )
    return {label: index[label] for label in labels}
