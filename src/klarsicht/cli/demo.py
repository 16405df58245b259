"""`klarsicht demo`: the "carton" shortcut of a real ImageNet network, from installed packages only."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from klarsicht.cli.echo import echo
from klarsicht.cli.options import number
from klarsicht.ground.machine import memory
from klarsicht.ground.ranges import DEMO_COUNT, DEMO_IMAGES, DEMO_WORKERS, SEED


def demo(
    out: Annotated[Path, typer.Option(help="A folder for photographs, run, report and demo.json.")] = Path("demo-out"),
    seed: Annotated[int, number(SEED, "Seed of crops, marked photographs and marks.")] = 0,
    images: Annotated[int, number(DEMO_IMAGES, "Photographs to audit.")] = DEMO_COUNT,
    workers: Annotated[int, number(DEMO_WORKERS, "Processes; 0: one for each core.")] = 0,
) -> None:
    """Find the shortcut of a real ImageNet network, and remove it.

    The photographs and the network come from installed packages.
    """
    from klarsicht.audit.demo import run_demo

    memory.keep_freed_memory()

    for line in run_demo(out, seed=seed, images=images, workers=workers, command=name_command()):
        echo(line)


def name_command() -> str:
    """Return the words that start klarsicht in this shell: its file where it is not on the path, as by `make demo`."""
    if shutil.which("klarsicht"):
        return "klarsicht"
    started = Path(sys.argv[0])
    return "python -m klarsicht" if started.suffix == ".py" else str(started)
