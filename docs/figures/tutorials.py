"""Draws docs/figures/reading-*.png and tutorial-burst.png, the pictures of the tutorials and of "Read your result".

Images of a group, and others of its class, as they are and with the relevance for the class over them; a frame of the
burst, and the result. They are from what the tutorials "my classifier", "two classes and patients" and "a burst" left
in the folders where they ran.

python docs/figures/tutorials.py CLASSIFIER PATIENTS BURST
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import tifffile
from digits import GAP, strip
from PIL import Image, ImageDraw, ImageFont

from klarsicht import audit
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.results.verdicts import read_verdicts
from klarsicht.ground.run_folder.store import RunStore

TOP, COUNT = 26, 5  # pixels, and photographs of each kind
CORPORA = (("photographs", ""), ("scans.csv", "read_dicom.py:window"))  # of the two tutorials
CASES = (
    ("artifact", 0, "coffee"), ("natural", 0, "temple"), ("nothing", 0, "grass"), ("letter", 1, "effusion"),
    ("spine", 1, "clear"),
)  # fmt: skip


def draw(run: RunStore, corpus: Corpus, name: str) -> Image.Image:
    """Draw images of the group of a class that the verdict or the ranking names, beside others of the class."""
    verdict, entry = read_verdicts(run).of(name), audit.rank(run).of(name)
    group = verdict.rows if verdict.needs_review else entry.rows
    sources = corpus.source_numbers
    of_class = [row for row, label in enumerate(corpus.labels) if label == name]
    others = [row for row in of_class if sources[row] not in sources[list(group)]]
    chosen = [rows[:: max(len(rows) // COUNT, 1)][:COUNT] for rows in (group, others) if rows]
    strips = [strip(run, rows, (corpus.decode(row) for row in rows)) for rows in chosen]
    height, width = strips[0].shape[0], strips[0].shape[1] + 4 * GAP
    sheet = Image.new("RGB", (len(strips) * width, TOP + height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    texts = (f"{len(group)} of {verdict.n} images of {name}", "others of the class")
    for i, (block, text) in enumerate(zip(strips, texts, strict=False)):
        sheet.paste(Image.fromarray(np.ascontiguousarray(block)), (i * width, TOP))
        pen.text((i * width, TOP - 8), text, "black", font, anchor="ls")
    return sheet


def draw_burst() -> Image.Image:
    """Draw the first frame of a burst and the result, both under the curve of sRGB at twice their light."""
    light = np.concatenate([tifffile.imread("burst/0.tif"), tifffile.imread("clean.tif") / 65535], 1)
    return Image.fromarray((255 * (2 * light).clip(0, 1) ** (1 / 2.2)).round().astype(np.uint8))


if __name__ == "__main__":
    here, (*folders, burst) = Path(__file__).parent.resolve(), [Path(one).resolve() for one in sys.argv[1:]]
    for case, folder, name in CASES:
        os.chdir(folders[folder])  # paths of a run are relative to it
        corpus = audit.open_corpus(CORPORA[folder][0], decoder=CORPORA[folder][1])
        draw(RunStore.open("run"), corpus, name).save(here / f"reading-{case}.png")
    os.chdir(burst)
    draw_burst().save(here / "tutorial-burst.png")
