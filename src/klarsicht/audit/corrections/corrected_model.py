"""A cleaned model as a model of its own: whatever audits the first can audit the second.

An erasure of one position at a time is an affine map, a' = (I - s L R) a + s L R z: a 1 x 1 convolution, or a linear
layer, in front of the layer that it corrects. So relevance has a rule for it, as for any layer.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from klarsicht.audit.corrections import packages
from klarsicht.audit.corrections.activations import Correction
from klarsicht.audit.corrections.clarc import Erasure, layer_named
from klarsicht.audit.corrections.closed_form import Nothing
from klarsicht.audit.corrections.retraining import Retrained
from klarsicht.audit.models.classifier import Classifier, load_model
from klarsicht.ground.errors import ModelError, UsageError

OWN: Final = "object"  # what stands for a model that was built in Python


def load_corrected(spec: str, *, device: torch.device | None = None) -> Classifier:
    """As models.load; a folder of `audit clean` is the model that it was made for, relieved.

    Raises:
        ModelError: the model was built in Python: use `corrected_classifier`.
        UsageError, InputError: see `corrected_classifier` and packages.load.
    """
    if not (Path(spec) / packages.RECORD).is_file():
        return load_model(spec, device=device)
    _, record = packages.load_correction(spec)
    if record["model"].split(":")[0] == OWN:
        raise ModelError(
            "a correction of a model that was built in Python", got=spec, rule="only its weights are known",
            remedy="In Python: audit.relieved.relieved(classifier, folder).",
        )  # fmt: skip
    return corrected_classifier(load_corrected(record["model"], device=device), spec)


def corrected_classifier(classifier: Classifier, folder: str | Path) -> Classifier:
    """A copy of the classifier with a saved correction built in.

    Raises:
        UsageError: a correction that looks at the whole image first: it is no layer.
        InputError: see packages.load.
    """
    correction, _ = packages.load_correction(folder)
    module = built_in(copy.deepcopy(classifier.module), correction)
    return Classifier(module, classifier.transform, classifier.classes, str(folder))


def built_in(module: nn.Module, correction: Correction) -> nn.Module:
    """The module, changed for good."""
    if isinstance(correction, Retrained):
        module.load_state_dict(dict(correction.state), strict=False)
        return module
    if isinstance(correction, Nothing):
        return module
    if not isinstance(correction, Erasure) or correction.gate or correction.pooled:
        raise UsageError(
            "a correction that looks at the whole image first is no layer",
            got=type(correction).__name__,
            rule="erasures of one position at a time, and trained weights, can be built in",
            remedy="Show it with `klarsicht audit evaluate`, which audits the class again.",
        )
    layer = layer_named(module, correction.layer)
    parent, _, name = correction.layer.rpartition(".")
    setattr(module.get_submodule(parent), name, CorrectedModel(affine(correction, layer), layer))
    return module


class CorrectedModel(nn.Module):
    """A layer whose first input is erased; what else it takes it is given."""

    def __init__(self, erasure: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.erasure, self.layer = erasure, layer

    def forward(self, a: Tensor, *more: Any, **named: Any) -> Any:
        return self.layer(self.erasure(a), *more, **named)


def affine(correction: Erasure, layer: nn.Module) -> nn.Module:
    """The erasure as a layer: linear before a linear layer, else a 1 x 1 convolution."""
    e, C = correction.eraser, len(correction.eraser.reference)
    taken = correction.strength * torch.as_tensor(e.left) @ torch.as_tensor(e.right)
    held = next(layer.parameters(), torch.zeros(1))
    found = nn.Linear(C, C) if isinstance(layer, nn.Linear) else nn.Conv2d(C, C, 1)
    with torch.no_grad():
        found.weight.copy_((torch.eye(C, dtype=taken.dtype) - taken).reshape(found.weight.shape))
        found.bias.copy_(taken @ torch.as_tensor(e.reference, dtype=taken.dtype))  # type: ignore[union-attr]
    return found.to(held.device, held.dtype).eval()
