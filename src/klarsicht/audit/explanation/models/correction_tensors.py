"""Tensors inside a network on which a correction may act: inputs of late layers, and sums of two branches."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import is_block
from klarsicht.audit.explanation.networks.residual_sums import list_sums
from klarsicht.ground.errors import UsageError

LAYERS: Final = 6  # blocks or convolutions that are tried


def correction_layers(module: nn.Module, head: str = "") -> tuple[str, ...]:
    """Return the layers whose input may be corrected: the last six blocks (see `hooks.is_block`), or else the last six
    convolutions but the first of all, and the head. Later layers already mix artifact and class; earlier ones do not
    represent the artifact yet. Raises UsageError where the module has neither a convolution nor a head."""
    blocks = [name for name, _ in module.named_modules() if is_block(module, name)]
    convolutions = [name for name, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    found = (blocks or convolutions[1:] or convolutions)[-LAYERS:]
    if head and not any(head.startswith(f"{name}.") for name in found):
        found = [*(name for name in found if name != head), head]
    if not found:
        raise UsageError("no layer to correct", rule="the model needs a convolution", remedy="Name a --layer.")
    return tuple(found)


def first_convolution(module: nn.Module) -> str:
    """Return the name of the first convolution, in the order of the modules; empty where there is none."""
    return next((name for name, m in module.named_modules() if isinstance(m, nn.Conv2d)), "")


def correction_tensors(classifier: Classifier, image: Tensor) -> tuple[str, ...]:
    """Return the layers whose input may be corrected, see `correction_layers`, and after them the last six sums of two
    branches that are not such an input: only the sum holds all that a skip connection brings. The network is run on
    `image`, a model input (C, H, W)."""
    module, two = classifier.module, torch.stack([image, image])
    layers = correction_layers(module, classifier.head)
    with evaluation_mode(module), torch.no_grad():
        return (*layers, *list_sums(module, lambda: classifier.logits(two), layers)[-LAYERS:])


def correction_layer(module: nn.Module) -> str:
    """Return the layer to correct without any measurement: the last block, or else the last convolution."""
    return correction_layers(module)[-1]
