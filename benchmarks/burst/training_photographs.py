"""Collects the photographs that networks are trained on from two Debian packages, with their licences.

    apt-get install budgie-backgrounds lomiri-wallpapers-16.04
    python benchmarks/burst/training_photographs.py photographs/ [--root FOLDER]

Only CC0 and CC BY, so that the weights may be given away: what the packages' copyright files put under another licence
(five pictures are CC BY-SA 4.0) stays out. Writes the pictures and LICENCES.txt. Nothing is downloaded.
--root: the folder into which the archives were unpacked (`dpkg-deb -x`), instead of installed.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path("/")
DOCUMENTS = Path("usr/share/doc")
FREE = ("CC0-1.0", "CC-BY-4.0")
BACKGROUNDS = {
    "budgie-backgrounds": (Path("usr/share/backgrounds/budgie"), "{}"),
    "lomiri-wallpapers-16.04": (Path("usr/share/backgrounds"), "16.04/{}"),
}
"""Folders of each package's pictures, and their names in its copyright file."""


def licences(copyright_file: Path) -> list[tuple[list[str], str, str]]:
    """(file patterns, licence, holder) of each paragraph, as Debian's copyright files have them."""
    paragraphs = re.split(r"\n\s*\n", copyright_file.read_text("utf-8"))
    fields = [dict(re.findall(r"^(Files|License|Copyright):\s*((?:.|\n )*)", p, re.M)) for p in paragraphs]
    return [
        (f["Files"].split(), f["License"].splitlines()[0].strip(), " ".join(f["Copyright"].split()))
        for f in fields
        if {"Files", "License", "Copyright"} <= f.keys()
    ]


def pictures(package: str, root: Path) -> Iterator[tuple[Path, str, str]]:
    """(file, licence, holder) of what the package installed; a later paragraph overrides an earlier one."""
    folder, naming = BACKGROUNDS[package]
    listed = licences(root / DOCUMENTS / package / "copyright")
    for file in sorted((root / folder).glob("*.jpg")):
        matching = [p for p in listed if any(fnmatch(naming.format(file.name), pattern) for pattern in p[0])]
        if matching:
            yield file, *matching[-1][1:]


def collect(out: Path, root: Path = ROOT) -> list[str]:
    """Copies the free ones; a line for each: name, licence, holder, package, SHA-256."""
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for package in BACKGROUNDS:
        if not (root / DOCUMENTS / package).is_dir():
            sys.exit(f"{package} is not installed; try: apt-get install {' '.join(BACKGROUNDS)}")
        for file, licence, holder in pictures(package, root):
            if licence in FREE:
                shutil.copyfile(file, out / file.name)
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                lines.append(f"{file.name}\t{licence}\t{holder}\t{package}\t{digest}")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    target = given.out
    collected = collect(target, given.root)
    (target / "LICENCES.txt").write_text("\n".join(collected) + "\n", "utf-8")
    print(f"{len(collected)} photographs in {target}")
