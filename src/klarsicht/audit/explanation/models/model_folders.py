"""Folders that hold a model with what a later room of the audit made of it; each kind has a record by its name.

The function that opens a kind is named here and imported when such a folder is met: whoever loads a network from
elsewhere loads no room above this one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

MODEL_FOLDERS: Final = {"correction.json": "klarsicht.audit.cleaning.corrections.corrected_model:load_corrected"}
"""Functions of a folder and a device that open the folders which hold a file of this name."""


def find_opener(spec: str) -> Callable[..., Any] | None:
    """Return the function (folder, device) -> Classifier that opens a specification, where that is a folder of a
    registered kind."""
    named = (function for record, function in MODEL_FOLDERS.items() if (Path(spec) / record).is_file())
    if (function := next(named, None)) is None:
        return None
    module, _, name = function.partition(":")
    opener: Callable[..., Any] = getattr(import_module(module), name)
    return opener
