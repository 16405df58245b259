"""Names of classes: none stands twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from klarsicht.ground.errors import InputError


def require_distinct(names: Sequence[str], of: str) -> None:
    """Check that no name stands twice.

    Args:
        names: of classes, or labels.
        of: what lists them, in an error.

    Raises:
        InputError: one does; the message names it.
    """
    counts = Counter(names)
    if several := [f"{name!r} ({count} times)" for name, count in counts.items() if count > 1]:
        raise InputError(
            f"{of} has one label twice",
            got=", ".join(several[:5]) + (", ..." if len(several) > 5 else ""),
            rule="each label stands for one output of the model",
            remedy="Rename one of them, or leave out the line that is wrong.",
        )


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
    """Describe which classes got another name, and which one keeps it; empty where none did."""
    changes = [
        f"{new} is number {number}, {old} number {list(names).index(old)}"
        for number, (old, new) in enumerate(zip(names, distinct, strict=True))
        if old != new
    ]
    return f"classes of one name were made distinct: {'; '.join(changes)}" if changes else ""
