"""Insert the pixels by which an embedding knows an artifact: those whose windows, blanked, would move the embedding of
carriers back most, towards other images of the class, are pasted into other images.

Blanking every window of every carrier takes hundreds of passes. Integrated gradients (Sundararajan et al. 2017) from
the blurred image to the carrier give each pixel its part of the whole move, and a window the sum of its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, uniform_filter
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.results.class_verdict import WHOLE_SHARE
from klarsicht.audit.results.words import KNOWN_SHARES
from klarsicht.audit.verdicts.detectors.artifact_embedding import ArtifactEmbedding, as_input
from klarsicht.audit.verdicts.detectors.detection import ImageStack
from klarsicht.audit.verdicts.detectors.outlying_groups import shrink_to_embed
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.recognition import recognised_share, sets_apart
from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints, Pixels
from klarsicht.numerics.imaging.relevance_masks import enlarge_masks

GIVERS: Final = 24  # carriers whose pixels are pasted, at most
DIRECTION_IMAGES: Final = 64  # carriers, and as many others, whose means give the direction
PART_WINDOW: Final = 7  # pixels, at the size at which images are embedded: side of a window
BLANKING_BLUR: Final = (
    8.0  # pixels, likewise: deviation of the Gaussian that blanks an image; a flat window would be an artifact
)
PATH_POINTS: Final = 8  # points between the blurred image and the carrier at which the gradient is taken


@dataclass(frozen=True)
class KnownPixels:
    """Pixels of carriers under masks of their own; an `Insertion`, whose control pastes those of other images of the
    class under the same masks, for they show content as well. donors, masks: uint8 (m, H, W, C) and bool (m, H, W).
    blanks: uint8 (k, H, W, C)."""

    donors: Pixels
    masks: Bools
    blanks: Pixels
    pixel_scale: PixelScale

    @classmethod
    def ways(
        cls, examples: ArtifactExamples, pixel_scale: PixelScale, network: ArtifactEmbedding
    ) -> dict[str, KnownPixels]:
        """Make the insertions, by name, of the shares of each image that are pasted: those that the embedding
        recognises on other images of the class; none where it does not set carriers apart."""
        own, other = (shrink_to_embed(ImageStack(x[:DIRECTION_IMAGES])) for x in (examples.carriers, examples.others))
        vectors, beside = network.embed(own), network.embed(other)
        if not sets_apart(vectors, beside):
            return {}
        importance = measure_importance(own[:GIVERS], network, vectors.mean(0) - beside.mean(0))
        donors, others, shape = examples.carriers[:GIVERS], examples.others, examples.carriers.shape[1:3]
        ways = {}
        for name, share in KNOWN_SHARES.items():
            way = cls(donors, enlarge_masks(select_largest(importance, share), shape), others, pixel_scale)
            after = network.embed(shrink_to_embed(ImageStack(way.mark(others[:DIRECTION_IMAGES]))))
            if recognised_share(vectors, beside, after) >= WHOLE_SHARE:
                ways[name] = way
        return ways

    def mark(self, levels: Pixels) -> Pixels:
        """Paste the donors' pixels, in turn, into images (n, H, W, C)."""
        giver = np.arange(len(levels)) % len(self.donors)
        return np.asarray(np.where(self.masks[giver][..., None], self.donors[giver], levels), np.uint8)

    def fits(self, image: Tensor) -> bool:
        return tuple(image.permute(1, 2, 0).shape) == self.donors.shape[1:]

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Paste random carriers' pixels into images (n, C, H, W), and those of the control under the same masks."""
        giver, blank = (rng.integers(len(some), size=len(images)) for some in (self.donors, self.blanks))
        return self.paste(images, giver, self.donors[giver]), self.paste(images, giver, self.blanks[blank])

    def rivals(self, images: Tensor, rng: np.random.Generator, count: int) -> Iterator[Tensor]:
        """Yield images (n, C, H, W) with the pixels of another image of the class under the same masks, `count`
        times."""
        for _ in range(count):
            giver = rng.integers(len(self.donors), size=len(images))
            blank = np.full(len(images), rng.integers(len(self.blanks)))
            yield self.paste(images, giver, self.blanks[blank])

    def paste(self, images: Tensor, giver: Ints, levels: Pixels) -> Tensor:
        """Paste pixels of images (n, H, W, C) under the masks of donors with numbers (n,)."""
        under = torch.from_numpy(self.masks[giver])[:, None]
        return torch.where(under, self.pixel_scale.inputs(levels).to(images), images)


def measure_importance(images: Pixels, network: ArtifactEmbedding, direction: Doubles) -> Floats:
    """Measure for each pixel of images, at the size at which they are embedded, what its window moves the embedding
    along a direction (d,): (m, h, w), the mean of the pixels' parts."""
    parts = integrate_gradients(images, network, direction)
    return np.asarray(uniform_filter(parts, (0, PART_WINDOW, PART_WINDOW)))


def integrate_gradients(images: Pixels, network: ArtifactEmbedding, direction: Doubles) -> Floats:
    """Compute each pixel's part in the move of the embedding along a direction (d,) from the blurred images (m, h, w,
    C) to the images: the mean gradient on the straight line between them, times the difference; (m, h, w)."""
    blanks = gaussian_filter(images.astype(np.float32), (0, BLANKING_BLUR, BLANKING_BLUR, 0))
    first, last, along = as_input(blanks), as_input(images), torch.from_numpy(direction).float()
    total = torch.zeros_like(first)
    with evaluation_mode(network), torch.enable_grad():
        for share in (np.arange(PATH_POINTS) + 0.5) / PATH_POINTS:
            x = (first + float(share) * (last - first)).requires_grad_(True)
            total += torch.autograd.grad((network(x) @ along).sum(), x)[0]
    return np.asarray((total / PATH_POINTS * (last - first)).sum(1).numpy())


def select_largest(values: Floats, share: float) -> Bools:
    """Select a share of each image's pixels (m, h, w), those of the largest values."""
    edge = np.quantile(values.reshape(len(values), -1), 1 - share, axis=1)
    return np.asarray(values > edge[:, None, None])
