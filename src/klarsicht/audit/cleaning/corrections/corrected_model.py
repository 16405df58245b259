"""Load a model with its correction built in as ordinary layers, so that it can be audited again.

An erasure at each position alone is an affine map, a' = (I - s L R) a + s (L R z - o): a 1 x 1 convolution, or a linear
layer, before the corrected layer. Relevance rules therefore apply to it as to any layer. One with a gate g mixes this
map with its input, (1 - g) a + g a'; the gate is held fixed where relevance or gradients pass, as gates are, and so are
located windows that are filled. A correction at a sum of two branches is built in by hooks, see corrected_sums.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clarc import Erasure, Gate, find_layer, has_channels_first, open_gate
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection
from klarsicht.audit.cleaning.corrections.corrected_sums import affine_map, attach_to_sum, build_in_sum
from klarsicht.audit.cleaning.corrections.feature_inpainting import FeatureInpainting, InpaintingModule
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.specifications import code_of
from klarsicht.audit.explanation.networks.hooks import replace_first_tensor, takes_channels_last
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum
from klarsicht.ground.errors import ModelError, UsageError
from klarsicht.ground.trust import RecordedCode
from klarsicht.numerics.erasure import Eraser

PYTHON_MODEL: Final = "object"  # placeholder for a model that was built in Python


def load_corrected(folder: str, device: torch.device | None = None) -> Classifier:
    """Load the corrected model of a folder of `audit clean`, as `audit.explanation.models.classifier.load_model` does
    of it.

    Args:
        folder: the folder.
        device: device of the model.

    Raises:
        ModelError: the model was built in Python: use `corrected_classifier`.
        UntrustedCode: the correction names code that lies inside it, or that is not as it was when it was made.
        UsageError, InputError: see `corrected_classifier` and packages.load_correction.
    """
    _, record = packages.load_correction(folder)
    if record["model"].split(":")[0] == PYTHON_MODEL:
        raise ModelError(
            "a correction of a model that was built in Python", got=folder, rule="only its weights are known",
            remedy="In Python: audit.corrections.corrected_model.corrected_classifier(classifier, folder).",
        )  # fmt: skip
    RecordedCode.of(folder, record).require(code_of(record["model"]))
    return corrected_classifier(load_model(record["model"], device=device), folder)


def corrected_classifier(classifier: Classifier, folder: str | Path) -> Classifier:
    """Copy the classifier and build a saved correction in.

    Raises:
        UsageError: the correction depends on the whole image and is no layer.
        InputError: see packages.load_correction.
    """
    correction, _ = packages.load_correction(folder)
    module = build_in(copy.deepcopy(classifier.module), correction)
    return replace(classifier, module=module, spec=str(folder), notes=())


def build_in(module: nn.Module, correction: Correction) -> nn.Module:
    """Change the module permanently by the correction.

    Raises:
        UsageError: the correction depends on the whole image and is no layer.
    """
    if isinstance(correction, RetrainedWeights):
        module.load_state_dict(dict(correction.state), strict=False)
        return module
    if isinstance(correction, JointCorrection):
        # sums before layers, whose names change; what is wrapped last is applied first; a layer inside another keeps
        # its name until that other one is wrapped
        sums = [part for part in correction.parts if ResidualSum.parse(part.layer)]
        for part in sums:
            build_in(module, part)
        last_first = [part for part in correction.parts[::-1] if not ResidualSum.parse(part.layer)]
        for part in sorted(last_first, key=lambda part: -part.layer.count(".")):
            build_in(module, part)
        return module
    if isinstance(correction, FeatureInpainting):
        build_in_inpainting(module, correction)
        return module
    if not isinstance(correction, Erasure) or correction.pooled:
        raise UsageError(
            "a correction that looks at the whole image first is no layer",
            got=type(correction).__name__,
            rule="erasures at each position, with a gate or without, inpainting, and trained weights can be built in",
            remedy="Show it with `klarsicht audit evaluate`, which audits the class again.",
        )
    if (total := ResidualSum.parse(correction.layer)) is not None:
        build_in_sum(module, correction, total)
        return module
    layer = find_layer(module, correction.layer)
    parent, _, name = correction.layer.rpartition(".")
    affine = make_affine_layer(correction, correction.eraser, layer)
    leading = [make_affine_layer(correction, eraser, layer, tokens=True) for eraser in correction.leading]
    corrected = CorrectedLayer(affine, layer, correction.channels, leading)
    if correction.gate is not None:
        corrected = GatedLayer(affine, layer, correction.channels, leading, correction.gate)
    setattr(module.get_submodule(parent), name, corrected)
    return module


def build_in_inpainting(module: nn.Module, correction: FeatureInpainting) -> None:
    """Change the module permanently by an inpainting."""
    inpainting = InpaintingModule(correction, next(module.parameters(), torch.zeros(1))).eval()
    layer = find_layer(module, correction.layer)
    if (total := ResidualSum.parse(correction.layer)) is not None:
        attach_to_sum(layer, total, inpainting, inpainting.forward)
        return
    parent, _, name = correction.layer.rpartition(".")
    setattr(module.get_submodule(parent), name, InpaintedLayer(inpainting, layer))


class WrappedLayer(nn.Module):
    """Layer with a correction before its first input; further inputs pass unchanged. Attributes that a network asks of
    the layer are the layer's, but for its parameters, which would count twice."""

    layer: nn.Module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            layer: Any = super().__getattr__("layer")
            if name in layer._parameters:
                raise
            return getattr(layer, name)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        inputs, named = replace_first_tensor(inputs, named, self.correct_input)
        return self.layer(*inputs, **named)

    def correct_input(self, a: Tensor) -> Tensor:
        """Correct the first input of the layer."""
        raise NotImplementedError  # no layer is wrapped by this class itself: each correction has a subclass


