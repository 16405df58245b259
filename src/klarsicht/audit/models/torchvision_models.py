"""Architectures of torchvision with a state dict from a local file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torch import Tensor, nn

from klarsicht.ground.errors import ModelError, UsageError, unknown_name

PREFIX: Final = "torchvision:"

_WRAPPERS: Final = ("module.", "model.", "_orig_mod.")
"""What data-parallel, trainers and the compiler put before the names of a state dict."""


def imagenet_classes() -> tuple[str, ...] | None:
    """The thousand names in the order of the logits, as torchvision publishes them."""
    try:
        from torchvision.models._meta import _IMAGENET_CATEGORIES
    except ImportError:
        return None
    return tuple(_IMAGENET_CATEGORIES)


def load(spec: str, checkpoint: str | Path | None = None) -> tuple[nn.Module, Callable[..., Tensor] | None]:
    """The network of `torchvision:NAME@FILE` in evaluation mode, and the preprocessing published with it, if
    any.

    Raises UsageError for an unknown architecture or no checkpoint, ModelError for a file that does not fit.
    """
    name, _, file = spec.removeprefix(PREFIX).partition("@")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise unknown_name("torchvision architecture", name, known)
    path = file or checkpoint
    if not path:
        raise UsageError(
            "no checkpoint for the architecture",
            got=repr(spec),
            rule="nothing is ever downloaded",
            remedy=f"Write {PREFIX}{name}@FILE.pt",
        )
    state = state_dict(Path(path))
    return _filled(name, state, path), _preset(name)


def state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from a state dict or {"state_dict": ...}; pickled code is never run. Raises
    ModelError."""
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError("no such checkpoint", got=str(path)) from error
    except Exception as error:
        raise ModelError(
            "the checkpoint cannot be read safely",
            got=f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            remedy="Save the weights alone: torch.save(model.state_dict(), path)",
        ) from error
    inner = next(
        (held[k] for k in ("state_dict", "model") if isinstance(held, dict) and isinstance(held.get(k), dict)),
        held,
    )
    if not isinstance(inner, dict) or not inner or not all(isinstance(v, Tensor) for v in inner.values()):
        raise ModelError("the checkpoint holds no state dict", got=f"{path}: {type(held).__name__}")
    return _unwrapped(inner)


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            return _unwrapped({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def _filled(name: str, state: dict[str, Tensor], path: str | Path) -> nn.Module:
    module = torchvision.models.get_model(name, weights=None, num_classes=_n_classes(name, state, path))
    expected = module.state_dict()
    wrong = [f"{key} missing" for key in expected if key not in state]
    wrong += [f"{key} unexpected" for key in state if key not in expected]
    wrong += [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if wrong:
        raise ModelError(
            f"the checkpoint does not fit {name}",
            got=f"{path}: " + ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""),
        )
    module.load_state_dict(state)
    result: nn.Module = module.eval()
    return result


def _n_classes(name: str, state: dict[str, Tensor], path: str | Path) -> int:
    """As many logits as the last layer of the checkpoint has rows."""
    with torch.device("meta"):
        blank = torchvision.models.get_model(name, weights=None)
    head = [
        n for n, m in blank.named_modules() if isinstance(getattr(m, "weight", None), Tensor) and m.weight.ndim > 1
    ][-1]
    if f"{head}.weight" not in state:
        raise ModelError(f"the checkpoint does not fit {name}", got=f"{path}: {head}.weight missing")
    return int(state[f"{head}.weight"].shape[0])


def _preset(name: str) -> Callable[..., Tensor] | None:
    """The preprocessing of the first published weights of this architecture."""
    try:
        weights = next(iter(torchvision.models.get_model_weights(name)))
    except (ValueError, StopIteration):
        return None
    preset: Callable[..., Tensor] = weights.transforms()
    return preset
