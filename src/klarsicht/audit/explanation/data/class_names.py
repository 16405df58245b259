"""Names of classes, none of which stands twice, and their outputs in a class map."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import require_regular_file

CLASS_MAP: Final = "a CSV with columns label,index"


def require_distinct(names: Sequence[str], of: str) -> None:
    """Check that no name stands twice; raises InputError, which names the list (`of`) and the names."""
    counts = Counter(names)
    if several := [f"{name!r} ({count} times)" for name, count in counts.items() if count > 1]:
        raise InputError(
            f"{of} has a label twice", got=", ".join(several[:5]) + (", ..." if len(several) > 5 else ""),
            rule="each label stands for one output of the model",
            remedy="Rename one of them, or leave out the line that is wrong.",
        )  # fmt: skip


def make_distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Number the names that stand for several outputs, from the second on: cat, cat (2); the others stay."""
    all_names, used_names = set(names), set[str]()
    distinct = []
    for name in names:
        number, new = 1, name
        while new in used_names or (number > 1 and new in all_names):
            number += 1
            new = f"{name} ({number})"
        used_names.add(new)
        distinct.append(new)
    return tuple(distinct)


def describe_renamed(names: Sequence[str], distinct: Sequence[str]) -> str:
    """Describe which classes got another name, and which class keeps it; empty where none did."""
    changes = [
        f"{new} is number {number}, {old} number {list(names).index(old)}"
        for number, (old, new) in enumerate(zip(names, distinct, strict=True))
        if old != new
    ]
    return f"classes of one name were made distinct: {'; '.join(changes)}" if changes else ""


def read_class_map(path: Path, labels: tuple[str, ...], n_classes: int) -> dict[str, int]:
    """Read the output index, 0 to n_classes - 1, of each label from a CSV file with the columns label,index. Raises
    InputError where it cannot be read, has a label twice, lacks a label of the corpus, or names an output that the
    model does not have."""
    require_regular_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = table.fieldnames or ()
            if not {"label", "index"} <= set(columns):
                got, remedy = f"columns {', '.join(columns) or 'none'}", "Correct the first line of --class-map."
                raise InputError(f"the class map {path} lacks a column", got=got, rule=CLASS_MAP, remedy=remedy)
            lines = [(line["label"], int(line["index"])) for line in table]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise InputError("the class map cannot be read", got=f"{path}: {error}", rule=CLASS_MAP) from error
    require_distinct([label for label, _ in lines], f"the class map {path}")
    index = dict(lines)
    missing = [label for label in labels if label not in index]
    beyond = [label for label in labels if label in index and not 0 <= index[label] < n_classes]
    if missing or beyond:
        what = "does not cover the corpus" if missing else "names outputs that the model does not have"
        rule = f"one line for each label, with an index below {n_classes}"
        raise InputError(f"the class map {what}", got=", ".join((missing or beyond)[:5]), rule=rule)
    return {label: index[label] for label in labels}
