"""Architectures of timm with a state dict from a local file, and the preprocessing that timm records for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from klarsicht.audit.explanation.models import weights
from klarsicht.audit.explanation.models.specifications import TIMM_PREFIX
from klarsicht.ground import optional
from klarsicht.ground.errors import ModelError, UsageError, unknown_name
from klarsicht.ground.foreign import foreign_errors

TIMM_EXTRA: Final = "timm"


def load(spec: str, checkpoint: str | Path | None = None) -> tuple[nn.Module, Callable[..., Tensor]]:
    """Load the network of `timm:NAME@FILE` in evaluation mode, and its transform (resolve_data_config).

    Outputs and input channels are counted in the file.

    Raises:
        MissingExtra: timm is not installed.
        UsageError: unknown architecture, or no checkpoint.
        ModelError: the file does not fit the architecture.
    """
    timm: Any = optional.load("timm", TIMM_EXTRA)
    name, _, file = spec.removeprefix(TIMM_PREFIX).partition("@")
    if not timm.is_model(name):
        raise unknown_name("timm architecture", name, timm.list_models())
    path = file or checkpoint
    if not path:
        raise UsageError(
            "no checkpoint for the architecture",
            got=repr(spec),
            rule="nothing is ever downloaded",
            remedy=f"Write {TIMM_PREFIX}{name}@FILE.safetensors",
        )
    state = weights.read_state_dict(Path(path))
    with foreign_errors(ModelError, "timm cannot build the network", of=spec):
        module = timm.create_model(name, pretrained=False, **_shape(timm, name, state, path))
        transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=module), is_training=False)
    return weights.fill(module, state, name, path), transform


def _shape(timm: Any, name: str, state: dict[str, Tensor], path: str | Path) -> dict[str, int]:
    """Count outputs and input channels in the weights of the last and the first layer that timm names."""
    recorded = timm.models.get_pretrained_cfg(name)
    heads, first = (_names(getattr(recorded, field, None)) for field in ("classifier", "first_conv"))
    shape = {"num_classes": weights.rows_of(state, heads[0], name, path)} if heads else {}
    kernel = state.get(f"{first[0]}.weight") if first else None
    return shape if kernel is None or kernel.ndim != 4 else shape | {"in_chans": int(kernel.shape[1])}


def _names(indices: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (indices,) if isinstance(indices, str) else tuple(indices or ())
