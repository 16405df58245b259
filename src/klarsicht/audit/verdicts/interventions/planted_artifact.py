"""Insert a known artifact: one that `audit plant` draws, which no image of the corpus need carry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.synthetic.artifacts import draw_plant
from klarsicht.audit.verdicts.synthetic.families import COLOUR_ONLY
from klarsicht.audit.verdicts.synthetic.planted_image import PlantFunction, plant_on_levels

RGB_CHANNELS: Final = 3


@dataclass(frozen=True)
class PlantedArtifact:
    """Artifact of a kind, or of a family by the seed of its draw; what varies is drawn for every image."""

    kind: str
    seed: int
    pixel_scale: PixelScale

    @cached_property
    def plant(self) -> PlantFunction:
        """Function that plants the artifact in an image; raises UsageError for an unknown kind or family."""
        return draw_plant(self.kind, self.seed)

    def fits(self, image: Tensor) -> bool:
        """Test whether the artifact can be drawn on an image (C, H, W): families of colour need three channels."""
        return image.ndim == 3 and (image.shape[0] == RGB_CHANNELS or self.kind not in COLOUR_ONLY)

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return images (n, C, H, W), as model inputs, with the artifact, and the control: the images as they are."""
        planted = [plant_on_levels(self.pixel_scale.levels(image), self.plant, rng) for image in images]
        return self.pixel_scale.inputs(np.stack(planted)), images

    def __str__(self) -> str:
        return self.kind

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "seed": self.seed} | self.pixel_scale.to_json()

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        return cls(record["kind"], record["seed"], PixelScale.from_json(record))
