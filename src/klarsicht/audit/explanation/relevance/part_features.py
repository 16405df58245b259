"""Parts of relevance maps and their appearance: activations of a middle layer, averaged over each part."""

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
    """Segment B maps (B, G, G) into `parts`, int8 (B, G, G), see numerics.imaging.persistence.Parts.labels, and compute
    their `appearance` from activations (B, C, h, w): float16 (B, MAX_PARTS, C), zero for absent parts. Raises
    UsageError where activations have no spatial axes."""
    if activations.ndim != 4:
        got, rule = f"shape {activations.shape[1:]}", "its input must be (channels, height, width)"
        remedy = "Name a convolution by --parts-layer."
        raise UsageError("the middle layer has no positions", got=got, rule=rule, remedy=remedy)
    labels = segment(maps, most=MAX_PARTS).labels
    masses = np.maximum(maps, 0)[:, None] * (labels[:, None] == np.arange(1, MAX_PARTS + 1)[:, None, None])
    return {"parts": labels, "appearance": appearance(masses, activations).astype(np.float16)}


def appearance(masses: Floats, activations: Floats) -> Floats:
    """Compute the appearance of P parts with masses (B, P, G, G): activations (B, C, h, w) averaged with the part's
    mass, sum_yx m_yx a_cyx, at unit 2-norm, float64 (B, P, C). Masses are resized to the grid of the layer by area. A
    part without mass, or under which no channel is active, is zero."""
    A, B = (pooling_matrix(masses.shape[-1], side).numpy() for side in activations.shape[2:])
    weights = A @ masses @ B.T
    seen = np.einsum("bphw,bchw->bpc", weights, activations.astype(np.float64), optimize=True)
    length = np.linalg.norm(seen, axis=2, keepdims=True)
    return np.asarray(np.divide(seen, length, out=np.zeros_like(seen), where=length > 0))
