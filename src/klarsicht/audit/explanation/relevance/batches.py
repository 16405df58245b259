"""Batches of pictures or tensors, and their target classes by number or by name, from a user's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.ground.errors import UsageError, unknown_name

Array = NDArray[Any]


def as_batch(classifier: Classifier, images: Tensor | Array | Image.Image | Sequence[Image.Image]) -> Tensor:
    """Preprocess pictures to a batch (B, C, H, W), or check that a batch is one, of floats, or one of volumes
    (B, C, D, H, W). Raises UsageError where it is none, is empty, or the pictures have several sizes, and ImageRefused
    where the transform fails on a picture."""
    pictures = [images] if isinstance(images, Image.Image) else images
    if isinstance(pictures, list | tuple) and pictures and all(isinstance(one, Image.Image) for one in pictures):
        inputs = [classifier.image(one) for one in pictures]
        if len(sizes := {tuple(one.shape) for one in inputs}) > 1:
            remedy = "Explain them one by one, or crop to one size in the transform."
            raise UsageError("pictures of several sizes after the transform", got=sorted(sizes), remedy=remedy)
        return torch.stack(inputs)
    try:
        batch = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        rule, remedy, got = "pictures of Pillow, or images (B, C, H, W)", "", str(error)
        items = images if isinstance(images, list | tuple) else [images]
        if paths := [one for one in items if isinstance(one, str | Path)]:
            got, remedy = f"the path {paths[0]}", "Open files first: [Image.open(path) for path in paths]."
        raise UsageError("a batch does not consist of numbers", got=got, rule=rule, remedy=remedy) from error
    if batch.ndim not in (len("BCHW"), len("BCDHW")):
        remedy = "Stack transformed images: torch.stack([transform(image) for image in images])."
        raise UsageError(
            "a batch of images", got=tuple(batch.shape), rule="(B, C, H, W), or volumes (B, C, D, H, W)", remedy=remedy
        )
    if not (len(batch) and batch.is_floating_point()):
        got, remedy = f"{len(batch)} of {batch.dtype}", "Give images as the model's transform returns them."
        raise UsageError("a batch of images", got=got, rule="at least one image, of floats", remedy=remedy)
    return batch


def require_finite(batch: Tensor) -> None:
    """Raise UsageError where an image of a batch (B, ...) has numbers that are not finite."""
    if broken := [i for i, image in enumerate(batch) if not image.isfinite().all()]:
        rule, remedy = "numbers that are finite", "Look at the transform, or leave the image out."
        raise UsageError(f"image {broken[0]} of a batch", got="NaN or infinite numbers", rule=rule, remedy=remedy)


def as_targets(classifier: Classifier, targets: Tensor | Array | Sequence[int | str] | int | str, n: int) -> Tensor:
    """Look up the class of each of n images: int64 (n,); one class stands for all. Raises UsageError for an unknown
    name, no integers, or another number of them."""
    one = isinstance(targets, str | int)
    given = [targets] * n if one else targets
    if isinstance(given, list | tuple) and any(isinstance(name, str) for name in given):
        given = [_look_up(classifier, name) if isinstance(name, str) else name for name in given]
    try:
        classes = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        rule = "a class, or one for each image, by number or by name"
        raise UsageError("targets are not classes", got=error, rule=rule) from error
    if classes.is_floating_point() or classes.is_complex():
        raise UsageError("targets are not integers", got=classes.dtype, rule="numbers of the model's outputs")
    if classes.shape != (n,):
        rule, remedy = f"one for each of {n} images", "Give a class for each image: [3] * len(batch)."
        raise UsageError("targets", got=tuple(classes.shape), rule=rule, remedy=remedy)
    return classes


def predict(classifier: Classifier, batch: Tensor) -> Tensor:
    """Predict the class of each image of a batch (B, C, H, W): int64 (B,)."""
    with evaluation_mode(classifier.module), torch.no_grad():
        return classifier.logits(batch.to(classifier.device)).argmax(1)


def _look_up(classifier: Classifier, name: str) -> int:
    if classifier.classes is None:
        remedy = "Give the number of the output, or audit.load_model(..., classes=names)."
        raise UsageError("a class is given by name, but the model has no names", got=repr(name), remedy=remedy)
    if name not in classifier.classes:
        raise unknown_name("class", name, classifier.classes)
    return classifier.classes.index(name)
