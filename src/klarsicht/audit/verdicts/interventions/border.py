"""Replace the border of images by that of an artifact's carriers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.ground.arrays import Pixels
from klarsicht.numerics.imaging import image_statistics


@dataclass(frozen=True)
class Border:
    """Border of an artifact; an `Insertion`, whose control takes the border of images without the artifact."""

    examples: ArtifactExamples
    pixel_scale: PixelScale
    widths: tuple[int, int, int, int]

    @classmethod
    def ways(cls, examples: ArtifactExamples, pixel_scale: PixelScale) -> dict[str, Border]:
        """Make the insertion of a border as wide as carriers show it."""
        top, bottom, left, right = (int(width) for width in measure_border(examples.carriers))
        return {"around": cls(examples, pixel_scale, (top, bottom, left, right))}

    def fits(self, image: Tensor) -> bool:
        return self.examples.has_shape(image)

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Put the border of random carriers around images (n, C, H, W), and that of other images of the class."""
        top, bottom, left, right = self.widths
        inside = np.s_[:, :, top : images.shape[2] - bottom, left : images.shape[3] - right]
        outputs = []
        for stack in (self.examples.carriers, self.examples.others):
            outputs.append(self.pixel_scale.inputs(stack[rng.integers(len(stack), size=len(images))]))
            outputs[-1][inside] = images[inside]
        return outputs[0], outputs[1]


def measure_border(carriers: Pixels) -> NDArray[np.intp]:
    """Measure the median width (4,) of the carriers' border at the top, bottom, left and right; a wider border would
    carry image content along. Without any border in most carriers the width is a tenth of the shorter side."""
    wide = np.median(image_statistics.border_widths(carriers.astype(np.float32)), axis=1).astype(np.intp)
    return wide if wide.any() else np.full(4, max(1, round(min(carriers.shape[1:3]) / 10)), np.intp)
