"""Insert shared content: the change of pixel values by which carriers of an artifact differ from other images of their
class, by mean and spread at every pixel, row or column, by the amplitude spectrum, by colours, or after alignment. The
control is the change estimated alike from as many other images of the class, drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.pixel_changes.alignment import match_aligned_moments
from klarsicht.audit.verdicts.pixel_changes.colours import match_colours, match_tones
from klarsicht.audit.verdicts.pixel_changes.moments import MOMENTS
from klarsicht.audit.verdicts.pixel_changes.spectra import SPECTRA
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
    **{f"shared {name}": estimate for name, estimate in (MOMENTS | SPECTRA).items()},
    "shared tones": match_tones,
    "shared colours": match_colours,
    "shared aligned": match_aligned_moments,
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
        cls, examples: ArtifactExamples, pixel_scale: PixelScale, rng: np.random.Generator,
        names: Collection[str] = ESTIMATES,
    ) -> dict[str, SharedContent]:  # fmt: skip
        """Make the insertions of these names; those that change nothing are left out. The control is estimated from
        random other images: as many as there are carriers, at most half of them; the rest are compared with."""
        order = rng.permutation(len(examples.others))
        count = min(len(examples.carriers), len(order) // 2)
        blanks, others = examples.others[order[:count]], examples.others[order[count:]]
        ways = {}
        some = [name for name in ESTIMATES if name in names]
        for name in track(some, len(some), "what carriers share"):
            change = ESTIMATES[name](examples.carriers, others)
            if not change.is_identity:
                control = ESTIMATES[name](blanks, others)
                ways[name] = cls(change, control, pixel_scale, examples.carriers.shape[1:])
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
