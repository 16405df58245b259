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
        remedy = f"pip install 'klarsicht[{extra}]'"
        raise MissingExtra(f"the package {package.split('.')[0]} is not installed", remedy=remedy) from error
