"""Networks shipped with klarsicht: weights in 16 bits, and a card with their training and measured quality."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from klarsicht.burst.network.unet import COMPATIBLE_COLOURS
from klarsicht.ground.errors import unknown_name

FOLDER = Path(__file__).parents[1] / "weights"
NAMES = {"rgb": "swift", "mosaic": "swift-raw", "interpolated": "swift-interpolated"}
"""Name of the shipped network by the colour of the frames that it was trained for: of unet.COLOURS, or interpolated:
RGB frames interpolated from a mosaic, whose noise is not white."""
SERVED = {**COMPATIBLE_COLOURS, "interpolated": ("interpolated",)}
"""Colours of the frames for which a shipped network is selected, by its own."""


@dataclass(frozen=True)
class PretrainedNetwork:
    """A shipped network. colour: of the frames that it was trained for (NAMES)."""

    name: str
    colour: str

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.safetensors"

    @property
    def card_file(self) -> Path:
        """Path of the JSON card."""
        return FOLDER / f"{self.name}.json"

    @cached_property
    def card(self) -> dict[str, Any]:
        """Parsed card: parameters, sha256, steps, training, photographs with their licences, tables, limits."""
        return json.loads(self.card_file.read_text(encoding="utf-8"))


def list_networks() -> dict[str, PretrainedNetwork]:
    """List the shipped networks by name: those whose weights and card both exist."""
    found = (PretrainedNetwork(name, colour) for colour, name in NAMES.items())
    return {one.name: one for one in found if one.file.exists() and one.card_file.exists()}


def find_weights(colour: str) -> Path | None:
    """Return the weights of the shipped network for frames of a colour, or None. Interpolated frames are served by that
    for rgb, where none was trained for them."""
    found = next((one.file for one in list_networks().values() if colour in SERVED[one.colour]), None)
    return find_weights("rgb") if found is None and colour == "interpolated" else found


def resolve_checkpoint(checkpoint: str | Path) -> Path:
    """Resolve a path or a shipped network's name to a file. Raises UsageError for a name that is neither."""
    path, networks = Path(checkpoint), list_networks()
    if path.suffix or path.exists():
        return path
    if str(checkpoint) not in networks:
        raise unknown_name("network", str(checkpoint), networks)
    return networks[str(checkpoint)].file
