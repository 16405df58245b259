"""Paste the patch of an artifact, cut out of its carriers, into other images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples, covers_artifact_only, grow_window
from klarsicht.ground.arrays import Pixels


@dataclass(frozen=True)
class Patch:
    """Patch of an artifact; an `Insertion`, whose control pastes patches of images without the artifact: of the same
    class, as a carrier's patch also shows content of its class, or of the images themselves where the mark is opaque.
    Patches are pasted where they are in their own images, or `anywhere`."""

    examples: ArtifactExamples
    pixel_scale: PixelScale
    anywhere: bool = False

    @classmethod
    def ways(cls, examples: ArtifactExamples, pixel_scale: PixelScale) -> dict[str, Patch]:
        """Make the insertions by the name of the place; the detected window is grown to the whole artifact."""
        whole = grow_window(examples)
        return {"own place": cls(whole, pixel_scale), "any place": cls(whole, pixel_scale, anywhere=True)}

    @cached_property
    def opaque(self) -> bool:
        """Whether the patch shows the artifact and nothing else."""
        return covers_artifact_only(self.examples)

    def fits(self, image: Tensor) -> bool:
        return self.examples.has_shape(image)

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Paste random carriers' patches into images (n, C, H, W), and those of the control at the same places."""
        n, examples = len(images), self.examples
        blanks = len(images) if self.opaque else len(examples.others)
        giver, blank = rng.integers(len(examples.carriers), size=n), rng.integers(blanks, size=n)
        own = examples.places[giver]
        drawn = draw_places(images, examples.extent, n, rng)  # also where unused: both ways consume the same numbers
        target = drawn if self.anywhere else own
        control = iter(images[blank]) if self.opaque else self.read(examples.others[blank])
        return (
            paste_windows(images, target, self.read(examples.carriers[giver]), own, examples.extent),
            paste_windows(images, target, control, own, examples.extent),
        )

    def rivals(self, images: Tensor, rng: np.random.Generator, count: int) -> Iterator[Tensor]:
        """Yield images (n, C, H, W) with another window of the artifact's size in its place, `count` times."""
        n, examples = len(images), self.examples
        for _ in range(count):
            if self.opaque:
                donor = images[int(rng.integers(n))]
            else:
                (donor,) = self.read(examples.others[[rng.integers(len(examples.others))]])
            source = draw_places(images, examples.extent, 1, rng)
            own = examples.places[rng.integers(len(examples.places), size=n)]
            target = draw_places(images, examples.extent, n, rng) if self.anywhere else own
            yield paste_windows(images, target, repeat(donor), np.repeat(source, n, 0), examples.extent)

    def read(self, levels: Pixels) -> Iterator[Tensor]:
        """Yield the model inputs (C, H, W) of pixel values (n, H, W, C), one by one."""
        return (self.pixel_scale.inputs(one[None])[0] for one in levels)


def draw_places(images: Tensor, extent: tuple[int, int], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw random places (count, 2) at which a window fits into images (n, C, H, W)."""
    sides = zip(images.shape[2:], extent, strict=True)
    return np.stack([rng.integers(0, n - side + 1, count) for n, side in sides], 1)


def paste_windows(
    images: Tensor, target: NDArray[np.intp], windows: Iterable[Tensor], source: NDArray[np.intp],
    extent: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Paste windows of other images (C, H, W) at places (n, 2) into images (n, C, H, W) at places (n, 2)."""
    h, w = extent
    out = images.clone()
    for image, (a, b), giver, (c, d) in zip(out, target, windows, source, strict=False):
        image[:, a : a + h, b : b + w] = giver[:, c : c + h, d : d + w]
    return out
