"""Detect a group of a class's images that stands apart in a description which knows no artifact beforehand, or in an
embedding that was learned on the audited images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from klarsicht.audit.verdicts.detectors.artifact_embedding import EMBEDDED_SIDE, ArtifactEmbedding
from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack, Measure, measure_in_blocks
from klarsicht.audit.verdicts.detectors.patch_matches import comparison_rows
from klarsicht.audit.verdicts.detectors.templates import one_per_source
from klarsicht.audit.verdicts.synthetic.planted_image import round_to_levels
from klarsicht.ground.arrays import Doubles, Floats, Ints, Pixels
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.outlying_group import REFERENCE_SHARE, Whitening, find_outlying_group

SHRUNK = 50  # pixels on the shorter side, for descriptions in which resolution does not matter
LARGEST_CLASS = 2000  # images of a class that groups are searched in; of a larger one, a sample


@dataclass(frozen=True)
class OutlyingGroups:
    """Detector of a group that stands apart under one description, from images (n, H, W, C) of levels 0 to 255 to
    vectors (n, d), shrunk to SHRUNK pixels first where it says so; its artifact has no place."""

    describe: Measure
    shrunk: bool = False
    change: str = "shared"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        yield detect_group(images, name, self.vectors)

    def vectors(self, stack: ImageStack) -> Floats:
        """Describe the images of a stack (n, d)."""
        return measure_in_blocks(self.describe, stack.at_most(SHRUNK) if self.shrunk else stack.levels)


@dataclass(frozen=True)
class EmbeddedGroups:
    """Detector of a group that stands apart in the learned embedding; scores are 0 without one. Of an artifact that
    other classes hold as well, the smallest of the `shares` of their images beyond the edge leaves only the clearest
    carriers. Without `whiten` directions are differences of means, and where the classes of the pool are known, a tenth
    of them is left out of each direction."""

    shares: tuple[float, ...] = (0.002, 0.01)
    whiten: bool = True
    change: str = "shared"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        network = images.embedding
        for share in self.shares:
            if network is None:
                yield Detection(f"{name} {share:g}", 0.0, np.zeros(0, np.intp))
            else:
                classes = None if self.whiten else images.pool_classes
                found = detect_group(
                    images, name, lambda shown: embed_once(network, shown), share, self.whiten, classes
                )
                yield replace(found, name=f"{name} {share:g}")


def embed_once(network: ArtifactEmbedding, stack: ImageStack) -> Doubles:
    """Embed the images of a stack (n, DIMENSION); a network embeds a stack once."""
    return stack.compute_once(f"embedded {id(network)}", lambda: network.embed(shrink_to_embed(stack)))


def shrink_to_embed(stack: ImageStack) -> Pixels:
    """Shrink the images of a stack to the side at which they are embedded: uint8 (n, H, W, C)."""
    if min(stack.levels.shape[1:3]) <= EMBEDDED_SIDE:
        return stack.levels
    return round_to_levels(stack.shrunk_to(EMBEDDED_SIDE))


def detect_group(
    images: ClassImages, name: str, describe: Callable[[ImageStack], Floats], share: float = REFERENCE_SHARE,
    whiten: bool = True, pool_classes: Ints | None = None,
) -> Detection:  # fmt: skip
    """Detect the group that stands apart most under a description (n, d), whitened or as it is, with a share of other
    images beyond its edge. pool_classes: int (m,), of the images of the pool, a tenth of which is left out of each
    direction; None: none."""
    distinct = one_per_source(images)
    if distinct.sum() > LARGEST_CLASS:
        kept = generator(images.seed, "outlying").permutation(np.flatnonzero(distinct))[:LARGEST_CLASS]
        distinct = np.isin(np.arange(len(distinct)), kept)
    pair = whiten_class(images, name, describe) if whiten else map(describe, (images.own, images.pool))
    own, pool = (np.asarray(vectors, np.float64) for vectors in pair)
    rows = comparison_rows(images)
    classes = None if pool_classes is None else pool_classes[rows]
    found = find_outlying_group(own, pool[rows], images.half, distinct, images.seed, share, whiten, classes)
    return Detection(name, found.score, np.flatnonzero(found.member))


def whiten_class(images: ClassImages, name: str, describe: Callable[[ImageStack], Floats]) -> tuple[Doubles, Doubles]:
    """Whiten a description of the images of a class and of the pool by the pool: (n, r) and (m, r)."""
    pool = images.pool.compute_once(f"vectors {name}", lambda: describe(images.pool))
    whitening = images.pool.compute_once(f"whitening {name}", lambda: Whitening.of(pool))
    reference = images.pool.compute_once(f"whitened {name}", lambda: whitening(pool))
    return images.own.compute_once(f"whitened {name}", lambda: whitening(describe(images.own))), reference
