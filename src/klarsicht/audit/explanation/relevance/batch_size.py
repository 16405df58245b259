"""Choice of the number of images in a forward pass within a bound on memory."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.relevance.image_batches import BatchReader

LARGEST_BATCH: Final = 256
HELD_ACTIVATIONS: Final = 4  # times the bytes of all activations that relevance propagation holds at its peak, measured
GIGABYTE: Final = 1e9


def choose_batch_size(classifier: Classifier, image: Tensor, memory: float) -> int:
    """Choose the largest power of two of images whose relevance is computed within a bound on memory, at least 1.

    It is computed from the shapes of activations and not measured, so that every process and every machine chooses the
    same: results of different batch sizes differ in last bits.

    Args:
        image: (C, H, W), a model input.
        memory: GB that a batch may take.
    """
    each = HELD_ACTIVATIONS * activation_bytes(classifier, image)
    size = 1
    while 2 * size <= LARGEST_BATCH and 2 * size * each <= memory * GIGABYTE:
        size *= 2
    return size


def activation_bytes(classifier: Classifier, image: Tensor) -> int:
    """Add up the bytes of the input and of what each layer without layers inside returns, for one image (C, H, W).

    Raises:
        InputRefused: the model fails on the image.
    """
    total = image.numel() * image.element_size()

    def count(layer: nn.Module, inputs: object, answer: object) -> None:
        nonlocal total
        if isinstance(answer, Tensor):
            total += answer.numel() * answer.element_size()

    layers = [layer for layer in classifier.module.modules() if next(layer.children(), None) is None]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with evaluation_mode(classifier.module), torch.no_grad():
            classifier.logits(image[None])
    finally:
        for handle in handles:
            handle.remove()
    return total


def first_image(corpus: Corpus, classifier: Classifier, most: int) -> Tensor | None:
    """Read the first usable image of a corpus as a model input (C, H, W); None where none of the first `most` is."""
    batches = BatchReader(corpus, classifier, 1).batches(range(min(most, len(corpus))), {})
    return next((images[0] for _, images in batches), None)
