"""Search the largest effect for every output of a model, to calibrate the effect of natural content: a search for one
class chooses the regions that raise it most, without any artifact. The test is whether it raises its class more than
the same search raises other outputs, each with images of its own, by the same forward passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from klarsicht.audit.results.specificity import Specificity
from klarsicht.audit.verdicts.interventions.experiment import ComparedEffect
from klarsicht.audit.verdicts.interventions.regions import RegionEffects
from klarsicht.ground.arrays import Floats, Rows


def search_effects(owner: Rows, rises: Floats, share: float) -> Floats:
    """Compute the effect (K,) that the search finds for every output: the best region of every image, and the share of
    images that rise most, are chosen by rises on some backgrounds; their mean rise on others counts, less that of the
    other images. owner: (m,), the image of each region. rises: (2, m, K), of every output's centred logit: on the
    backgrounds of the choice, and on others. share: of images that are chosen; at least one is, and one is not. With
    fewer images the effect is 0."""
    if len(np.unique(owner)) < 2:
        return np.zeros(rises.shape[2])
    chosen, told = best_region_rises(owner, rises)
    picked = min(max(round(share * len(chosen)), 1), len(chosen) - 1)
    falling = np.take_along_axis(told, np.argsort(-chosen, axis=0, kind="stable"), 0)
    return np.asarray(falling[:picked].mean(0) - falling[picked:].mean(0))


def best_region_rises(owner: Rows, rises: Floats) -> tuple[Floats, Floats]:
    """Return the rises (n, K) of the best region of each image and output, on the backgrounds of the choice and
    others."""
    regions = [np.flatnonzero(owner == image) for image in np.unique(owner)]
    best = np.stack([some[rises[0, some].argmax(0)] for some in regions])
    first, then = (np.take_along_axis(one, best, 0) for one in rises)
    return first, then


def compare_outputs(
    effect: ComparedEffect, searches: RegionEffects, share: float, target: int, names: Sequence[str] | None
) -> Specificity:
    """Compare the effect of a cluster on its class, output `target`, with the search for all other outputs. effect: of
    the cluster, which holds a `share` of the images. searches: effects of all regions. names: K class names; numbers
    where there are none."""
    each = search_effects(searches.owner, searches.rises, share)
    peer = int(np.where(np.arange(len(each)) == target, -np.inf, each).argmax())
    runner, other = (names[k] if names else str(k) for k in (effect.runner, peer))
    return Specificity(
        runner=runner, margin=effect.margin.value, margin_low=effect.margin.low, margin_high=effect.margin.high,
        uplift=effect.uplift, uplift_control=effect.uplift_control, own=float(each[target]), peer=other,
        peer_effect=float(each[peer]), ahead=int((each > each[target]).sum()),
    )  # fmt: skip
