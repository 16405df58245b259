"""klarsicht: see which pixels a vision model used, find the ones it should not have used, clean them up."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
WINGS = ("audit", "burst", "bridge")


def __getattr__(name: str) -> Any:
    """Import a wing when it is first asked for; its public names are imported when they are used."""
    if name not in WINGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*WINGS, "__version__"]
