"""Save and load a correction, and export the corrected model so that it runs without klarsicht.

    FOLDER/correction.json      the record: kind, choice, run, class and model
    FOLDER/erasure.npz          arrays of an erasure or an inpainting; of several: 0/left, 1/left, ...; or
    FOLDER/weights.safetensors  the weights that training changed
    FOLDER/model.pt2            the corrected model, by torch.export: torch.export.load(FILE).module()(images)
    FOLDER/corrected.py         where a model cannot be exported: corrected(module), with numpy and torch alone

The record is written last, with the SHA-256 of the parts and of the artifact: a folder without it, or with other parts,
is refused.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import BaseModel, Field
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from klarsicht.audit.cleaning.corrections import clarc, feature_inpainting
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clarc import Erasure, WhenPredicted
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection, LayerCorrection
from klarsicht.audit.cleaning.corrections.feature_inpainting import FeatureInpainting
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks import hooks, residual_sums
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.outputs import LogitsNetwork
from klarsicht.ground.config import require_shape
from klarsicht.ground.errors import InputError, RunMismatch
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.run_folder.manifest import FORMAT, require_format, to_json
from klarsicht.ground.user_arguments import check_arguments

PACKAGE_REMEDY: Final = "Copy the folder again, or make it again with `klarsicht audit clean`."
REMAKE_REMEDY: Final = "Make it again with this version: `klarsicht audit clean`."
RECORD, EXPORTED, LOADER = "correction.json", "model.pt2", "corrected.py"
PART_FILES: Final = ("erasure.npz", "weights.safetensors")
ARTIFACT: Final = ("artifact.json", "artifact.npz")  # written beside, before the record
COPIED: Final[tuple[Any, ...]] = (
    clarc.erase, clarc.open_gate, clarc.channel_features, clarc.has_channels_first, hooks.exchange_tensors,
    hooks.arrange_in_grid, hooks._grid,
    feature_inpainting.inpaint_windows, feature_inpainting.window_scores, feature_inpainting.window_mask,
    feature_inpainting.fill_masked, residual_sums.is_sum, residual_sums.SumMode, residual_sums.SumHooks,
)  # fmt: skip
"""Functions and classes whose source completes `corrected.py`: they need torch and each other alone."""


def standalone_code() -> str:
    """Return the module that corrects a network without klarsicht."""
    begin = files("klarsicht.audit").joinpath("templates/corrected.py.txt").read_text("utf-8")
    names = "LEAST_AXIS_VARIANCE", "ERASER"
    constants = "".join(f"{name} = {getattr(clarc, name)!r}\n" for name in names)
    return "\n\n".join([begin + constants, *(inspect.getsource(one) for one in COPIED)])


def save_correction(
    folder: Path, correction: Correction, facts: dict[str, Any], classifier: Classifier | None = None,
    example: Tensor | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a correction, and with a model and an example image (C, H, W) the corrected model as well; return the
    record, whose content is `facts` and what is known of the files. An earlier correction there is replaced. Raises
    StoreError, DiskFull: the folder cannot be written."""
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        for stale in (*PART_FILES, EXPORTED, LOADER):
            (folder / stale).unlink(missing_ok=True)
    _write(folder, correction)
    write_atomically(folder / LOADER, standalone_code().encode())
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
    if isinstance(correction, JointCorrection):
        numbered = enumerate(correction.parts)
        return {f"{i}/{name}": value for i, part in numbered for name, value in part.parts.items()}
    if isinstance(correction, WhenPredicted):
        return correction.erasure.parts | {"target": np.array(correction.target)}
    return correction.parts


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


def is_package(folder: str | Path) -> bool:
    """Say whether a folder holds the record of a correction."""
    return (Path(folder) / RECORD).is_file()


@check_arguments
def load_correction(folder: str | Path) -> tuple[Correction, dict[str, Any]]:
    """Load a saved correction and its record; `with correction.applied(module): ...` corrects a model. Raises
    InputError: the folder holds no correction, a damaged one, or one of another format."""
    place = Path(folder)
    if not is_package(place):
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
            "no correction in this folder", got=f"{place}: {type(error).__name__}: {error}",
            remedy="Make one with `klarsicht audit clean`.",
        ) from error  # fmt: skip


def require_same_run(record: dict[str, Any], identity: dict[str, str], folder: str | Path) -> None:
    """Check that a correction was made from the run of an identity. Raises RunMismatch otherwise."""
    if record["identity"] != identity:
        raise RunMismatch(
            "the correction belongs to another run", got=str(folder), rule="the same model and corpus",
            remedy="Name the run that it was made from.",
        )  # fmt: skip


class ChosenSetting(BaseModel):
    method: str


class MadeChoice(BaseModel):
    chosen: ChosenSetting


class RecordedSettings(BaseModel):
    method: str
    images: int
    overall: float
    affected: float
    least_effect: float


class PartOfSeveral(BaseModel):
    folder: str


class RecordShape(BaseModel):
    """Shape of a record, as far as it is read; other fields are free. Target, choice and layers are of a correction of
    one class, `corrections` of one of several."""

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
    """Refuse a folder whose artifact is not the one that its correction was made for, by an InputError that names the
    file."""
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
    parts: dict[int, dict[str, Any]] = {}
    for name, value in arrays.items():
        number, _, key = name.rpartition("/")
        parts.setdefault(int(number or 0), {})[key] = value
    read = [_read_layer_correction(parts[number]) for number in sorted(parts)]
    several = any("/" in name for name in arrays)
    return JointCorrection(tuple(one for one in read if isinstance(one, LayerCorrection))) if several else read[0]


def _read_layer_correction(parts: dict[str, Any]) -> LayerCorrection | WhenPredicted:
    if "kernel" in parts:
        return FeatureInpainting.of_parts(parts)
    erasure = Erasure.of_parts(parts)
    return WhenPredicted(erasure, int(parts["target"])) if "target" in parts else erasure
