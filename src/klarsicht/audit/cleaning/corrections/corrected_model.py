"""Load a model with its correction built in as ordinary layers, so that it can be audited again.

An erasure at each position alone is an affine map, a' = (I - s L R) a + s (L R z - o): a 1 x 1 convolution, or a linear
layer, before the corrected layer, so that relevance rules apply to it. A gate g mixes this map with its input, (1 - g)
a + g a', and is held fixed where relevance or gradients pass; so are located windows that are filled. At a sum of two
branches the map is computed in hooks, so that the network's layers stay the same."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clarc import Erasure, find_layer, has_channels_first, open_gate
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection, LayerCorrection
from klarsicht.audit.cleaning.corrections.feature_inpainting import FeatureInpainting, InpaintingModule
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.sources import find_opener
from klarsicht.audit.explanation.models.specifications import check_specification, code_of
from klarsicht.audit.explanation.networks.hooks import replace_first_tensor, takes_channels_last
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum, SumHooks
from klarsicht.ground.errors import ModelError, RunMismatch, UsageError
from klarsicht.ground.trust import RecordedCode
from klarsicht.numerics.erasure import Eraser

PYTHON_MODEL: Final = "object"  # placeholder for a model that was built in Python
CHILD_NAME: Final = "erased_sum"


def load_corrected(
    folder: str, device: torch.device | None = None, classifier: Classifier | None = None
) -> Classifier:  # fmt: skip
    """Load the corrected model of a folder of `audit clean`; a model that was built in Python is given as `classifier`.
    Raises ModelError: it is not given; RunMismatch: it is not the one that was corrected; UntrustedCode: the correction
    names code that lies inside it, or that is not as it was when it was made; UsageError, InputError: see
    `corrected_classifier`."""
    _, record = packages.load_correction(folder)
    if classifier is not None:
        if classifier.identity != record["identity"].get("model"):
            raise RunMismatch(
                "the correction belongs to another model", got=f"{folder}, {classifier}", rule="the model of its run",
                remedy="Give the model that was audited, as it was then.",
            )  # fmt: skip
        corrected = corrected_classifier(classifier, folder)
        corrected.module.to(device or classifier.device)
        return corrected
    if not _is_specified(record["model"]):
        raise ModelError(
            "a correction of a model that was built in Python", got=f"{folder}: {record['model']}",
            rule="the folder does not hold the model itself",
            remedy=f"In Python: audit.load_model({folder!r}, classifier=model), with the model that was audited.",
        )  # fmt: skip
    RecordedCode.of(folder, record).require(code_of(record["model"]))
    return corrected_classifier(load_model(record["model"], device=device), folder)


def _is_specified(model: str) -> bool:
    """Say whether a text specifies a model, rather than naming one that was built in Python."""
    if model.split(":")[0] == PYTHON_MODEL:
        return False
    if find_opener(model) is None:
        with suppress(ModelError):  # what it names is gone, which loading says
            try:
                check_specification(model)
            except UsageError:
                return False
    return True


def corrected_classifier(classifier: Classifier, folder: str | Path) -> Classifier:
    """Copy the classifier and build a saved correction in. Raises UsageError: the correction depends on the whole image
    and is no layer; InputError: see packages.load_correction."""
    correction, _ = packages.load_correction(folder)
    module = build_in(copy.deepcopy(classifier.module), correction)
    return replace(classifier, module=module, spec=str(folder), notes=())


def build_in(module: nn.Module, correction: Correction) -> nn.Module:
    """Change the module permanently by the correction, and return it. Raises UsageError: the correction depends on the
    whole image and is no layer."""
    if isinstance(correction, RetrainedWeights):
        module.load_state_dict(dict(correction.state), strict=False)
        return module
    if isinstance(correction, JointCorrection):
        # sums before layers, whose names change; what is wrapped last is applied first; a layer inside another keeps
        # its name until that other one is wrapped
        sums = [part for part in correction.parts if ResidualSum.parse(part.layer)]
        last_first = [part for part in correction.parts[::-1] if not ResidualSum.parse(part.layer)]
        for part in (*sums, *sorted(last_first, key=lambda part: -part.layer.count("."))):
            build_in(module, part)
        return module
    if not isinstance(correction, LayerCorrection) or (isinstance(correction, Erasure) and correction.pooled):
        raise UsageError(
            "a correction that looks at the whole image first is no layer", got=type(correction).__name__,
            rule="erasures at each position, with a gate or without, inpainting, and trained weights can be built in",
            remedy="Show it with `klarsicht audit evaluate`, which audits the class again.",
        )  # fmt: skip
    layer, total = find_layer(module, correction.layer), ResidualSum.parse(correction.layer)
    like = next(layer.parameters(), next(module.parameters(), torch.zeros(1)))
    kind = None if total else nn.Linear if takes_channels_last(layer) else nn.Conv2d
    change = (
        InpaintingModule(correction, like)
        if isinstance(correction, FeatureInpainting)
        else ErasureModule(correction, like, kind)
    ).eval()
    if total is None:
        parent, _, name = correction.layer.rpartition(".")
        setattr(module.get_submodule(parent), name, CorrectedLayer(change, layer))
        return module
    same = sum(name.startswith(f"{CHILD_NAME}{total.number}_") for name, _ in layer.named_children())
    layer.add_module(f"{CHILD_NAME}{total.number}_{same}", change)
    SumHooks(total.number, change.forward).attach(layer)
    return module


class CorrectedLayer(nn.Module):
    """Layer with a correction before its first input; further inputs pass unchanged. Attributes that a network asks of
    the layer are the layer's, but for its parameters, which would count twice. change: corrects the first input. layer:
    the layer."""

    def __init__(self, change: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.change, self.layer = change, layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer: Any = super().__getattr__("layer")
            if name in layer._parameters:
                raise
            return getattr(layer, name)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        inputs, named = replace_first_tensor(inputs, named, self.change)
        return self.layer(*inputs, **named)


class ErasureModule(nn.Module):
    """Affine map a -> W a + b of every position, and one of each token before them; with a gate, mixed with its input.
    correction: the erasure, not pooled. like: weight of the network, whose device and type are those of the maps. kind:
    layers that the maps are, nn.Linear or nn.Conv2d; None: no layers."""

    erasure: Any
    leading: Any

    def __init__(self, correction: Erasure, like: Tensor, kind: type[nn.Module] | None) -> None:
        super().__init__()
        self.channels, self.erasure = correction.channels, make_map(correction, correction.eraser, kind)
        token_kind = None if kind is None else nn.Linear
        self.leading = nn.ModuleList(make_map(correction, eraser, token_kind) for eraser in correction.leading)
        self.gate_parts = tuple(correction.gate.parts if correction.gate else ())
        for name, value in correction.gate.parts.items() if correction.gate else ():
            self.register_buffer(f"gate_{name}", torch.as_tensor(value))
        self.to(like.device, like.dtype)

    def forward(self, a: Tensor) -> Tensor:
        """Erase the artifact from activations, along the axis that an Erasure would take."""
        W, b = self.erasure.weight.flatten(1), self.erasure.bias
        first, before = has_channels_first(a, len(W), self.channels), len(self.leading)
        last = a.movedim(1, -1) if first else a
        erased: Tensor
        if isinstance(self.erasure, nn.Conv2d) and first:
            erased = self.erasure(a).movedim(1, -1)
        elif isinstance(self.erasure, nn.Linear) and not first and not before:
            erased = self.erasure(a)
        else:
            erased = linear(last[:, before:], W, b)
        if before:
            tokens = [linear(last[:, i : i + 1], one.weight, one.bias) for i, one in enumerate(self.leading)]
            erased = torch.cat([*tokens, erased], 1)
        if self.gate_parts:
            flat = last[:, None] if last.ndim == 2 else last.flatten(1, -2)
            parts = {name: getattr(self, f"gate_{name}") for name in self.gate_parts}
            g = open_gate(flat[:, before:], parts).detach().reshape(-1, *[1] * (a.ndim - 1))
            erased = torch.addcmul((1 - g) * last, g, erased)  # no addition, which would be counted, see SumMode
        return erased.movedim(-1, 1) if first else erased


def make_map(correction: Erasure, e: Eraser, kind: type[nn.Module] | None) -> nn.Module:
    """Make the map a -> W a + b of an eraser at the strength of an erasure, in double precision: a layer of a kind, or
    a module that only holds weight (C, C) and bias (C,)."""
    part = correction.strength * torch.as_tensor(e.left, dtype=torch.float64) @ torch.as_tensor(e.right).double()
    bias = part @ torch.as_tensor(e.reference, dtype=part.dtype)
    if e.offset is not None:
        bias = bias - correction.strength * torch.as_tensor(e.offset, dtype=part.dtype)
    weight, C = torch.eye(len(part), dtype=part.dtype) - part, len(part)
    if kind is None:
        found = nn.Module()
        found.register_buffer("weight", weight)
        found.register_buffer("bias", bias)
        return found
    layer = nn.Linear(C, C) if kind is nn.Linear else nn.Conv2d(C, C, 1)
    layer.weight = nn.Parameter(weight.reshape(layer.weight.shape))
    layer.bias = nn.Parameter(bias)
    return layer
