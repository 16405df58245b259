"""Detection of near-duplicate images: the same photograph, re-encoded or resized."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Least correlation of near-duplicates, for grey thumbnails of about 24 pixels a side; at 8 pixels different trousers
# reach .98.
DUPLICATE_CORRELATION = 0.99
BLOCK = 1024  # rows of a product, which bounds memory


def first_duplicates(thumbnails: NDArray[np.floating[Any]], block: int = BLOCK) -> NDArray[np.intp]:
    """Find for each image the first one (n,) that is the same photograph, by the correlation of thumbnails (n, ...),
    closed transitively. Constant thumbnails have no duplicates."""
    n = len(thumbnails)
    flat = thumbnails.reshape(n, int(np.prod(thumbnails.shape[1:]))).astype(np.float32)
    centred = flat - flat.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norm > 1, norm, np.inf)
    alike = (np.triu(unit[a : a + block] @ unit[a:].T, 1) > DUPLICATE_CORRELATION for a in range(0, n, block))
    pairs = [np.argwhere(one) + a for one, a in zip(alike, range(0, n, block), strict=True)]
    links = np.concatenate([*pairs, np.zeros((0, 2), np.intp)])
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    component = connected_components(graph, directed=False)[1]
    first = np.full(n, n, np.intp)
    np.minimum.at(first, component, np.arange(n))
    return np.asarray(first[component])
