"""Draws docs/figures/digits.png from what `python examples/clever_hans_digits.py OUT` left.

Threes of the suspect cluster and others, as they are and with the relevance for the class three over them.

python docs/figures/digits.py OUT
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from klarsicht import audit
from klarsicht.ground.pictures.colour_maps import overlay, resize_bilinear
from klarsicht.ground.run_folder.store import RunStore

SIDE, GAP, COUNT, LEFT, TOP = 72, 6, 6, 150, 34  # pixels


def strip(run: RunStore, rows: Sequence[int], images: Iterable[Image.Image]) -> np.ndarray:
    """Pictures of rows of a run over their overlays: uint8 (2 SIDE + GAP, width, 3)."""
    maps = run.array("maps")
    columns = []
    for row, image in zip(rows, images, strict=True):
        picture = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST))
        seen = overlay(picture, resize_bilinear(np.asarray(maps[row], np.float32), (SIDE, SIDE)))
        white = np.full((GAP, SIDE, 3), 255, np.uint8)
        columns += [np.concatenate([picture, white, seen]), np.full((2 * SIDE + GAP, GAP, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], 1)


def main(out: Path) -> None:
    run = RunStore.open(out / "run")
    three = audit.rank(run).of("3")
    corpus = run.table("corpus")
    labels, paths = corpus["label"].to_pylist(), corpus["path"].to_pylist()
    others = [row for row, label in enumerate(labels) if label == "3" and row not in set(three.rows)]
    named, plain = (
        strip(run, some, (Image.open(paths[row]) for row in some)) for some in (three.rows[:COUNT], others[:COUNT])
    )
    height, width = named.shape[:2]
    sheet = Image.new("RGB", (LEFT + 2 * width + 4 * GAP, TOP + height + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (block, told) in enumerate([
        (named, f"suspect cluster: {three.size} of {three.n} threes, z {three.z:.1f}"), (plain, "other threes"),
    ]):  # fmt: skip
        x = LEFT + i * (width + 3 * GAP)
        sheet.paste(Image.fromarray(block), (x, TOP))
        pen.text((x, TOP - 8), told, "black", font, anchor="ls")
    pen.text((LEFT - 12, TOP + SIDE / 2), "picture", "black", font, anchor="rm")
    pen.text((LEFT - 12, TOP + GAP + 1.5 * SIDE), "relevance for three", "black", font, anchor="rm")
    sheet.save(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