class InpaintedLayer(WrappedLayer):
    """Layer before which located windows of its first input are filled.

    Args:
        inpainting: fills them.
        layer: the layer.
    """

    def __init__(self, inpainting: InpaintingModule, layer: nn.Module) -> None:
        super().__init__()
        self.inpainting, self.layer = inpainting, layer

    def correct_input(self, a: Tensor) -> Tensor:
        filled: Tensor = self.inpainting(a)
        return filled


class CorrectedLayer(WrappedLayer):
    """Layer with an erasure before its first input.

    Args:
        erasure: affine map of the positions.
        layer: the layer.
        channels: axis of the channels of an input of four axes, see Erasure.
        leading: affine maps of the tokens before the positions.
    """

    erasure: nn.Linear | nn.Conv2d

    def __init__(
        self,
        erasure: nn.Linear | nn.Conv2d,
        layer: nn.Module,
        channels: int | None = None,
        leading: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.erasure, self.layer, self.channels, self.before = erasure, layer, channels, len(leading)
        if leading:
            self.leading = nn.ModuleList(leading)

    def correct_input(self, a: Tensor) -> Tensor:
        return self.erase(a)

    def erase(self, a: Tensor) -> Tensor:
        """Erase at every position, along the axis that an Erasure would take."""
        if self.before:
            tokens = [one(a[:, i : i + 1]) for i, one in enumerate(self.leading)]
            return torch.cat(
                [*tokens, linear(a[:, self.before :], self.erasure.weight.flatten(1), self.erasure.bias)], 1
            )
        first = has_channels_first(a, len(self.erasure.weight), self.channels)
        W, b = self.erasure.weight.flatten(1), self.erasure.bias
        if first == isinstance(self.erasure, nn.Conv2d):
            erased: Tensor = self.erasure(a)
            return erased
        return linear(a.movedim(1, -1), W, b).movedim(-1, 1) if first else linear(a, W, b)


class GatedLayer(CorrectedLayer):
    """Layer with a gated erasure before its first input.

    Args:
        gate: probability that the image carries the artifact, by which the erasure is multiplied.
    """

    def __init__(
        self,
        erasure: nn.Linear | nn.Conv2d,
        layer: nn.Module,
        channels: int | None,
        leading: Sequence[nn.Module],
        gate: Gate,
    ) -> None:
        super().__init__(erasure, layer, channels, leading)
        held = erasure.weight
        self.gate_parts = tuple(gate.parts)
        for name, value in gate.parts.items():
            self.register_buffer(f"gate_{name}", torch.as_tensor(value).to(held))

    def erase(self, a: Tensor) -> Tensor:
        """Erase as far as the gate says that the image carries the artifact."""
        first = has_channels_first(a, len(self.erasure.weight), self.channels)
        last = a.movedim(1, -1) if first else a
        flat = last[:, None] if last.ndim == 2 else last.flatten(1, -2)
        parts = {name: getattr(self, f"gate_{name}") for name in self.gate_parts}
        g = open_gate(flat[:, self.before :], parts).detach().reshape(-1, *[1] * (a.ndim - 1))
        return (1 - g) * a + g * super().erase(a)


def make_affine_layer(correction: Erasure, e: Eraser, layer: nn.Module, tokens: bool = False) -> nn.Linear | nn.Conv2d:
    """Convert an eraser of an erasure to a layer: linear where the channels of the input come last, as those of tokens
    do, else a 1 x 1 convolution."""
    C = len(e.reference)
    weight, bias = affine_map(correction, e)
    held = next(layer.parameters(), torch.zeros(1))
    found = nn.Linear(C, C) if tokens or takes_channels_last(layer) else nn.Conv2d(C, C, 1)
    with torch.no_grad():
        found.weight.copy_(weight.reshape(found.weight.shape))
        found.bias.copy_(bias)  # type: ignore[union-attr]
    return found.to(held.device, held.dtype).eval()
