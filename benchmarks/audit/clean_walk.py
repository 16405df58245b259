"""The way through the sources from the command `audit clean` to the first image that it decodes, and to its end.

    python benchmarks/audit/clean_walk.py FOLDER        # a run of 24 classes is made there; two minutes

A reader of cleaning follows the functions of `cli` and `audit.cleaning`, each where it is called first, and looks at
each function of other rooms that one of them calls, but not at what that calls in turn. Counted are the stays in a file
on that way (one function after another of the same file is one stay), the files and rooms, the returns to a file that
was left before, and the climbs: stays in a room that stands above that of the stay before in the table of
tests/test_arrows.py. The files on the stack are those of all calls that are open when the image is decoded.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from importlib import import_module
from itertools import groupby, pairwise
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from tests.test_arrows import ARROWS, room

import klarsicht
from klarsicht import audit
from klarsicht.audit import cleaning
from klarsicht.cli import audit_cleaning
from klarsicht.ground.pictures import images
from same_results import CLASSES, NAMES, USED, write_corpus

SOURCE = Path(klarsicht.__file__).parents[1]
FOLLOWED = "klarsicht.cli", "klarsicht.audit.cleaning"
MODEL = f"from same_results import TagReader\n\n\ndef build():\n    return TagReader({CLASSES}).eval()\n"


def module_of(frame: FrameType) -> str:
    """Return the module of klarsicht that a frame is of; empty for other code, imports and expressions."""
    file = Path(frame.f_code.co_filename)
    inside = file.is_relative_to(SOURCE) and not frame.f_code.co_name.startswith("<")
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts) if inside else ""


def follow(run: Path) -> tuple[list[str], int, list[str]]:
    """Return the modules of the functions in the order of their first calls, how many of these are called before an
    image is decoded, and the modules on the stack then."""
    read: dict[object, str] = {}
    stack: list[str] = []
    before = 0

    def see(frame: FrameType, event: str, _: object) -> None:
        nonlocal before
        if event != "call" or not (name := module_of(frame)):
            return
        if name.startswith(FOLLOWED) or module_of(caller_of(frame)).startswith(FOLLOWED):
            read.setdefault(frame.f_code, name)
        if not stack and frame.f_code is images.decode.__code__:
            before = len(read)
            at: FrameType | None = frame
            while at is not None:
                stack.insert(0, module_of(at))
                at = at.f_back

    for found in pkgutil.walk_packages(cleaning.__path__, f"{cleaning.__name__}."):
        import_module(found.name)
    with audit.trusted_code():
        sys.setprofile(see)
        try:
            audit_cleaning.clean(run, [NAMES[USED]], out=run.parent / "correction")
        finally:
            sys.setprofile(None)
    return list(read.values()), before, [name for name in stack if name]


def caller_of(frame: FrameType) -> FrameType:
    """Return the nearest frame above that is of klarsicht, or the outermost."""
    at = frame.f_back or frame
    while at.f_back is not None and not module_of(at):
        at = at.f_back
    return at


def describe(read: list[str]) -> str:
    """Count stays, files, rooms, returns and climbs on a way."""
    stays, order = [name for name, _ in groupby(read)], list(ARROWS)
    levels, files = [order.index(room(name)) for name in stays], len(set(stays))
    climbs = sum(b > a for a, b in pairwise(levels))
    counts = f"{len(read)} functions, {len(stays)} stays, {files} files, {len(set(levels))} rooms"
    return f"{counts}, {len(stays) - files} returns, {climbs} climbs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(asked.folder)
    if not Path("run").exists():
        write_corpus(Path("data"), CLASSES)
        Path("network.py").write_text(MODEL)
        audit.quantify(audit.run(audit.AuditSettings(model="network.py:build", data="data", batch=64), "run"))
    read, before, stack = follow(Path("run").resolve())
    print(*(name for name, _ in groupby(read[:before])), sep="\n")
    print("", "on the stack:", *(name for name, _ in groupby(stack)), sep="\n  ")
    print(f"to the first decoding: {describe(read[:before])}; {len(set(stack))} files on the stack")
    print(f"to the end: {describe(read)}")


if __name__ == "__main__":
    main()
