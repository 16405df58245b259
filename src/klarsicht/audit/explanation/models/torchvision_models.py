"""Torchvision architectures with a state dict from a local file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from klarsicht.audit.explanation.models import weights
from klarsicht.audit.explanation.models.specifications import TORCHVISION_PREFIX
from klarsicht.ground.errors import UsageError, unknown_name


def imagenet_classes() -> tuple[str, ...] | None:
    """Read the 1000 ImageNet class names in the order of the logits from torchvision; None where it has none."""
    try:
        from torchvision.models._meta import _IMAGENET_CATEGORIES
    except ImportError:
        return None
    return tuple(_IMAGENET_CATEGORIES)


def load(spec: str, checkpoint: str | Path | None = None) -> tuple[nn.Module, Callable[..., Tensor] | None]:
    """Load the network of `torchvision:NAME@FILE` in evaluation mode, and its published preprocessing or None.

    Raises:
        UsageError: unknown architecture, or no checkpoint.
        ModelError: the file does not fit the architecture.
    """
    name, _, file = spec.removeprefix(TORCHVISION_PREFIX).partition("@")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise unknown_name("torchvision architecture", name, known)
    path = file or checkpoint
    if not path:
        raise UsageError(
            "no checkpoint for the architecture",
            got=repr(spec),
            rule="nothing is ever downloaded",
            remedy=f"Write {TORCHVISION_PREFIX}{name}@FILE.pt",
        )
    state = weights.read_state_dict(Path(path))
    classes = weights.rows_of(state, _head(name), name, path)
    blank = torchvision.models.get_model(name, weights=None, num_classes=classes)
    return weights.fill(blank, state, name, path), _preset(name)


def _head(name: str) -> str:
    """Find the last layer with a matrix of weights, which gives the classes."""
    with torch.device("meta"):
        blank = torchvision.models.get_model(name, weights=None)
    names: list[str] = [
        n for n, m in blank.named_modules() if isinstance(getattr(m, "weight", None), Tensor) and m.weight.ndim > 1
    ]
    return names[-1]


def _preset(name: str) -> Callable[..., Tensor] | None:
    """Find the preprocessing of the first published weights of this architecture."""
    try:
        published = next(iter(torchvision.models.get_model_weights(name)))
    except (ValueError, StopIteration):
        return None
    preset: Callable[..., Tensor] = published.transforms()
    return preset
