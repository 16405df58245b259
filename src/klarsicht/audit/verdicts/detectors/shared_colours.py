"""Find the regions of images that have colours which carriers share and other images lack, at any place and size.

A colour counts by the ratio of the shares of carriers and of other images in which it occurs; the region of an image is
connected, of the largest summed log ratio. Ratios are learned on half of the carriers and tested on the other half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_fill_holes, gaussian_filter, label
from sklearn.metrics import roc_auc_score

from klarsicht.audit.explanation.models.inputs import shrink_levels
from klarsicht.ground.arrays import Bools, Doubles, Floats, Pixels, Rows
from klarsicht.numerics.imaging.relevance_masks import enlarge_masks

COLOUR_BINS: Final = 16  # of each channel
COLOUR_SIGMA: Final = 0.8  # bins, of the Gaussian by which counts of colours are smoothed
OCCURRING: Final = 1 / 1024  # share of the pixels, as a smoothed count, from which a colour occurs in an image
RARE_SHARE: Final = 0.04  # share of images that is added to both sides of a ratio
LEAST_RATIO: Final = 2.0  # from which a pixel's colour belongs to a region
REGION_SIDE: Final = 64  # pixels of the shorter side to which images are shrunk at most
REGION_SIGMA: Final = 0.6 / 32  # of the shorter side, by which log ratios are smoothed
FEWEST_SHARING: Final = 8  # carriers, and others, at least
TOLD_APART: Final = 0.8  # area under the curve by which regions must tell other carriers from other images
FALSE_REGIONS: Final = 0.05  # share of other images that may have a region as strong as a carrier's
SHARED_BY: Final = 0.6  # of the carriers that must have such a region
LARGEST_REGION: Final = 0.5  # of the image, in the median carrier


@dataclass(frozen=True)
class SharedRegions:
    """Regions of colours that carriers share: numbers of the carriers that have one (m,), ascending, their masks (m, H,
    W), and the area under the curve by which regions distinguish held-out carriers from other images."""

    rows: Rows
    masks: Bools
    area: float


def find_shared_colours(
    carriers: Pixels, others: Pixels, elsewhere: Pixels, rng: np.random.Generator
) -> SharedRegions | None:
    """Find the regions of colours that carriers share; None for images of other than three channels, for too few, and
    where they share no such colours. carriers, others, elsewhere: uint8 (n, H, W, 3), images of a class with the
    artifact, without it, and images of other classes, which may be none."""
    if carriers.shape[-1] != 3 or min(len(carriers), len(others)) < FEWEST_SHARING:
        return None
    groups = [shrink_levels(some, min(REGION_SIDE, *some.shape[1:3])) for some in (carriers, others, elsewhere)]
    occurs = [colour_occurrence(group) for group in groups]
    halves = [rng.permutation(len(group)) % 2 == 0 for group in groups]
    scores, carries, areas = list[Doubles](), list[Bools](), []
    for first in (True, False):
        ratios = log_ratios(*(found[half == first] for found, half in zip(occurs, halves, strict=True)))
        shown = [group[half != first] for group, half in zip(groups, halves, strict=True)]
        strength = np.array([strongest_region(image, ratios)[0] for group in shown for image in group])
        carries.append(np.arange(len(strength)) < len(shown[0]))
        scores.append(strength)
        areas.append(float(roc_auc_score(carries[-1], strength)))
    area = float(np.mean(areas))
    if area < TOLD_APART:
        return None
    least = float(np.quantile(np.concatenate(scores)[~np.concatenate(carries)], 1 - FALSE_REGIONS))
    found = []
    for i, image in enumerate(groups[0]):
        without = np.delete(occurs[0], i, 0)  # else any colour of the image itself would be one that carriers share
        found.append(strongest_region(image, log_ratios(without, *occurs[1:])))
    rows = np.flatnonzero(np.array([strength for strength, _ in found]) > least)
    if len(rows) < SHARED_BY * len(carriers):
        return None
    masks = enlarge_masks(np.stack([found[i][1] for i in rows]), carriers.shape[1:3])
    return None if np.median(masks.mean((1, 2))) > LARGEST_REGION else SharedRegions(rows, masks, area)


def colour_occurrence(images: Pixels | Floats) -> NDArray[np.float32]:
    """Compute how surely each colour occurs in images (n, H, W, 3): (n, b, b, b) in [0, 1]."""
    counts = np.zeros((len(images), *(COLOUR_BINS,) * 3), np.float32)
    for one, image in zip(counts, images, strict=True):
        np.add.at(one, tuple(colour_bins(image).reshape(-1, 3).T), 1)
        one[:] = gaussian_filter(one, COLOUR_SIGMA, mode="nearest")
    return np.asarray(np.minimum(counts / (OCCURRING * images[0].size / 3), 1)) if len(images) else counts


def colour_bins(image: Pixels | Floats) -> Rows:
    """Number the bins of the channels of an image (H, W, 3)."""
    return np.asarray(image.astype(np.intp) * COLOUR_BINS // 256)


def log_ratios(own: Floats, other: Floats, far: Floats) -> Floats:
    """Compute the log ratio (b, b, b) of the shares of images in which colours occur: in carriers (m, b, b, b), and in
    other images of the class or of other classes, whichever is larger."""
    shares = [one.mean(0) for one in (other, far) if len(one)]
    return np.asarray(np.log((own.mean(0) + RARE_SHARE) / (np.max(shares, axis=0) + RARE_SHARE)))


def strongest_region(image: Pixels | Floats, ratios: Floats) -> tuple[float, Bools]:
    """Find the connected region of an image (H, W, 3) of the largest summed log ratio: the sum and the filled mask."""
    at = colour_bins(image)
    values = gaussian_filter(ratios[at[..., 0], at[..., 1], at[..., 2]], REGION_SIGMA * min(image.shape[:2]))
    pieces, count = label(values > np.log(LEAST_RATIO), np.ones((3, 3)))
    if not count:
        return 0.0, np.zeros(image.shape[:2], bool)
    sums = np.bincount(pieces.ravel(), values.ravel())
    sums[0] = 0
    best = int(sums.argmax())
    mask = np.pad(pieces == best, 2)
    filled = binary_fill_holes(binary_closing(mask, np.ones((3, 3))))[2:-2, 2:-2]
    return float(sums[best]) / pieces.size, np.asarray(filled, bool)
