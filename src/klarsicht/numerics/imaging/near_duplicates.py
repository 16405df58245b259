"""Which images are the same photograph, re-encoded or resized?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ALIKE = 0.99  # correlation of thumbnails of some 24 pixels a side, grey; at 8 pixels different trousers reach .98
BLOCK = 1024  # rows of a product: memory grows with it, not with the square of the images


def originals(thumbnails: NDArray[np.floating[Any]], alike: float = ALIKE, block: int = BLOCK) -> NDArray[np.intp]:
    """For each image (n,) the first one that is the same photograph; its own number where it is the first.

    Thumbnails (n, ...) are compared by correlation. What is linked through a third image counts as the same.
    Constant thumbnails are like nothing.
    """
    n = len(thumbnails)
    flat = thumbnails.reshape(n, int(np.prod(thumbnails.shape[1:]))).astype(np.float32)
    centred = flat - flat.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norm > 1, norm, np.inf)
    pairs = [np.argwhere(np.triu(unit[a : a + block] @ unit[a:].T, 1) > alike) + a for a in range(0, n, block)]
    links = np.concatenate([*pairs, np.zeros((0, 2), np.intp)])
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    component = connected_components(graph, directed=False)[1]
    first = np.full(n, n, np.intp)
    np.minimum.at(first, component, np.arange(n))
    return np.asarray(first[component])
