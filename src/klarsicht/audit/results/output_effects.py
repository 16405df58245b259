"""What the same search finds for every output of a model: how large an effect natural content alone can have.

A search for one class picks what raises it most, of every image and of all images; so what it finds raises the class,
and often most of all outputs, without any artifact. What tells is whether it raises its class more than the same search
raises other outputs, each with images of its own. All of them are read off the same forward passes.
"""

from __future__ import annotations

import numpy as np

from klarsicht.ground.arrays import Floats, Rows


def effects(owner: Rows, rises: Floats, share: float) -> Floats:
    """The effect (K,) that is found for every output.

    By the rise on some backgrounds each output picks the best region of every image, and the share of images that raise
    it most. What those do on other backgrounds, beyond what the other images do, is the effect.

    Args:
        owner: (m,), the image that each region is of.
        rises: (2, m, K), of every output's centred logit: on the backgrounds that choose, and on others.
        share: of the images that are picked; at least one is, and one is not. With fewer images there is no effect.
    """
    if len(np.unique(owner)) < 2:
        return np.zeros(rises.shape[2])
    chosen, told = of_images(owner, rises)
    picked = min(max(round(share * len(chosen)), 1), len(chosen) - 1)
    falling = np.take_along_axis(told, np.argsort(-chosen, axis=0, kind="stable"), 0)
    return np.asarray(falling[:picked].mean(0) - falling[picked:].mean(0))


def of_images(owner: Rows, rises: Floats) -> tuple[Floats, Floats]:
    """For images with regions the rises (n, K) of the region that raises an output most on the backgrounds that choose:
    on these, and on others."""
    regions = [np.flatnonzero(owner == image) for image in np.unique(owner)]
    best = np.stack([some[rises[0, some].argmax(0)] for some in regions])
    first, then = (np.take_along_axis(one, best, 0) for one in rises)
    return first, then
