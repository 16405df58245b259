"""Find the window that known carriers share at varying places, and other images do not.

A window counts by the share of carriers that show it, less the share of the other images that do. It is then grown to
the box of what carriers agree on around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label

from klarsicht.audit.explanation.models.inputs import shrink_levels
from klarsicht.audit.verdicts.detectors.bank import FINE
from klarsicht.audit.verdicts.detectors.patch_matches import W, Windows
from klarsicht.audit.verdicts.detectors.templates import WindowField
from klarsicht.ground.arrays import Floats, Ints, Pixels
from klarsicht.numerics.imaging.patches import normalise_windows

SHRUNK_SIDES: Final = (32, 50, 90)
MATCHING: Final = (0.7, 0.8, 0.9)  # correlations above which an image shows a window
SEED_IMAGES: Final = 24  # carriers whose windows are tried
SEED_WINDOWS: Final = 6  # of each, those of most texture
TEMPLATES: Final = 3  # kept after the first comparison
MEAN_ROUNDS: Final = 2  # how often a window is replaced by the mean of its matches
SHOWN_BY: Final = 0.6  # share of carriers that must show the window
SHARE_APART: Final = 0.5  # by which the share of carriers must exceed that of other images of their class
SHOWN_ELSEWHERE: Final = 0.05  # share of images of other classes that may show it
AGREE_SHARE: Final = 0.5  # of the deviation of other images, below which carriers agree at a pixel
REACH: Final = 4  # window sides around a window within which the rest of the artifact is searched
GAP_SHARE: Final = 1 / 6  # of the window's shorter side: width around pixels of the artifact that are of one piece
LARGEST_BOX: Final = (
    0.5  # of the image; carriers that agree in a larger one are alike as a whole, as aligned images are
)
INSIDE: Final = 0.9  # share of carriers in which a pixel of the artifact lies inside the image


@dataclass(frozen=True)
class SharedWindows:
    """Windows in which images show the same: numbers of the carriers that show it (m,), ascending, the upper left pixel
    in each (m, 2), height and width in pixels, and the shares of carriers, of other images of the class, and of images
    of other classes that show the window."""

    rows: Ints
    places: Ints
    extent: tuple[int, int]
    shares: tuple[float, float, float]


def find_shared_windows(carriers: Pixels, others: Pixels, elsewhere: Pixels) -> SharedWindows | None:
    """Find the window that carriers share; None where SHOWN_BY of them share none, or other images show it as well.
    carriers, others, elsewhere: uint8 (n, H, W, C), images of a class with it, without it, and images of other classes,
    which may be none."""
    shorter = min(carriers.shape[1:3])
    best: tuple[float, Ints, Ints, tuple[float, float, float], int] | None = None
    for side in [side for side in SHRUNK_SIDES if side <= shorter] or [shorter]:
        found = _shared_at(side, carriers, others, elsewhere)
        if found is not None and (best is None or found[0] > best[0] + 1e-9):
            best = (*found, side)
    if best is None:
        return None
    _, rows, places, shares, side = best
    size = np.array(carriers.shape[1:3])
    scale = size / np.array(shrink_levels(carriers[:1], side).shape[1:3])
    box = np.minimum(np.ceil(W * scale).astype(int), size)
    corners = np.clip(np.rint(places * scale).astype(int), 0, size - box)
    if (scale > 1).any():
        corners = align_windows(carriers[rows], corners, box, int(np.ceil(scale.max() / 2)))
    grown, extent = grow_shared(carriers[rows], others, corners, box)
    corners, extent = (corners, box) if extent.prod() > LARGEST_BOX * size.prod() else (grown, extent)
    kept = ((corners >= 0) & (corners + extent <= size)).all(1)
    return SharedWindows(rows[kept], corners[kept], (int(extent[0]), int(extent[1])), shares)


def _shared_at(
    side: int, carriers: Pixels, others: Pixels, elsewhere: Pixels
) -> tuple[float, Ints, Ints, tuple[float, float, float]] | None:
    """Find the best window in images shrunk to a side: its worth, carriers that show it, places in them, shares; or
    None."""
    seen = shrink_levels(carriers, side)
    tried = seen[:: max(1, len(seen) // SEED_IMAGES)][:SEED_IMAGES]
    windows = Windows.of(tried, FINE.density(tried), FINE, SEED_WINDOWS)
    templates = windows.vectors[4].reshape(-1, windows.vectors.shape[-1])
    fields = [WindowField.of(shrink_levels(some, side), FINE) for some in (carriers, others, elsewhere) if len(some)]
    for step in range(MEAN_ROUNDS + 1):
        matches = [field.match(templates, np.arange(len(field))) for field in fields]
        worth, edges, shares = _worth([like for like, _ in matches])
        if step < MEAN_ROUNDS:
            few = np.argsort(-worth, kind="stable")[:TEMPLATES]
            templates = np.stack([_mean_match(fields[0], *matches[0], int(i), float(edges[i])) for i in few])
    i = int(worth.argmax())
    own, *rest = (float(share) for share in shares[i])
    other, far = rest[0] if len(others) else 0.0, rest[-1] if len(elsewhere) else 0.0
    if own < SHOWN_BY or own - other < SHARE_APART or far > SHOWN_ELSEWHERE:
        return None
    rows = np.flatnonzero(matches[0][0][i] > edges[i])
    return float(worth[i]), rows, np.asarray(matches[0][1][i][rows]), (own, other, far)


def _worth(alike: list[Floats]) -> tuple[Floats, Floats, Floats]:
    """Compute the worth (t,) of t templates from their largest correlations (t, n) with carriers and with each other
    group: the share of carriers less the largest share of another group, at the best correlation of MATCHING; that
    correlation (t,), and the shares (t, groups)."""
    shares = np.stack([np.stack([(like > edge).mean(1) for like in alike], 1) for edge in MATCHING])
    value = shares[..., 0] - (shares[..., 1:].max(-1) if len(alike) > 1 else 0)
    best, at = value.argmax(0), np.arange(value.shape[1])
    return value[best, at], np.array(MATCHING)[best], shares[best, at]


def _mean_match(field: WindowField, like: Floats, places: Ints, i: int, edge: float) -> NDArray[np.float32]:
    """Compute the normalised mean of the windows, one of each image, that match template i."""
    held = np.flatnonzero(like[i] >= min(edge, float(like[i].max())))
    mean = field.extract(held, places[i][held]).mean(0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), np.float32)


def align_windows(images: Pixels, corners: Ints, extent: Ints, reach: int) -> Ints:
    """Move each window (m, 2) by at most `reach` to where it correlates most with the first one, then with their
    mean."""
    h, w = (int(side) for side in extent)
    last = np.array(images.shape[1:3]) - extent
    steps = [(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)]
    template = images[0, corners[0, 0] : corners[0, 0] + h, corners[0, 1] : corners[0, 1] + w]
    places = corners
    for _ in range(MEAN_ROUNDS):
        model = normalise_windows(template[None].astype(np.float32))[0]
        places_moved, crops = [], []
        for image, corner in zip(images, corners, strict=True):
            near = np.clip(corner + steps, 0, last)
            windows = np.stack([image[a : a + h, b : b + w] for a, b in near])
            best = int((normalise_windows(windows) @ model).argmax())
            places_moved.append(near[best])
            crops.append(windows[best])
        places, template = np.stack(places_moved), np.mean(crops, axis=0)
    return places


def grow_shared(carriers: Pixels, others: Pixels, corners: Ints, extent: Ints) -> tuple[Ints, Ints]:
    """Extend windows to the box of the whole artifact; return its corners (m, 2) and extent (2,). The artifact covers
    the pixels of aligned carriers at which the mean absolute deviation from their median is below AGREE_SHARE of that
    of other images, and which lie inside nearly all carriers; the box bounds those connected to the window, across gaps
    of a third of its shorter side, as letters of a caption do not touch."""
    reach = REACH * np.asarray(extent)
    box = np.asarray(extent) + 2 * reach
    places = np.resize(corners, (len(others), 2))
    own, there = _spread_around(carriers, corners, reach, box)
    other, _ = _spread_around(others, places, reach, box)
    agree = (own < AGREE_SHARE * other) & (there >= INSIDE)
    agree[reach[0] : reach[0] + extent[0], reach[1] : reach[1] + extent[1]] = True
    gap = max(1, round(GAP_SHARE * int(min(extent))))
    wide = np.ones((2 * gap + 1, 2 * gap + 1), bool)
    pieces, _ = label(binary_dilation(agree, wide), np.ones((3, 3), bool))
    inside = np.argwhere(agree & (pieces == pieces[tuple(reach)]))
    first, last = inside.min(0), inside.max(0)
    return corners - reach + first, last - first + 1


def _spread_around(images: Pixels, corners: Ints, reach: Ints, box: Ints) -> tuple[Floats, Floats]:
    """Compute over images the mean absolute deviation from the median in boxes around windows, averaged over channels
    (h, w), and the share of images in which each pixel lies inside the image (h, w)."""
    size = np.array(images.shape[1:3])
    crops = np.full((len(images), *box, images.shape[3]), np.nan, np.float32)
    for crop, image, corner in zip(crops, images, corners - reach, strict=True):
        low, high = np.maximum(corner, 0), np.minimum(corner + box, size)
        a, b = low - corner, high - corner
        crop[a[0] : b[0], a[1] : b[1]] = image[low[0] : high[0], low[1] : high[1]]
    there = np.isfinite(crops[..., 0]).mean(0)
    crops[:, there == 0] = 0
    return np.nanmean(np.abs(crops - np.nanmedian(crops, 0)), 0).mean(-1), there
