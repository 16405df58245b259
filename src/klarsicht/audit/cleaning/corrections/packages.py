"""Save and load a correction, and export the corrected model so that it runs without klarsicht.

    FOLDER/correction.json      the record: kind, choice, run, class and model
    FOLDER/erasure.npz          an erasure, or several: arrays are called 0/left, 0/right, ..., 1/left, ...; the kernel,
                                threshold and reference of a locator, where located windows are filled; or
    FOLDER/weights.safetensors  the weights that training changed
    FOLDER/model.pt2            the corrected model, by torch.export: torch.export.load(FILE).module()(images)
    FOLDER/corrected.py         where a model cannot be exported: corrected(module), with numpy and torch alone

The record is written last, with the SHA-256 of the parts and of the artifact beside them: a folder without it, or with
other parts, is refused.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import BaseModel, Field
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clarc import Erasure, Gate, WhenPredicted
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection, LayerCorrection
from klarsicht.audit.cleaning.corrections.feature_inpainting import FeatureInpainting
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.outputs import LogitsNetwork
from klarsicht.ground.config import require_shape
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.run_folder.manifest import FORMAT, require_format, to_json
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.erasure import Eraser

PACKAGE_REMEDY: Final = "Copy the folder again, or make it again with `klarsicht audit clean`."
REMAKE_REMEDY: Final = "Make it again with this version: `klarsicht audit clean`."
RECORD, EXPORTED, LOADER = "correction.json", "model.pt2", "corrected.py"
PART_FILES: Final = ("erasure.npz", "weights.safetensors")
ARTIFACT: Final = ("artifact.json", "artifact.npz")  # written beside, before the record
STANDALONE: Final = '''"""The correction in this folder, without klarsicht: corrected(module) changes it for good."""

import json
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d
from torch.overrides import TorchFunctionMode

HERE = Path(__file__).parent
IN_PLACE = {torch.Tensor.add_, torch.Tensor.__iadd__, torch.ops.aten.add_.Tensor}
ADDITIONS = IN_PLACE | {
    torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__, torch.ops.aten.add.Tensor,
}


class Sum(TorchFunctionMode):
    """Changes one sum of two activations: the number `left` among those that are computed."""

    def __init__(self, left, change):
        super().__init__()
        self.left, self.change = left, change

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        a, b = (*args, None, None)[:2]
        both = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        if function in ADDITIONS and both and a.is_floating_point() and 2 < a.ndim == b.ndim:
            self.left -= 1
            if not self.left:
                return output.copy_(self.change(output)) if function in IN_PLACE else self.change(output)
        return output


def erase(a, parts):
    """a - s g (L R (a - z) + o) at every position; see klarsicht.audit.cleaning.corrections.clarc."""

    def tensor(k):
        return torch.as_tensor(parts[k], dtype=a.dtype, device=a.device)

    axis = int(parts["channels"]) if "channels" in parts else 1 if a.shape[1] == len(parts["reference"]) else -1
    first = a.ndim > 3 and axis == 1
    last = a.movedim(1, -1) if first else a
    flat = last[:, None] if last.ndim == 2 else last.flatten(1, -2)
    before = len(parts["leading_reference"]) if "leading_reference" in parts else 0
    positions = flat[:, before:]
    measured = positions.mean(1, keepdim=True) if parts["pooled"] else positions
    taken = (measured - tensor("reference")) @ tensor("right").T @ tensor("left").T
    taken = (taken + tensor("offset") if "offset" in parts else taken).expand_as(positions)
    if before:  # a class token and registers, each with an eraser of its own
        token = flat[:, :before] - tensor("leading_reference")
        amounts = torch.einsum("btc,tkc->btk", token, tensor("leading_right"))
        tokens = torch.einsum("btk,tck->btc", amounts, tensor("leading_left"))
        taken = torch.cat([tokens + tensor("leading_offset") if "leading_offset" in parts else tokens, taken], 1)
    weight = float(parts["strength"])
    if "weight" in parts:
        if "axes" in parts:
            gate = (features(positions, tensor("axes")) @ tensor("weight") + float(parts["bias"]) > 0).to(a.dtype)
        else:
            gate = torch.sigmoid(positions.mean(1) @ tensor("weight") + float(parts["bias"]))
        weight = weight * gate[:, None, None]
    shaped = (flat - weight * taken).reshape(last.shape)
    return shaped.movedim(-1, 1) if first else shaped


def features(a, axes):
    """Means, maxima and correlations of axes over positions; see klarsicht.audit.cleaning.corrections.clarc."""
    along = a @ axes
    mean = along.mean(1)
    centred = along - mean[:, None]
    covariance = centred.transpose(1, 2) @ centred / a.shape[1]
    deviation = covariance.diagonal(dim1=1, dim2=2).clamp_min(1e-9).sqrt()
    correlation = covariance / (deviation[:, :, None] * deviation[:, None])
    rows, columns = torch.triu_indices(axes.shape[1], axes.shape[1], 1, device=a.device)
    return torch.cat([mean, along.amax(1) - mean, correlation[:, rows, columns]], 1)


def inpaint(a, parts):
    """Fill windows of high score from around them; see klarsicht.audit.cleaning.corrections.feature_inpainting."""
    kernel, reference = (torch.as_tensor(parts[k], dtype=a.dtype, device=a.device) for k in ("kernel", "reference"))
    first, aspect = int(parts["channels"]) == 1, float(parts["aspect"])
    grid, before = (a if first else a.movedim(-1, 1)), 0
    if a.ndim == 3:
        height = max(1, int((a.shape[1] * aspect) ** 0.5 + 1e-6))
        width = max(1, min(round(height / aspect), a.shape[1] // height))
        before = a.shape[1] - height * width
        grid = a[:, before:].transpose(1, 2).reshape(len(a), -1, height, width)
    h, w = kernel.shape[-2:]
    scores = conv2d(grid.detach() - reference[:, None, None], kernel[None], padding=(h // 2, w // 2))
    located = (scores > float(parts["threshold"])).float()
    whole = torch.ones(1, 1, h, w, device=a.device)
    mask = conv_transpose2d(located, whole, padding=(h // 2, w // 2)) > 0.5
    known = (~mask).to(a.dtype)
    filled = grid * known
    for _ in range(max(h, w)):
        around = avg_pool2d(known, 3, 1, 1)
        reached = (around > 0) & (known == 0)
        filled = torch.where(reached, avg_pool2d(filled, 3, 1, 1) / around.clamp_min(1e-6), filled)
        known = torch.where(reached, torch.ones_like(known), known)
    filled = torch.where(known == 0, reference[:, None, None], filled)
    filled = torch.where(mask, filled, grid)
    if a.ndim == 4:
        return filled if first else filled.movedim(1, -1)
    return torch.cat([a[:, :before], filled.flatten(2).movedim(1, 2)], 1)


def corrected(module):
    weights = HERE / "weights.safetensors"
    if weights.exists():
        from safetensors.torch import load_file

        module.load_state_dict(load_file(str(weights)), strict=False)
        return module
    erasures = {}
    for name, value in np.load(HERE / "erasure.npz").items():
        number, _, key = name.rpartition("/")
        erasures.setdefault(int(number or 0), {})[key] = value
    for number in sorted(erasures):
        correct(module, erasures[number])
    return module


def attach(module, name, change):
    """Change the input of a layer, or the sum MODULE:sumN; return the handles."""
    inside, total, number = name.rpartition(":sum")
    layer = module.get_submodule(inside if total else name)
    if not total:
        return [layer.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))]
    running = []

    def begin(*_):
        running.append(Sum(int(number), change))
        running[-1].__enter__()

    def end(*_):
        if running:
            running.pop().__exit__(None, None, None)

    return [layer.register_forward_pre_hook(begin), layer.register_forward_hook(end, prepend=True, always_call=True)]


def correct(module, parts):
    name, looking = str(parts["layer"]), []

    def change(a):
        return inpaint(a, parts) if "kernel" in parts else erase(a, parts)

    if "target" not in parts:
        attach(module, name, change)
        return

    def again(root, inputs, answer):
        taken = answer.argmax(1) == int(parts["target"])
        if looking or not taken.any():
            return answer
        looking.extend(attach(module, name, change))
        try:
            second = root(inputs[0][taken])
        finally:
            while looking:
                looking.pop().remove()
        return answer.index_put((taken.nonzero()[:, 0],), second)

    module.register_forward_hook(again)
'''


def save_correction(
    folder: Path,
    correction: Correction,
    facts: dict[str, Any],
    classifier: Classifier | None = None,
    example: Tensor | None = None,
) -> dict[str, Any]:
    """Write a correction, and with a model and an example image (C, H, W) the corrected model as well.

    Args:
        folder: where it is written; an earlier correction there is replaced.
        correction: the correction.
        facts: content of the record.
        classifier, example: the model and an image to export it with, or None.

    Returns:
        the record.

    Raises:
        StoreError, DiskFull: the folder cannot be written.
    """
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        for stale in (*PART_FILES, EXPORTED, LOADER):
            (folder / stale).unlink(missing_ok=True)
    _write(folder, correction)
    write_atomically(folder / LOADER, STANDALONE.encode())
    told = {} if classifier is None or example is None else export_model(folder, correction, classifier, example)
    sums = {"files": _digests(folder, PART_FILES), "artifact files": _digests(folder, ARTIFACT)}
    record = {"format": FORMAT} | facts | told | sums
    write_atomically(folder / RECORD, to_json(record))
    return record


def _write(folder: Path, correction: Correction) -> None:
    if isinstance(correction, RetrainedWeights):
        state = {name: value.contiguous() for name, value in correction.state.items()}
        write_atomically(folder / "weights.safetensors", save_tensors(state))
    elif isinstance(correction, LayerCorrection | WhenPredicted | JointCorrection) and correction != JointCorrection():
        content = BytesIO()
        np.savez(content, **_arrays(correction))
        write_atomically(folder / "erasure.npz", content.getvalue())


def _arrays(correction: LayerCorrection | WhenPredicted | JointCorrection) -> dict[str, Any]:
    if isinstance(correction, FeatureInpainting):
        return {name: np.asarray(value) for name, value in vars(correction).items()}
    if isinstance(correction, JointCorrection):
        numbered = enumerate(correction.parts)
        return {f"{i}/{name}": value for i, part in numbered for name, value in _arrays(part).items()}
    if isinstance(correction, WhenPredicted):
        return _arrays(correction.erasure) | {"target": np.array(correction.target)}
    e, gate = correction.eraser, correction.gate
    parts = {"left": e.left, "right": e.right, "reference": e.reference}
    parts |= {} if e.offset is None else {"offset": e.offset}
    parts |= {
        "layer": np.array(correction.layer),
        "strength": np.array(correction.strength),
        "pooled": np.array(correction.pooled),
    }
    if correction.channels is not None:
        parts["channels"] = np.array(correction.channels)
    if correction.leading:
        parts |= _stack_erasers(correction.leading)
    return parts if gate is None else parts | gate.parts


def _stack_erasers(erasers: Sequence[Eraser]) -> dict[str, Any]:
    """Stack erasers of p tokens, padded by zeros to as many directions: (p, C, k), (p, k, C), (p, C), and (p, C) where
    one has an offset."""
    k = max(e.left.shape[1] for e in erasers)
    gaps = [(0, k - e.left.shape[1]) for e in erasers]
    offsets = [np.zeros_like(e.reference) if e.offset is None else e.offset for e in erasers]
    shifted = any(e.offset is not None for e in erasers)
    return ({"leading_offset": np.stack(offsets)} if shifted else {}) | {
        "leading_left": np.stack([np.pad(e.left, ((0, 0), m)) for e, m in zip(erasers, gaps, strict=True)]),
        "leading_right": np.stack([np.pad(e.right, (m, (0, 0))) for e, m in zip(erasers, gaps, strict=True)]),
        "leading_reference": np.stack([e.reference for e in erasers]),
    }


def export_model(folder: Path, correction: Correction, classifier: Classifier, example: Tensor) -> dict[str, Any]:
    """Write the corrected model, which answers with a tensor of logits, if torch.export can; return whether it did, or
    the reason why not."""
    path = folder / EXPORTED
    x = example[None].to(classifier.device)
    with evaluation_mode(classifier.module) as module, correction.applied(module), torch.no_grad():
        plain = classifier.logits(x)
        exportable = module if isinstance(module(classifier.as_input(x)), Tensor) else LogitsNetwork(module)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                two = torch.cat([x, x])
                program = torch.export.export(
                    exportable, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
                )
                content = BytesIO()
                torch.export.save(program, content)
                found = torch.export.load(BytesIO(content.getvalue())).module()(two)[:1]
            if not torch.allclose(found, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max())):
                raise ValueError(f"the exported model differs by {float((found - plain).abs().max()):.2g}")
        except Exception as error:  # torch.export raises nearly anything on what it cannot trace
            if is_out_of_memory(error):
                raise
            return {"exported": False, "why": f"{type(error).__name__}: {error}".split("\n")[0][:300]}
    write_atomically(path, content.getvalue())
    return {"exported": True}


@check_arguments
def load_correction(folder: str | Path) -> tuple[Correction, dict[str, Any]]:
    """Load a saved correction and its record; `with correction.applied(module): ...` corrects a model.

    Args:
        folder: a folder written by `audit clean`.

    Raises:
        InputError: the folder holds no correction, a damaged one, or one of another format.
    """
    place = Path(folder)
    if not (place / RECORD).is_file():
        what = "no correction in this folder" if place.is_dir() else "no such folder"
        remedy = "Make one with `klarsicht audit clean`, which prints where it lies."
        raise InputError(what, got=place, rule=f"a folder with {RECORD}", remedy=remedy)
    try:
        record = json.loads((place / RECORD).read_bytes())
        require_format(record, str(place / RECORD), REMAKE_REMEDY)
        require_shape(record, RecordShape)
        _check_files(place, record["files"], "a correction")
        return _read(place), record
    except InputError:
        raise
    except Exception as error:  # zipfile, numpy and safetensors raise nearly anything on damaged files
        raise InputError(
            "no correction in this folder",
            got=f"{place}: {type(error).__name__}: {error}",
            remedy="Make one with `klarsicht audit clean`.",
        ) from error


class ChosenSetting(BaseModel):
    """Shape of the setting that a correction was made by."""

    method: str


class MadeChoice(BaseModel):
    """Shape of what a record says of the choice of its setting."""

    chosen: ChosenSetting


class RecordedSettings(BaseModel):
    """Shape of the settings of a record, as far as they are read."""

    method: str
    images: int
    overall: float
    affected: float
    least_effect: float


class PartOfSeveral(BaseModel):
    """Shape of what a record of several corrections says of each."""

    folder: str


class RecordShape(BaseModel):
    """Shape of a record, as far as it is read by its names; other fields are free. Target, choice and layers are of a
    correction of one class, `corrections` of one of several."""

    model: str
    code: dict[str, str]
    identity: dict[str, str]
    settings: RecordedSettings
    files: dict[str, str]
    artifact_files: dict[str, str] = Field(alias="artifact files")
    target: int | None = None
    choice: MadeChoice | None = None
    layers: list[str] = []
    corrections: list[PartOfSeveral] = []


def check_artifact_files(folder: Path) -> None:
    """Refuse a folder whose artifact is not the one that its correction was made for; folders without a correction say
    nothing.

    Raises:
        InputError: which file is missing or altered.
    """
    if (folder / RECORD).is_file():
        _check_files(folder, json.loads((folder / RECORD).read_bytes())["artifact files"], "an artifact")


def _check_files(place: Path, digests: dict[str, str], owner: str) -> None:
    for name, digest in digests.items():
        if not (place / name).is_file():
            raise InputError(f"{owner} without one of its parts", got=f"{place}: no {name}", remedy=PACKAGE_REMEDY)
        if _sha256(place / name) != digest:
            raise InputError(f"{owner} with a damaged part", got=f"{place}: {name}", remedy=PACKAGE_REMEDY)


def _digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: _sha256(folder / name) for name in names if (folder / name).is_file()}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(place: Path) -> Correction:
    if (place / "weights.safetensors").is_file():
        return RetrainedWeights(load_tensors((place / "weights.safetensors").read_bytes()))
    if not (place / "erasure.npz").is_file():
        return JointCorrection()
    with np.load(place / "erasure.npz") as file:
        arrays = dict(file)
    if not any("/" in name for name in arrays):
        return _read_layer_correction(arrays)
    parts: dict[int, dict[str, Any]] = {}
    for name, value in arrays.items():
        number, _, key = name.partition("/")
        parts.setdefault(int(number), {})[key] = value
    read = (_read_layer_correction(parts[number]) for number in sorted(parts))
    return JointCorrection(tuple(one for one in read if isinstance(one, LayerCorrection)))


def _read_layer_correction(parts: dict[str, Any]) -> LayerCorrection | WhenPredicted:
    if "kernel" not in parts:
        return _read_erasure(parts)
    facts = str(parts["layer"]), parts["kernel"], float(parts["threshold"]), parts["reference"]
    return FeatureInpainting(*facts, int(parts["channels"]), float(parts["aspect"]))


def _read_erasure(parts: dict[str, Any]) -> Erasure | WhenPredicted:
    gate = Gate(parts["weight"], float(parts["bias"]), parts.get("axes")) if "weight" in parts else None
    eraser = Eraser(parts["left"], parts["right"], parts["reference"], parts.get("offset"))
    channels = int(parts["channels"]) if "channels" in parts else None
    names = ("leading_left", "leading_right", "leading_reference", "leading_offset")
    stacked = [parts[name] for name in names if name in parts]
    leading = tuple(map(Eraser, *stacked)) if stacked else ()
    erasure = Erasure(
        str(parts["layer"]), eraser, float(parts["strength"]), bool(parts["pooled"]), gate, channels, leading
    )
    return WhenPredicted(erasure, int(parts["target"])) if "target" in parts else erasure
