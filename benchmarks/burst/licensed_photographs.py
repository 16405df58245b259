"""Chooses the photographs to teach from a folder whose README.md lists them with their licences, and keeps some back.

    python benchmarks/burst/licensed_photographs.py FOLDER OUT [--taught OTHER]

The README has a table: file, kind, author, licence (where it is stated), source, size. OUT/taught and OUT/development
get the pictures and LICENCES.txt; every sixth picture is kept for development: networks are chosen on it, never taught.
--taught: the folder that `training_photographs.py` wrote; its pictures are taught, too. OUT/LEFT_OUT.txt names the rest
with the reason. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

EVERY = 6  # of so many pictures one is kept for development
SMALLEST_SIDE = 320  # pixels: a crop at two pixels of the photograph to one of a frame
FREE = ("CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "public domain", "US government work")
STOCK = "may be bought stock that its publisher could not give away"
WHOLE = "a licence for the whole repository, no word on who made the picture"
LEFT_OUT = {
    "18f-hire-us.jpg": STOCK,
    "pif-hero-new-farmers-copy.jpg": STOCK,
    "gb82-baby.jpg": STOCK,
    "gb82-girl.jpg": STOCK,
    "pif-nih-aou-trailer-adele-luta.jpg": WHOLE,
    "pif-smithsonian-transcription.jpg": WHOLE,
    "mdndo-gioia-pixel-ultrahdr.jpg": WHOLE,
    "mdndo-image1.jpg": WHOLE,
    "mdndo-image2.jpg": WHOLE,
    "mdndo-tree-bird.jpg": WHOLE,
    "maxrn-cat.jpg": "the list of its repository does not name it",
    "moi-computer-hands.jpg": "the same picture as rad-computer-hands.jpg",
}
"""Pictures that are left out by name, with the reason."""
LEFT_OUT_SETS = {
    "phl-": "CC0 is inferred from the date of a commit, not stated",
}
"""Pictures that are left out by the start of their names, with the reason."""


class Listed(NamedTuple):
    """A photograph as the table lists it."""

    name: str
    licence: str
    author: str
    source: str
    sides: tuple[int, int]


def listed(readme: str) -> Iterator[Listed]:
    """Read the rows of the table of photographs."""
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and (size := re.fullmatch(r"(\d+)x(\d+)", cells[5])):
            licence = re.sub(r"\s*\(.*", "", cells[3])
            yield Listed(cells[0], licence, cells[2], cells[4].replace("`", ""), (int(size[1]), int(size[2])))


def reason_against(one: Listed) -> str | None:
    """Return why a photograph is left out, or None."""
    if one.name in LEFT_OUT:
        return LEFT_OUT[one.name]
    for start, reason in LEFT_OUT_SETS.items():
        if one.name.startswith(start):
            return reason
    if unfree := [part for part in one.licence.split(" / ") if part not in FREE]:
        return f"{unfree[0]} asks for its text to be passed on"
    return None if min(one.sides) >= SMALLEST_SIDE else f"smaller than {SMALLEST_SIDE} pixels"


def copy_listed(folder: Path, chosen: list[Listed], out: Path) -> None:
    """Copy photographs, and append a line for each to LICENCES.txt: name, licence, author, source, SHA-256."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "LICENCES.txt").open("a", encoding="utf-8") as file:
        for one in chosen:
            shutil.copyfile(folder / one.name, out / one.name)
            digest = hashlib.sha256((folder / one.name).read_bytes()).hexdigest()
            file.write("\t".join((one.name, one.licence, one.author, one.source, digest)) + "\n")


def choose(folder: Path, out: Path, taught: Path | None) -> tuple[int, int, int]:
    """Fill OUT; return how many are taught, kept for development, left out."""
    table = sorted(listed((folder / "README.md").read_text("utf-8")))
    against = {one.name: reason for one in table if (reason := reason_against(one))}
    free = [one for one in table if one.name not in against]
    development = free[EVERY // 2 :: EVERY]
    out.mkdir(parents=True)
    if taught is not None:
        shutil.copytree(taught, out / "taught")
    copy_listed(folder, [one for one in free if one not in development], out / "taught")
    copy_listed(folder, development, out / "development")
    (out / "LEFT_OUT.txt").write_text("".join(f"{name}\t{why}\n" for name, why in against.items()), "utf-8")
    return len(free) - len(development), len(development), len(against)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--taught", type=Path)
    given = parser.parse_args()
    counts = choose(given.folder, given.out, given.taught)
    print("{} taught, {} for development, {} left out".format(*counts))
