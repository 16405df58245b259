"""Sources of models: what a specification stands for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from torch import nn

from klarsicht.audit.explanation.models import entry_point, exported_programs, huggingface_models
from klarsicht.audit.explanation.models.architectures import load_lite0, load_timm, load_torchvision
from klarsicht.audit.explanation.models.entry_point import Source, Transform
from klarsicht.audit.explanation.models.specifications import (
    HF_PREFIX,
    LITE0,
    PROGRAM_ENDING,
    TIMM_PREFIX,
    TORCHVISION_PREFIX,
    check_specification,
)
from klarsicht.audit.explanation.networks.eval_mode import set_evaluation_mode

MODEL_SOURCES: Final[dict[str, Callable[[str, str | Path | None], Source]]] = {
    LITE0: load_lite0,
    TORCHVISION_PREFIX: load_torchvision,
    TIMM_PREFIX: load_timm,
    HF_PREFIX: huggingface_models.load,
}
"""Functions that load the sources with a name, or a prefix, of their own."""

MODEL_FOLDERS: Final = {"correction.json": "klarsicht.audit.cleaning.corrections.corrected_model:load_corrected"}
"""Functions (folder, device, classifier) -> Classifier that open a folder which holds a file of this name. They are
imported when they are needed: a network from elsewhere loads no room above this one."""


def open_source(spec: str | nn.Module | tuple[nn.Module, Transform | None], checkpoint: str | Path | None) -> Source:
    """Open the source of a specification, see `load_model`; raises UsageError for one of no known form, and the errors
    of the source."""
    if not isinstance(spec, str):
        module, transform = entry_point.as_pair(spec, type(spec).__name__)
        return _of_pair(module, transform, f"object:{type(module).__name__}")
    for known, load in MODEL_SOURCES.items():
        if spec == known or (known.endswith(":") and spec.startswith(known)):
            return load(spec, checkpoint)
    check_specification(spec)
    if spec.endswith(PROGRAM_ENDING):
        return Source(exported_programs.load(Path(spec)), None, None, spec)
    module, transform = entry_point.load(spec)
    return _of_pair(set_evaluation_mode(module), transform, spec)


def _of_pair(module: nn.Module, transform: Transform | None, spec: str) -> Source:
    """Make the source of a network and a transform that a user built, also with transformers."""
    return Source(module, huggingface_models.as_transform(transform), huggingface_models.names_of(module), spec)


def find_opener(spec: str) -> Callable[..., Any] | None:
    """Return the function of MODEL_FOLDERS that opens a specification, where that is a folder of a registered kind."""
    named = (function for record, function in MODEL_FOLDERS.items() if (Path(spec) / record).is_file())
    if (function := next(named, None)) is None:
        return None
    module, _, name = function.partition(":")
    opener: Callable[..., Any] = getattr(import_module(module), name)
    return opener
