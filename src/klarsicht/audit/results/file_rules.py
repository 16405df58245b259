"""Rule by which the files of a class differ from all others, without a pixel: its words, and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from klarsicht.audit.results.words import format_count, join_words

MIRRORED: Final = 2  # classes that mirror each other
ASKED: Final = "Size, colour, depth, compression and tags of the files alone identify no class."
LEAST_AREA: Final = 0.7  # lower end of the area from which on files are said to identify a class


@dataclass(frozen=True)
class FileRule:
    """Rule of a shallow tree on properties of files, and how well such trees tell a class.

    Attributes:
        name: the class; JSON calls it `class`.
        properties: names of the properties that the tree uses.
        conditions: of the leaf that holds most of the class and least of the others, in words: "width above 300".
        own, n: files of the class that fulfil them, and all that were read.
        others, m: the same of other classes.
        area, low, high: area under the ROC curve of trees that were fitted on other files, with its 95 % interval.
    """

    name: str
    properties: tuple[str, ...]
    conditions: tuple[str, ...]
    own: int
    n: int
    others: int
    m: int
    area: float
    low: float
    high: float

    @property
    def identifies(self) -> bool:
        """Whether files alone identify the class."""
        return bool(self.properties) and self.low >= LEAST_AREA

    def describe(self) -> str:
        """Say which properties identify the class, how well, and by which rule."""
        words = join_words(self.properties)
        verb = "identifies" if len(self.properties) == 1 else "identify"
        share = f"{self.own:,} of {format_count(self.n, 'file')} of {self.name} have {join_words(self.conditions)}"
        return (
            f"{words[0].upper()}{words[1:]} of the files alone {verb} {self.name} (AUC {self.area:.3f}, {self.low:.3f} "
            f"to {self.high:.3f}): {share}, and {self.others:,} of {self.m:,} others."
        )

    def to_json(self) -> dict[str, Any]:
        flat = asdict(self)
        return {"class": flat.pop("name"), **flat}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read a record of `to_json`."""
        words = {key: tuple(record[key]) for key in ("properties", "conditions")}
        return cls(record["class"], **{key: value for key, value in record.items() if key != "class"} | words)


def describe_file_rules(rules: Sequence[FileRule] | None) -> list[str]:
    """Say which classes files alone identify; of two classes, which mirror each other, one, and where none is, that
    it was asked. Nothing of None, where no file was read."""
    if rules is None:
        return []
    said = [rule.describe() for rule in rules if rule.identifies][: 1 if len(rules) == MIRRORED else None]
    return said or [ASKED]
