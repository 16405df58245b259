"""What a network computes of images: logits, and activations at the input of a layer; corrected or as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from klarsicht.audit.corrections.clarc import Erasure, layer_named
from klarsicht.audit.corrections.samples import Images
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.models.eval_mode import evaluation_mode
from klarsicht.audit.models.hooks import Tap
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import InputRefused

BATCH = 64
ABREAST = 192  # images times corrections that run through the rest of a network together
POSITIONS = 32  # of an image, at most, from which a covariance is estimated


class Correction(Protocol):
    """What changes a network inside a context, and gives it back bit-equal."""

    def applied(self, module: nn.Module) -> AbstractContextManager[nn.Module]: ...


@dataclass(frozen=True)
class Activations:
    """At the input of one layer.

    Attributes:
        pooled: float32 (n, C), means over positions.
        spread: float32 (n, C), largest over positions less the mean.
        positions: float32 (m, C), of positions drawn from all images.
        placed: whether there are positions at all.
    """

    pooled: Floats
    spread: Floats
    positions: Floats
    placed: bool


def channels_last(a: Tensor) -> Tensor:
    """(B, C), (B, C, H, W) or tokens (B, T, C) -> (B, P, C)."""
    if a.ndim == 2:
        return a[:, None]
    return a if a.ndim == 3 else a.flatten(2).movedim(1, 2)


def batches(images: Images, most: int = BATCH) -> Iterator[Images]:
    """At most `most` consecutive images of one shape."""
    start = 0
    for i in range(1, len(images) + 1):
        if i == len(images) or i - start == most or images[i].shape != images[start].shape:
            yield images[start:i]
            start = i


def corrected(module: nn.Module, correction: Correction | None) -> AbstractContextManager[Any]:
    return nullcontext() if correction is None else correction.applied(module)


def logits(classifier: Classifier, images: Images, correction: Correction | None = None) -> Floats:
    """Logits (n, K) of a model, corrected or as it is."""
    with evaluation_mode(classifier.module), corrected(classifier.module, correction), torch.no_grad():
        return torch.cat([classifier.logits(torch.stack(list(b))) for b in batches(images)]).float().cpu().numpy()


def logits_abreast(classifier: Classifier, images: Images, erasures: Sequence[Erasure]) -> list[Floats]:
    """Logits (n, K) under each of some erasures at one layer. What comes before the layer is computed once: its input
    becomes one input an erasure, all in one batch.

    A network in which something passes the layer by does not take such a batch: there they run one after another.
    """
    k = len(erasures)

    def spread(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (torch.cat([erasure(inputs[0]) for erasure in erasures]), *inputs[1:])

    found = []
    handle = layer_named(classifier.module, erasures[0].layer).register_forward_pre_hook(spread)
    try:
        with evaluation_mode(classifier.module), torch.no_grad():
            for batch in batches(images, max(1, ABREAST // k)):
                y = classifier.logits(torch.stack(list(batch)))
                found.append(y.reshape(k, len(batch), -1).float().cpu())
    except (InputRefused, RuntimeError):  # shapes that do not fit
        handle.remove()
        return [logits(classifier, images, erasure) for erasure in erasures]
    finally:
        handle.remove()
    return list(torch.cat(found, 1).numpy())


def activations(
    classifier: Classifier, images: Images, layer: str, correction: Correction | None = None, seed: int = 0
) -> Activations:
    """What goes into a layer; under a correction at that layer, what it makes of it."""
    noise = torch.Generator().manual_seed(seed)
    pooled, spread, positions, placed = [], [], [], False
    with (
        evaluation_mode(classifier.module) as module,
        corrected(module, correction),
        torch.no_grad(),
        Tap(module, layer) as tap,
    ):
        for batch in batches(images):
            classifier.logits(torch.stack(list(batch)))
            placed = tap.input.ndim > 2
            a = channels_last(tap.input).float().cpu()
            pooled.append(a.mean(1))
            spread.append(a.amax(1) - pooled[-1])
            positions.append(_drawn(a, noise))
    return Activations(torch.cat(pooled).numpy(), torch.cat(spread).numpy(), torch.cat(positions).numpy(), placed)


def _drawn(a: Tensor, noise: torch.Generator) -> Tensor:
    """At most POSITIONS of each image, others for each: (B, P, C) -> (B p, C)."""
    if a.shape[1] <= POSITIONS:
        return a.flatten(0, 1)
    at = torch.rand(a.shape[:2], generator=noise).argsort(1)[:, :POSITIONS]
    return a.gather(1, at[..., None].expand(-1, -1, a.shape[2])).flatten(0, 1)
