"""Several labels of one image in a manifest: separated in the cell `label`, or columns of 0 and 1 named by classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from klarsicht.ground.errors import CorpusError, UsageError

ALL_COLUMNS: Final = "all"  # every column that is not the manifest's own
JOINT: Final = ";"  # joins the labels of an image that stand in columns
CARRIED: Final = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}


@dataclass(frozen=True)
class LabelCells:
    """Form of the labels in a manifest, by default one for each image: a separator of the labels of a cell, or columns
    of 0 and 1 named by classes, in place of the column `label`; ALL_COLUMNS for every column that is not the manifest's
    own."""

    separator: str = ""
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.separator and self.columns:
            raise UsageError(
                "labels are given twice", got=f"the separator {self.separator!r} and columns {', '.join(self.columns)}",
                rule="labels stand in one cell, or in columns", remedy="Give --label-separator or --label-columns.",
            )  # fmt: skip

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none."""
        return bool(self.separator or self.columns)

    @property
    def joint(self) -> str:
        """Text between the labels of an image as they are kept."""
        return JOINT if self.columns else self.separator

    def choose_columns(self, known: Sequence[str], own: Iterable[str]) -> tuple[str, ...]:
        """Return the class columns among the `known` columns of a manifest, of which `own` have a meaning of their own;
        raises CorpusError where one is absent, or its name contains JOINT."""
        rest = tuple(name for name in known if name not in own)
        own_columns = rest if self.columns == (ALL_COLUMNS,) else self.columns
        absent = [name for name in own_columns if name not in known]
        if absent or (self.columns and not own_columns):
            raise CorpusError(
                "the manifest lacks a column of --label-columns", got=", ".join(absent) or ALL_COLUMNS,
                rule=f"its class columns may be {', '.join(rest) or 'none'}",
            )  # fmt: skip
        if joined := [name for name in own_columns if JOINT in name]:
            raise CorpusError("a class column could be mistaken for two", got=joined[0], rule=f"no {JOINT} in its name")
        return own_columns


def split_labels(cell: str, separator: str) -> tuple[str, ...]:
    """Split a cell into its distinct labels, in their order; without a separator the cell is the label."""
    if not separator:
        return (cell,)
    return tuple(dict.fromkeys(part for one in cell.split(separator) if (part := one.strip())))


def join_columns(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Join the names of the columns that are 1 in each line; a blank stands for 0, and any other value raises
    CorpusError."""
    carried = {name: [_parse_mark(text, name, line) for line, text in enumerate(values, start=2)]
               for name, values in columns.items()}  # fmt: skip
    lines = range(len(next(iter(carried.values()))))
    return [JOINT.join(name for name, marks in carried.items() if marks[i]) for i in lines]


def _parse_mark(text: str, column: str, line: int) -> bool:
    if (mark := CARRIED.get(text.strip().lower())) is None:
        raise CorpusError(
            f"the class column {column} holds neither 0 nor 1", got=f"{text!r} in line {line}",
            rule="1 where the image carries the class, 0 or blank where it does not",
            remedy="Correct it, or choose other --label-columns.",
        )  # fmt: skip
    return mark
