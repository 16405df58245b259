"""An audit of a denoiser in the folder of `klarsicht burst audit`: strategies, their points and maps, and pictures."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.ground.pictures.encoded_pictures import png_bytes

STRATEGIES_FILE: Final = "strategies.json"
EXPLORER_FILE: Final = "explorer.json"
FAULTS: Final = (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile)  # of a file that is missing or damaged


def is_denoiser_audit(folder: Path) -> bool:
    """Whether a folder holds an audit of a denoiser."""
    with suppress(OSError):  # of a name that can be none
        return (folder / STRATEGIES_FILE).is_file()
    return False


@dataclass(frozen=True)
class DenoiserStrategies:
    """Audit of a denoiser. facts: content of strategies.json, with that of explorer.json."""

    folder: Path
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> DenoiserStrategies:
        """Open a folder of `klarsicht burst audit`. Raises InputError where a file is missing or cut short."""
        try:
            facts = [json.loads((folder / name).read_text("utf-8")) for name in (STRATEGIES_FILE, EXPLORER_FILE)]
            strategies = cls(folder, facts[0] | facts[1])
            if len(strategies.facts["files"]) != len(strategies.facts["bursts"]):
                raise ValueError("files that do not fit the bursts")
        except FAULTS as error:
            raise InputError(
                "the audit of a denoiser cannot be read", got=error, rule="a folder that `klarsicht burst audit` wrote",
                remedy="Make it again.",
            ) from error  # fmt: skip
        return strategies

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of each upright map."""
        return [self._read(number, "labels").shape for number in range(len(self.facts["files"]))]

    def read_labels(self, number: int) -> bytes:
        """Read the strategy of every point of the upright map of a burst, a byte each, row by row."""
        return np.ascontiguousarray(self._read(number, "labels")).tobytes()

    def draw_picture(self, number: int) -> bytes:
        """Encode the denoised picture of a burst as PNG."""
        return png_bytes(self._read(number, "picture"))

    def _read(self, number: int, name: str) -> NDArray[np.uint8]:
        """Read an upright array of a burst. Raises UsageError for a burst that is not there, and InputError."""
        if not 0 <= number < len(self.facts["files"]):
            raise UsageError("no such burst", got=number, rule=f"0 to {len(self.facts['files']) - 1}")
        file = self.folder / f"{self.facts['files'][number]}.npz"
        try:
            with np.load(file, allow_pickle=False) as arrays:
                values, orientation = arrays[name], int(arrays["orientation"])
        except FAULTS as error:
            raise InputError(f"{file.name} cannot be read", got=error, remedy="Make the audit again.") from error
        return values if name == "picture" else turn_upright(values, orientation)
