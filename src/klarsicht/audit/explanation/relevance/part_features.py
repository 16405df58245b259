"""Parts of relevance maps and their appearance: activations of a middle layer, averaged over each part.

They are computed together with the maps, since the activations of the middle layer are not stored.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.relevance.pooling import pooling_matrix
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.persistence import segment

MAX_PARTS: Final = 8
"""Largest number of parts kept for an image, those with most relevance."""


def parts_of(maps: Floats, activations: Floats) -> dict[str, NDArray[Any]]:
    """Segment B maps (B, G, G) into parts, and compute their appearance from activations (B, C, h, w).

    Returns:
        `parts`: int8 (B, G, G), numerics.imaging.persistence.Parts.labels.
        `appearance`: float16 (B, n, C) with n = MAX_PARTS, of parts 1, 2, ...; zero for absent parts.

    Raises:
        UsageError: the activations have no spatial axes.
    """
    if activations.ndim != 4:
        raise UsageError(
            "the middle layer has no positions",
            got=f"shape {activations.shape[1:]}",
            rule="its input must be (channels, height, width)",
            remedy="Name a convolution by --parts-layer.",
        )
    labels = segment(maps, most=MAX_PARTS).labels
    masses = np.maximum(maps, 0)[:, None] * (labels[:, None] == np.arange(1, MAX_PARTS + 1)[:, None, None])
    return {"parts": labels, "appearance": appearance(masses, activations).astype(np.float16)}


def appearance(masses: Floats, activations: Floats) -> Floats:
    """Compute the appearance of parts: activations averaged with the part's mass, sum_yx m_yx a_cyx, at unit 2-norm.

    Masses are resized to the grid of the layer by area, which conserves the sum. A part without mass, or under which
    no channel is active, is zero.

    Args:
        masses: (B, P, G, G), positive relevance of each part.
        activations: (B, C, h, w).

    Returns:
        float64 (B, P, C).
    """
    A, B = (pooling_matrix(masses.shape[-1], side).numpy() for side in activations.shape[2:])
    weights = A @ masses @ B.T
    seen = np.einsum("bphw,bchw->bpc", weights, activations.astype(np.float64), optimize=True)
    length = np.linalg.norm(seen, axis=2, keepdims=True)
    return np.asarray(np.divide(seen, length, out=np.zeros_like(seen), where=length > 0))
