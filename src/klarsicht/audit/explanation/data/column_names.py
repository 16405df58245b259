"""Names of the columns of a table of images, or of the arrays of a file of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ColumnNames:
    """Names that a user gives to columns; "" for the usual ones of the format.

    Attributes:
        path: paths, or the pictures themselves.
        label: labels.
        source: origins that images may share.
    """

    path: str = ""
    label: str = ""
    source: str = ""

    @property
    def given_names(self) -> dict[str, str]:
        """Names that were given, by the usual name of a manifest."""
        return {usual: name for usual, name in vars(self).items() if name}


DEFAULT_NAMES: Final = ColumnNames()
