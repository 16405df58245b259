"""Torchvision architectures with a state dict from a local file."""

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
"""Prefixes that data-parallel wrappers, trainers and torch.compile add to the keys of a state dict."""


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
    return _load_weights(name, state, path), _preset(name)


def state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a state dict or {"state_dict": ...} from a file; pickled code is never run.

    Raises:
        ModelError: the file does not exist, cannot be read safely, or holds no state dict.
    """
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
    return _strip_prefixes(inner)


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            return _strip_prefixes({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def _load_weights(name: str, state: dict[str, Tensor], path: str | Path) -> nn.Module:
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
    """Read the number of classes from the rows of the last layer in the checkpoint."""
    with torch.device("meta"):
        blank = torchvision.models.get_model(name, weights=None)
    head = [
        n for n, m in blank.named_modules() if isinstance(getattr(m, "weight", None), Tensor) and m.weight.ndim > 1
    ][-1]
    if f"{head}.weight" not in state:
        raise ModelError(f"the checkpoint does not fit {name}", got=f"{path}: {head}.weight missing")
    return int(state[f"{head}.weight"].shape[0])


def _preset(name: str) -> Callable[..., Tensor] | None:
    """Find the preprocessing of the first published weights of this architecture."""
    try:
        weights = next(iter(torchvision.models.get_model_weights(name)))
    except (ValueError, StopIteration):
        return None
    preset: Callable[..., Tensor] = weights.transforms()
    return preset
