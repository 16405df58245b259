"""Import of optional packages where they are used, with one error that names the missing extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from klarsicht.ground.errors import MissingExtra
from klarsicht.ground.machine.memory import is_out_of_memory


def load(package: str, extra: str) -> Any:
    """Import an optional module. Raises MissingExtra where it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        if is_out_of_memory(error):
            raise
        what = f"the package {package.split('.')[0]} is not installed"
        raise MissingExtra(what, remedy=f"{install_command(extra)}.") from error


def install_command(extra: str) -> str:
    """Return the command that installs an extra, as a remedy names it. klarsicht is in no package index, so pip needs
    the folder of its sources."""
    return f"In a clone of klarsicht: pip install '.[{extra}]'"
