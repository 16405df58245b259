"""Weights of networks: state dicts read from files, and checks that the numbers can be audited."""

from __future__ import annotations

import copy
import pickle
import zipfile
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from klarsicht.audit.explanation.models.specifications import require_checkpoint
from klarsicht.ground.errors import ModelError
from klarsicht.ground.foreign import describe_error
from klarsicht.ground.machine.memory import is_out_of_memory

_WRAPPER_PREFIXES: Final = ("module.", "model.", "_orig_mod.")
"""Prefixes that data-parallel wrappers, trainers and torch.compile add to the keys of a state dict."""

_ENTRIES: Final = ("state_dict", "model_state_dict", "model")
"""Keys under which trainers store the state dict."""

SAVE: Final = "Save the weights alone: torch.save(model.state_dict(), path)"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a state dict or {"state_dict": ...} from a file; pickled code is never run. Raises ModelError
    where the file does not exist, cannot be read safely, or holds no state dict."""
    require_checkpoint(path)
    held = _read(path)
    inner = next((held[k] for k in _ENTRIES if isinstance(held, dict) and isinstance(held.get(k), dict)), held)
    if not isinstance(inner, dict) or not inner or not all(isinstance(v, Tensor) for v in inner.values()):
        raise ModelError("the checkpoint holds no state dict", got=f"{path}: {type(held).__name__}", remedy=SAVE)
    return _strip_prefixes(inner)


def _read(path: Path) -> Any:
    if _is_torchscript(path):
        rule, remedy = "its layers have no hooks", f"Build the network it was made from. {SAVE}"
        raise ModelError("a TorchScript program is not a state dict", got=str(path), rule=rule, remedy=remedy)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if _is_cut_short(path):
            got = f"{path}: {path.stat().st_size} bytes"
            raise ModelError("the checkpoint is cut short", got=got, remedy="Copy it again.") from error
        pickled = isinstance(error, pickle.UnpicklingError)  # whose message advises to run the code
        got = "it holds other things than tensors, or no pickle" if pickled else describe_error(error)
        raise ModelError("the checkpoint cannot be read safely", got=f"{path}: {got}", remedy=SAVE) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _is_cut_short(path: Path) -> bool:
    """Test for a file that begins as an archive, whose table of contents at its end is missing."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(path)


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPER_PREFIXES:
        if all(key.startswith(prefix) for key in state):
            return _strip_prefixes({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def fill(module: nn.Module, state: dict[str, Tensor], name: str, path: str | Path) -> nn.Module:
    """Fill a network of the architecture `name` with the weights of a file; evaluation mode. Raises ModelError, which
    lists the first keys or shapes that differ."""
    own_state = module.state_dict()
    wrong = [f"{key} missing" for key in own_state if key not in state]
    wrong += [f"{key} unexpected" for key in state if key not in own_state]
    wrong += [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own_state.items()
        if key in state and state[key].shape != value.shape
    ]
    if wrong:
        raise does_not_fit(name, path, wrong)
    module.load_state_dict(state)
    result: nn.Module = module.eval()
    return result


def does_not_fit(name: str, path: str | Path, wrong: list[str]) -> ModelError:
    """Make the error of a weights file that belongs to another architecture."""
    return ModelError(
        f"the checkpoint does not fit {name}",
        got=f"{path}: " + ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""),
        remedy="Name the architecture that the file was saved from.",
    )


def rows_of(state: dict[str, Tensor], layer: str, name: str, path: str | Path) -> int:
    """Read the number of outputs of a layer from the first axis of its weight; raises ModelError where the file lacks
    it, or it is no matrix."""
    weight = state.get(f"{layer}.weight")
    if weight is None or weight.ndim < 2:
        got = "missing" if weight is None else f"is of shape {tuple(weight.shape)}"
        raise does_not_fit(name, path, [f"{layer}.weight {got}"])
    return int(weight.shape[0])


def check_weights(module: nn.Module, spec: str) -> None:
    """Check that all weights exist and are finite; masks, which are buffers, may be infinite. Raises ModelError, which
    names the first wrong one and counts the others."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    lazy = UninitializedParameter | UninitializedBuffer
    absent = [key for key, value in tensors.items() if value.is_meta or isinstance(value, lazy)]
    if absent:
        got = f"{spec}: {absent[0]}" + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
        raise ModelError(
            "weights that do not exist yet", got=got, rule="a lazy layer, or one on the device meta, has none",
            remedy="Load the weights, or run one image through the network, before it is audited.",
        )  # fmt: skip
    broken = {key: reason for key, value in tensors.items() if (reason := _reason_broken(key, value, module))}
    if broken:
        key, reason = next(iter(broken.items()))
        more = f", and {len(broken) - 1} more tensors" if len(broken) > 1 else ""
        remedy = "Take a checkpoint from before the training diverged, or save in float32: half precision overflows."
        raise ModelError("weights that are not finite", got=f"{spec}: {key} holds {reason}{more}", remedy=remedy)


def _reason_broken(key: str, value: Tensor, module: nn.Module) -> str:
    if not value.is_floating_point():
        return ""
    nan, infinite = int(value.isnan().sum()), int(value.isinf().sum())
    if not isinstance(value, nn.Parameter) and "running_" not in key:
        infinite = 0
    found = [f"{n} {what}" for n, what in ((nan, "NaN"), (infinite, "infinite")) if n]
    return f"{' and '.join(found)} of {value.numel()} numbers" if found else ""


def in_float32(module: nn.Module) -> nn.Module:
    """Return the network with weights of half precision, bfloat16 or less converted to float32, as a copy; relevance is
    checked to six digits, and they have three. A network without such weights is returned as it is."""
    held = [*module.parameters(), *module.buffers()]
    if not any(value.is_floating_point() and value.dtype.itemsize < 4 for value in held):
        return module
    return copy.deepcopy(module).float()
