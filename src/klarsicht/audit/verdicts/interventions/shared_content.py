"""Insert shared content: the change of pixel values by which carriers of an artifact differ from other images of their
class, by mean and spread at every pixel, row or column, by the amplitude spectrum, by colours, or after alignment. The
control is the change estimated alike from as many other images of the class, drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.detectors.artifact_embedding import taught_families
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.pixel_changes.alignment import match_aligned_moments
from klarsicht.audit.verdicts.pixel_changes.colours import match_colours, match_tones
from klarsicht.audit.verdicts.pixel_changes.moments import MOMENTS
from klarsicht.audit.verdicts.pixel_changes.spectra import SPECTRA
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import plant_on_levels
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.ground.progress import track


class PixelChange(Protocol):
    """Protocol of a change of pixel values."""

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""

    def apply(self, x: Floats, rng: np.random.Generator, /) -> Floats:
        """Change pixel values (n, H, W, C); the result may leave 0 to 255."""


Estimate = Callable[[Pixels, Pixels], PixelChange]  # from carriers (m, H, W, C) and others (k, H, W, C)

ESTIMATES: Final[dict[str, Estimate]] = {
    **MOMENTS,
    **SPECTRA,
    "tones": match_tones,
    "colours": match_colours,
    "aligned": match_aligned_moments,
}
"""For each way, the function that estimates the change."""


@dataclass(frozen=True)
class SharedContent:
    """Content that carriers share; an `Insertion`, whose control is that of as many other images of the class."""

    change: PixelChange
    control: PixelChange
    pixel_scale: PixelScale
    shape: tuple[int, ...]

    @classmethod
    def ways(
        cls, examples: ArtifactExamples, pixel_scale: PixelScale, rng: np.random.Generator
    ) -> dict[str, SharedContent]:
        """Make the insertions by the name of the way; those that change nothing are left out. The control is estimated
        from random other images: as many as there are carriers, at most half of them; the rest are compared with."""
        order = rng.permutation(len(examples.others))
        count = min(len(examples.carriers), len(order) // 2)
        blanks, others = examples.others[order[:count]], examples.others[order[count:]]
        ways = {}
        for name, estimate in track(ESTIMATES.items(), len(ESTIMATES), "what carriers share"):
            change = estimate(examples.carriers, others)
            if not change.is_identity:
                ways[f"shared {name}"] = cls(change, estimate(blanks, others), pixel_scale, examples.carriers.shape[1:])
        return ways

    def fits(self, image: Tensor) -> bool:
        return tuple(image.permute(1, 2, 0).shape) == self.shape

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Change images (n, C, H, W) as carriers differ, and as the control images do; both with the same draws."""
        levels = np.stack([self.pixel_scale.levels(image) for image in images]).astype(np.float32)
        seed = int(rng.integers(2**63))
        with_artifact, control = (
            self.pixel_scale.inputs(np.clip(change.apply(levels, np.random.default_rng(seed)), 0, 255)).to(images)
            for change in (self.change, self.control)
        )
        return with_artifact, control

    def rivals(self, images: Tensor, rng: np.random.Generator, count: int) -> Iterator[Tensor]:
        """Yield images (n, C, H, W) under `count` artifacts of no class, each a draw of a random family."""
        levels = [self.pixel_scale.levels(image) for image in images]
        families = taught_families(images.shape[1])
        for _ in range(count):
            artifact = FAMILIES[rng.choice(families)](rng)
            yield self.pixel_scale.inputs(np.stack([plant_on_levels(image, artifact, rng) for image in levels]))
