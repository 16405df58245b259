"""The networks that come with klarsicht: weights in 16 bits, and a card that says what they were made of and reach."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from klarsicht.burst.network.unet import SERVED
from klarsicht.ground.errors import unknown_name

FOLDER = Path(__file__).parents[1] / "weights"
NAMES = {"rgb": "swift", "mosaic": "swift-raw"}
"""By the colour that the network was made for."""


@dataclass(frozen=True)
class Shipped:
    """One of them. colour: of the frames it was made for."""

    name: str
    colour: str

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.safetensors"

    @property
    def written(self) -> Path:
        """The card's file."""
        return FOLDER / f"{self.name}.json"

    @cached_property
    def card(self) -> dict[str, Any]:
        """parameters, sha256, steps, training, photographs with their licences, tables, limits."""
        card: dict[str, Any] = json.loads(self.written.read_text(encoding="utf-8"))
        return card


def networks() -> dict[str, Shipped]:
    """By name; those whose weights are there, and their card."""
    found = (Shipped(name, colour) for colour, name in NAMES.items())
    return {one.name: one for one in found if one.file.exists() and one.written.exists()}


def serving(colour: str) -> Path | None:
    """The weights for frames of a colour, if any come along."""
    return next((one.file for one in networks().values() if colour in SERVED[one.colour]), None)


def resolved(checkpoint: str | Path) -> Path:
    """A network's file by its path, or by the name of one that comes along.

    Raises UsageError for a name without a suffix that is neither.
    """
    path, known = Path(checkpoint), networks()
    if path.suffix or path.exists():
        return path
    if str(checkpoint) not in known:
        raise unknown_name("network", str(checkpoint), known)
    return known[str(checkpoint)].file
