"""Put random artifacts on images: what an artifact of no class does to an output, as a null distribution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.detectors.artifact_embedding import taught_families
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import plant_on_levels


def put_random_artifacts(x: Tensor, scale: PixelScale, rng: np.random.Generator, count: int) -> Iterator[Tensor]:
    """Yield images x (n, C, H, W), as model inputs, under `count` artifacts, each a draw of a random family."""
    levels = [scale.levels(image) for image in x]
    families = taught_families(x.shape[1])
    for _ in range(count):
        artifact = FAMILIES[rng.choice(families)].draw(rng)
        yield scale.inputs(np.stack([plant_on_levels(image, artifact, rng) for image in levels]))
