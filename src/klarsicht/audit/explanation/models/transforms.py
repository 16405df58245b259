"""Transforms for models that bring none along."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from klarsicht.audit.explanation.models.entry_point import Transform
from klarsicht.audit.explanation.models.exported_programs import ExportedNetwork
from klarsicht.ground.errors import ModelError

MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow colour modes by number of channels."""


@dataclass(frozen=True)
class PhotographTransform:
    """Transform for photographs: shorter side to `resize` px, centre crop, RGB in [0, 1], then (v - mean) / std."""

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"  # of torchvision's InterpolationMode

    def __call__(self, picture: Image.Image) -> Tensor:
        from torchvision.transforms import InterpolationMode  # a second of imports, for models that need it
        from torchvision.transforms import functional as pictures

        way = InterpolationMode(self.interpolation)
        resized = pictures.resize(picture.convert("RGB"), self.resize, way, antialias=True)
        pixels = pictures.to_tensor(pictures.center_crop(resized, self.crop))
        result: Tensor = pictures.normalize(pixels, self.mean, self.std)
        return result


@dataclass(frozen=True)
class PixelTransform:
    """Transform that keeps the size: pixel values in [0, 1], in the Pillow colour mode that the first layer takes."""

    mode: str = "RGB"

    def __call__(self, picture: Image.Image) -> Tensor:
        levels = torch.tensor(np.atleast_3d(np.asarray(picture.convert(self.mode))))
        return levels.movedim(-1, 0).contiguous() / 255


def plain_transform(module: nn.Module) -> Transform:
    """Choose the `PixelTransform` for the input channels of the first layer: grey, RGB or RGBA; raises ModelError for
    another number of channels than 1, 3 or 4."""
    channels = input_channels(module)
    if channels not in MODES:
        rule = "the first layer takes 1, 3 or 4"
        remedy = "Return a pair (module, transform); klarsicht.audit.ArrayTransform takes arrays of any channels."
        raise ModelError("no picture has that many channels", got=channels, rule=rule, remedy=remedy)
    return PixelTransform(MODES[channels])


def input_channels(module: nn.Module) -> int:
    """Read the input channels of the first layer with weights; 3 where it does not say."""
    if exported := next((m for m in module.modules() if isinstance(m, ExportedNetwork)), None):
        return exported.channels
    first = next((m for m in module.modules() if has_own_weights(m)), None)
    if isinstance(first, nn.Linear):  # its input is a flattened square image
        return 1 if math.isqrt(first.in_features) ** 2 == first.in_features else 3
    return int(getattr(first, "in_channels", 3))


def has_own_weights(module: nn.Module) -> bool:
    """Test for a layer with a weight of two or more axes."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2
