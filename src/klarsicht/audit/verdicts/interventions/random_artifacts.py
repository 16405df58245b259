"""Put artifacts of random families on images, each as strong as a given change of them: artifacts of no class, beside
which the rise by one is judged where outputs are few."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.detectors.artifact_embedding import taught_families
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import plant_on_levels
from klarsicht.ground.arrays import Floats

PLANTED_SIDE = 28  # pixels of the shorter side from which families can be drawn; smaller images are enlarged for it
LEAST_CHANGE = 1e-3  # grey levels, of a draw that changes these images


def put_random_artifacts(
    images: Tensor, strength: float, pixel_scale: PixelScale, rng: np.random.Generator, count: int
) -> Iterator[Tensor]:
    """Yield images (n, C, H, W) under `count` artifacts, each a draw of a random family whose change of pixel values is
    scaled to the root mean square `strength`, in grey levels, before it is cut off at black and white."""
    levels = np.stack([pixel_scale.levels(image) for image in images])
    plain, families = levels.astype(np.float32), taught_families(images.shape[1])
    times = -(-PLANTED_SIDE // min(images.shape[2:]))
    large = levels.repeat(times, 1).repeat(times, 2)
    for _ in range(count):
        artifact = FAMILIES[rng.choice(families)](rng)
        planted = np.stack([plant_on_levels(image, artifact, rng) for image in large]).astype(np.float32)
        blocks = planted.reshape(len(plain), plain.shape[1], times, plain.shape[2], times, -1)
        change = blocks.mean((2, 4)) - plain
        scaled = change * (strength / max(root_mean_square(change), LEAST_CHANGE))
        yield pixel_scale.inputs(np.clip(plain + scaled, 0, 255))


def strength_of(after: Tensor, images: Tensor, pixel_scale: PixelScale) -> float:
    """Compute the root mean square, in grey levels, by which images (n, C, H, W) were changed."""
    return root_mean_square((after - images).numpy() * (255 / (pixel_scale.white - pixel_scale.black))[:, None, None])


def root_mean_square(values: Floats) -> float:
    """Compute the root of the mean square of values of any shape."""
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
