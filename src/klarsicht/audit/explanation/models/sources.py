"""Sources of models: what a specification stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn
from torchvision.transforms import InterpolationMode

from klarsicht.audit.explanation.models import (
    efficientnet_lite0,
    entry_point,
    exported_programs,
    huggingface_models,
    timm_models,
    torchvision_models,
)
from klarsicht.audit.explanation.models.entry_point import Transform
from klarsicht.audit.explanation.models.specifications import (
    HF_PREFIX,
    PROGRAM_ENDING,
    TIMM_PREFIX,
    TORCHVISION_PREFIX,
    check_specification,
)
from klarsicht.audit.explanation.models.torchvision_models import imagenet_classes
from klarsicht.audit.explanation.models.transforms import PhotographTransform
from klarsicht.audit.explanation.networks.eval_mode import set_evaluation_mode


@dataclass(frozen=True)
class Source:
    """A network as its source gives it.

    Attributes:
        module: the network.
        transform: its preprocessing, or None where the source has none.
        classes: names of its outputs, or None.
        spec: the specification.
        may_change: whether the network was made for this audit, so that it may be changed.
    """

    module: nn.Module
    transform: Transform | None
    classes: tuple[str, ...] | None
    spec: str
    may_change: bool = True


def open_source(spec: str | nn.Module | tuple[nn.Module, Transform | None], checkpoint: str | Path | None) -> Source:
    """Open the source of a specification, see `audit.explanation.models.classifier.load_model`.

    Raises:
        UsageError: a specification of no known form.
        MissingExtra, ModelError: see the sources.
    """
    if not isinstance(spec, str):
        module, transform = entry_point.as_pair(spec, type(spec).__name__)
        return Source(module, transform, None, f"object:{type(module).__name__}", may_change=False)
    for known, open_one in MODEL_SOURCES.items():
        if spec == known or (known.endswith(":") and spec.startswith(known)):
            return open_one(spec, checkpoint)
    check_specification(spec)
    if spec.endswith(PROGRAM_ENDING):
        return Source(exported_programs.load(Path(spec)), None, None, spec)
    module, transform = entry_point.load(spec)
    return Source(set_evaluation_mode(module), transform, None, spec)


def _open_lite0(spec: str, checkpoint: str | Path | None) -> Source:
    lite0 = PhotographTransform(256, 224, (0.498,) * 3, (0.502,) * 3, InterpolationMode.BICUBIC)
    return Source(efficientnet_lite0.load(), lite0, imagenet_classes(), spec)


def _open_torchvision(spec: str, checkpoint: str | Path | None) -> Source:
    module, preset = torchvision_models.load(spec, checkpoint)
    return Source(module, preset or PhotographTransform(), _imagenet_names(_out_features(module)), spec)


def _open_timm(spec: str, checkpoint: str | Path | None) -> Source:
    module, transform = timm_models.load(spec, checkpoint)
    return Source(module, transform, _imagenet_names(_out_features(module)), spec)


def _open_huggingface(spec: str, checkpoint: str | Path | None) -> Source:
    module, transform, names = huggingface_models.load(spec)
    return Source(module, transform, names, spec)


MODEL_SOURCES: Final[dict[str, Callable[[str, str | Path | None], Source]]] = {
    efficientnet_lite0.SPEC: _open_lite0,
    TORCHVISION_PREFIX: _open_torchvision,
    TIMM_PREFIX: _open_timm,
    HF_PREFIX: _open_huggingface,
}
"""Functions that open the sources with a name, or a prefix, of their own."""


def _imagenet_names(outputs: int) -> tuple[str, ...] | None:
    names = imagenet_classes()
    return names if names and outputs == len(names) else None


def _out_features(module: nn.Module) -> int:
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    return linears[-1].out_features if linears else 0
