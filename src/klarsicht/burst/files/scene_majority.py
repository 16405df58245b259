"""Frames of another scene than most frames of a burst, found by the correlation of thumbnails, which average noise
away. Where noise hides even that, no two frames correlate, and none is called another scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.sparse.csgraph import connected_components

from klarsicht.burst.data.photograph import Planes

THUMBNAIL_CELLS = 96  # along the longer side
COARSE_CONTENT = 6.0  # cells, of the Gaussian whose mean is taken off: scenes share a sky above and a ground below
SEARCHED_CELLS = 12  # cells between two frames, an eighth of the longer side
SAME_SCENE = 0.4  # correlation from which two frames show one scene
OTHER_SCENE = 0.25  # below it with all frames of a scene, a frame shows another one
EMPTY = 1e-12  # energy below which a thumbnail shows nothing


def thumbnail(light: Planes) -> npt.NDArray[np.float64]:
    """Compute a frame's fine content (rows, columns): the root of the light of cells, less its surroundings."""
    H, W = light.shape[1:]
    side = max(1, -(-max(H, W) // THUMBNAIL_CELLS))
    Y, X = max(1, H // side), max(1, W // side)
    h, w = min(side, H), min(side, W)
    means = light[:, : Y * h, : X * w].reshape(-1, Y, h, X, w).mean((0, 2, 4), dtype=np.float64)
    root = np.sqrt(np.maximum(means, 0))
    return np.asarray(root - gaussian_filter(root, COARSE_CONTENT))


def scene_correlations(thumbnails: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Compute the largest normalised cross-correlation (N, N) of each two thumbnails, over shifts of at most
    SEARCHED_CELLS, on the cells where both are; 0 where one of them shows nothing."""
    rows, columns = thumbnails[0].shape
    size = (2 * rows, 2 * columns)
    shifts = [np.r_[0 : min(SEARCHED_CELLS, n - 1) + 1, -min(SEARCHED_CELLS, n - 1) : 0] for n in (rows, columns)]
    near = np.ix_(*shifts)
    inside = fft.rfft2(np.ones((rows, columns)), size)
    content = [fft.rfft2(t, size) for t in thumbnails]
    energy = [fft.rfft2(t * t, size) for t in thumbnails]
    before = [fft.irfft2(e.conj() * inside, size)[near] for e in energy]
    after = [fft.irfft2(inside.conj() * e, size)[near] for e in energy]
    out = np.eye(len(thumbnails))
    for i in range(len(thumbnails)):
        for j in range(i):
            product = fft.irfft2(content[i].conj() * content[j], size)[near]
            norm = before[i] * after[j]
            seen = norm > EMPTY
            out[i, j] = out[j, i] = (product[seen] / np.sqrt(norm[seen])).max() if seen.any() else 0.0
    return out


def outliers(correlations: npt.NDArray[np.float64]) -> list[int]:
    """Return the frames of another scene than that of more than half of all frames; none where there is no such scene.
    correlations: (N, N). A scene is a set of frames that are connected by correlations of at least SAME_SCENE; a frame
    below OTHER_SCENE with all of them shows another."""
    count, member = connected_components(correlations >= SAME_SCENE, directed=False)
    sizes = np.bincount(member, minlength=count)
    if 2 * sizes.max() <= len(correlations):
        return []
    scene = member == sizes.argmax()
    return [int(i) for i in np.flatnonzero(correlations[:, scene].max(1) < OTHER_SCENE)]
