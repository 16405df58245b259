"""Photographs by kind, chosen by their files' names alone: two groups that share no photograph.

Of DATA/imagenet-sample, a photograph of each of 500 classes; frames of 144 x 192 pixels. `first` (six of a kind) was
measured with several states of the networks, `second` (eight of a kind) was chosen later, before it was looked at.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from klarsicht.burst.synthesis.photographs import PhotographSet, read_folder
from klarsicht.burst.synthesis.scenes import Geometry

SMALL = Geometry(scale=2, height=144, width=192, reach=8)
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "first": {
        "fine structure": ("bookshop", "library", "mosque", "palace", "tile_roof", "window_screen"),
        "foliage, fur": ("cauliflower", "custard_apple", "echidna", "greenhouse", "porcupine", "rapeseed"),
        "lights in the dark": ("candle", "cinema", "home_theater", "lighter", "matchstick", "torch"),
        "people": ("academic_gown", "barbershop", "groom", "horizontal_bar", "kimono", "sombrero"),
    },
    "second": {
        "fine structure": (
            "altar", "bell_cote", "cliff_dwelling", "dome", "grocery_store", "maze",
            "picket_fence", "typewriter_keyboard",
        ),
        "foliage, fur": ("artichoke", "badger", "briard", "cardoon", "hay", "head_cabbage", "otter", "wild_boar"),
        "lights in the dark": (
            "cab", "carousel", "digital_clock", "entertainment_center", "monitor", "restaurant",
            "space_shuttle", "volcano",
        ),
        "people": (
            "balance_beam", "barbell", "bonnet", "brass", "fur_coat", "jersey", "military_uniform", "rugby_ball",
        ),
    },
}  # fmt: skip


def read_group(folder: Path, group: str) -> PhotographSet:
    """Read the photographs of a group, in its order, from files NUMBER_NAME.ending."""
    names = [name for kind in GROUPS[group].values() for name in kind]
    with tempfile.TemporaryDirectory() as chosen:
        for k, name in enumerate(names):
            (file,) = [f for f in folder.iterdir() if f.stem.split("_", 1)[-1] == name]
            (Path(chosen) / f"{k:02}{file.suffix}").symlink_to(file.resolve())
        return read_folder(Path(chosen), SMALL)
