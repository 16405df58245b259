"""Parts of the images of a class, such as their border, that replace those of other images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.image_parts import IMAGE_PARTS, PartImages
from klarsicht.ground.arrays import Pixels


@dataclass(frozen=True)
class ClassParts:
    """Artifact that every image of a class carries: parts that are exchanged with those of other classes. parts: names
    of image_parts.IMAGE_PARTS, without the background. donors: uint8 (n, H, W, C), images of the class. others: uint8
    (m, H, W, C), images of other classes. pixel_scale: map between pixel values and model inputs."""

    parts: tuple[str, ...]
    donors: Pixels
    others: Pixels
    pixel_scale: PixelScale

    def fits(self, image: Tensor) -> bool:
        """Test whether an image (C, H, W) has the shape of the donors."""
        height, width, channels = self.donors.shape[1:]
        return tuple(image.shape) == (channels, height, width)

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return images (n, C, H, W), as model inputs, with the parts of images of the class, and the control: with
        those of images of other classes."""
        levels = np.stack([self.pixel_scale.levels(image) for image in images])
        drawn = (donors[rng.integers(len(donors), size=len(levels))] for donors in (self.donors, self.others))
        changed, control = (self.pixel_scale.inputs(self.exchange(levels, donors)) for donors in drawn)
        return changed, control

    def take_away(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Replace the parts of an image (C, H, W), as model input, by those of an image of another class."""
        return self.put(image[None], rng)[1][0]

    def exchange(self, levels: Pixels, donors: Pixels) -> Pixels:
        """Replace the parts of images (n, H, W, C) by those of as many donors."""
        for part in self.parts:
            levels = IMAGE_PARTS[part].exchange(PartImages(levels), PartImages(donors))
        return levels

    def __str__(self) -> str:
        return " and ".join(self.parts)

    def arrays(self) -> dict[str, Pixels]:
        """Return the images by name, which are kept beside what `to_json` says."""
        return {"donors": self.donors, "others": self.others}

    def to_json(self) -> dict[str, Any]:
        """Return parts and pixel scale as JSON values."""
        return {"parts": list(self.parts)} | self.pixel_scale.to_json()

    @classmethod
    def from_json(cls, record: Mapping[str, Any], arrays: Mapping[str, Pixels]) -> Self:
        """Return the artifact that `to_json` and `arrays` describe."""
        return cls(tuple(record["parts"]), arrays["donors"], arrays["others"], PixelScale.from_json(record))
