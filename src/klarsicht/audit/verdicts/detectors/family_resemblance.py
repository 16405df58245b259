"""Compare the artifact of a group of images with artifacts of known families, in the learned embedding.

Artifacts of every family that the embedding was taught are planted in other images of the class, and the shift of their
embeddings is compared with that of the group's. A group whose artifact belongs to no family has a direction of its
own."""

from __future__ import annotations

import numpy as np

from klarsicht.audit.verdicts.detectors.artifact_embedding import ArtifactEmbedding, taught_families
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import plant_on_levels
from klarsicht.ground.arrays import Bools, Doubles, Pixels
from klarsicht.ground.seeding import generator

FAMILY_DRAWS, PLANTED = 6, 12  # artifacts that are drawn of each family, and images that each is planted in
LEAST_COSINE = 0.8  # least cosine at which a family is named; below, the artifact's own is seldom among the first
NAMED_FAMILIES = 3  # families named, at most


def name_resembled_families(embedding: ArtifactEmbedding, levels: Pixels, carries: Bools, seed: int) -> tuple[str, ...]:
    """Name the families whose artifacts shift embeddings most alike to those of the carriers, most alike first: at most
    NAMED_FAMILIES, none where no cosine reaches LEAST_COSINE or no image is without the artifact. levels: uint8 (n, H,
    W, C), images of a class at the side at which images are embedded. carries: bool (n,), images with the artifact."""
    if not carries.any() or carries.all():
        return ()
    alike = family_cosines(embedding, levels, carries, seed)
    order = sorted(alike, key=lambda family: -alike[family])
    return tuple(family for family in order[:NAMED_FAMILIES] if alike[family] >= LEAST_COSINE)


def family_cosines(embedding: ArtifactEmbedding, levels: Pixels, carries: Bools, seed: int) -> dict[str, float]:
    """Compute for each family the largest cosine, over FAMILY_DRAWS artifacts, of their shift with the carriers' shift:
    the mean embedding with the artifact less that without, (DIMENSION,)."""
    vectors = embedding.embed(levels)
    shift = vectors[carries].mean(0) - vectors[~carries].mean(0)
    rng = generator(seed, "resemblance")
    chosen = rng.permutation(np.flatnonzero(~carries))[:PLANTED]
    plain, before = levels[chosen], vectors[chosen].mean(0)
    cosines = {}
    for family in taught_families(levels.shape[-1]):
        artifacts = [FAMILIES[family](rng) for _ in range(FAMILY_DRAWS)]
        planted = np.stack([plant_on_levels(image, artifact, rng) for artifact in artifacts for image in plain])
        shifts = embedding.embed(planted).reshape(FAMILY_DRAWS, len(plain), -1).mean(1) - before
        cosines[family] = max(cosine(one, shift) for one in shifts)
    return cosines


def cosine(a: Doubles, b: Doubles) -> float:
    """Compute the cosine between two vectors; 0 where one has no length."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0
