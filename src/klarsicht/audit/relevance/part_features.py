"""What a middle layer sees under the parts of a relevance map: stored with the maps, before the layer is forgotten."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.relevance.pooling import pooling_matrix
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.persistence import segment

MOST: Final = 8
"""Parts kept of an image, the heaviest."""


def parts_of(maps: Floats, activations: Floats) -> dict[str, NDArray[Any]]:
    """What the store keeps of the parts of B maps (B, G, G), seen by a layer (B, C, h, w).

    Returns:
        `parts`: int8 (B, G, G), numerics.imaging.persistence.Parts.labels.
        `appearance`: float16 (B, MOST, C), of part 1, 2, ...; zero where there is none.

    Raises:
        UsageError: a layer without positions.
    """
    if activations.ndim != 4:
        raise UsageError(
            "the middle layer has no positions",
            got=f"shape {activations.shape[1:]}",
            rule="its input must be (channels, height, width)",
            remedy="Name a convolution by --parts-layer.",
        )
    labels = segment(maps, most=MOST).labels
    masses = np.maximum(maps, 0)[:, None] * (labels[:, None] == np.arange(1, MOST + 1)[:, None, None])
    return {"parts": labels, "appearance": appearance(masses, activations).astype(np.float16)}


def appearance(masses: Floats, activations: Floats) -> Floats:
    """sum_yx m_yx a_cyx / |...|_2: masses (B, P, G, G) resized to the grid of the layer (B, C, h, w) -> (B, P, C).

    Resizing keeps the mass of every cell and spreads it by area; a part without mass, or under which no channel is
    active, stays zero.
    """
    A, B = (pooling_matrix(masses.shape[-1], side).numpy() for side in activations.shape[2:])
    weights = A @ masses @ B.T
    seen = np.einsum("bphw,bchw->bpc", weights, activations.astype(np.float64), optimize=True)
    length = np.linalg.norm(seen, axis=2, keepdims=True)
    return np.asarray(np.divide(seen, length, out=np.zeros_like(seen), where=length > 0))
