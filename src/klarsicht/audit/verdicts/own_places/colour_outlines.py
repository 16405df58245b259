"""Outline the own places of images by what colours each image has inside and outside of them.

A network that sees 13 x 13 pixels says where an object is, and not where it ends. What an object looks like differs
from what surrounds it in most images, and each image says how: its pixels inside and outside are described by a few
colours each, and every pixel goes to the side that it resembles and whose places lie around it (in the manner of
GrabCut, Rother et al. 2004, with smoothed log-likelihoods in place of a cut).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from klarsicht.audit.verdicts.own_places.place_network import STRIDE
from klarsicht.ground.arrays import Bools, Floats, Pixels
from klarsicht.ground.seeding import generator

LEVELS_APART, ROUGHNESS_WEIGHT = 32.0, 2.0  # grey levels of one deviation of a colour; of the roughness around it
COLOURS, LLOYD_ROUNDS, OUTLINE_ROUNDS = 6, 5, 3  # of each side; rounds that move them, and that move the outline
LIKELY, PLACE_WEIGHT = 4.0, 0.25  # nats at most, of a pixel's colour and of a place; weight of what places say
SMOOTHING = 0.7  # deviation of a Gaussian in pixels, over which colours answer together
NEVER = 1e6  # nats against a colour that a side does not have
FEWEST_PIXELS = 10  # inside and outside, without which an image stays as it is
OUTLINED = 128  # images at once


def outline_by_colours(images: Pixels, own: Bools, odds: Floats, seed: int) -> Bools:
    """Move the outline of own places to where the colours of an image change.

    Args:
        images: uint8 (n, H, W, C).
        own: bool (n, H, W).
        odds: float (n, h, w), log-odds of an own place, for each STRIDE pixels.

    Returns:
        bool (n, H, W); the same for images with fewer than FEWEST_PIXELS pixels inside or outside, or none of those
        that find_colours looks at.
    """
    rng, outlines = generator(seed, "outlines"), own.copy()
    for start in range(0, len(images), OUTLINED):
        some = slice(start, start + OUTLINED)
        points, inside = describe_pixels(images[some]), own[some]
        height, width = inside.shape[1:]
        of_places = odds[some].repeat(STRIDE, 1).repeat(STRIDE, 2)[:, :height, :width]
        says = PLACE_WEIGHT * of_places.clip(-LIKELY, LIKELY)
        for _ in range(OUTLINE_ROUNDS):
            resembles = np.subtract(
                *(find_colours(points, side, rng).log_likelihood(points) for side in (inside, ~inside))
            )
            resembles = gaussian_filter(resembles.clip(-LIKELY, LIKELY), (0, SMOOTHING, SMOOTHING))
            can_tell = np.all(
                [
                    (side.sum((1, 2)) >= FEWEST_PIXELS) & side[:, ::STRIDE, ::STRIDE].any((1, 2))
                    for side in (inside, ~inside)
                ],
                0,
            )
            inside = np.where(can_tell[:, None, None], resembles + says > 0, inside)
        outlines[some] = inside
    return outlines


def describe_pixels(images: Pixels) -> Floats:
    """Describe pixels of images (n, H, W, C) by their colour, and by how rough it is around them, in deviations:
    float (n, H, W, C + 1)."""
    colour = images.astype(np.float32) / LEVELS_APART
    from_mean = np.abs(colour - uniform_filter(colour, (0, 3, 3, 0))).mean(3)
    roughness = ROUGHNESS_WEIGHT * gaussian_filter(from_mean, (0, 1, 1))
    return np.concatenate([colour, roughness[..., None]], 3)


@dataclass(frozen=True)
class Colours:
    """Colours of one side of images, a mixture of normal distributions of unit deviation.

    Attributes:
        means: float (n, COLOURS, D).
        log_shares: float (n, COLOURS).
    """

    means: Floats
    log_shares: Floats

    def log_likelihood(self, points: Floats) -> Floats:
        """Compute the log-likelihood of pixels (n, H, W, D), but for what does not depend on the colours: float
        (n, H, W)."""
        nats = self.log_shares[..., None] + resemblance(points.reshape(len(points), -1, points.shape[3]), self.means)
        most = nats.max(1, keepdims=True)
        nats -= most
        np.exp(nats, out=nats)
        return np.asarray((most[:, 0] + np.log(nats.sum(1))).reshape(points.shape[:3]))


def find_colours(points: Floats, side: Bools, rng: np.random.Generator) -> Colours:
    """Find the colours of the pixels (n, H, W, D) on a side (n, H, W) of each image by Lloyd's rounds, on every
    STRIDE-th pixel both ways."""
    count = len(points)
    rows, on_side = points[:, ::STRIDE, ::STRIDE].reshape(count, -1, points.shape[3]), side[:, ::STRIDE, ::STRIDE]
    on_side = on_side.reshape(count, -1)
    lot = np.where(on_side, rng.random(on_side.shape, np.float32), -1.0)
    seeds = np.argpartition(-lot, COLOURS, 1)[:, :COLOURS]
    means, size = np.take_along_axis(rows, seeds[..., None], 1), np.zeros(0)
    for _ in range(LLOYD_ROUNDS):
        nearest = resemblance(rows, means).argmax(1)
        belongs = ((nearest[:, None] == np.arange(COLOURS)[:, None]) & on_side[:, None]).astype(np.float32)
        size = belongs.sum(2)
        sums = belongs @ rows
        means = np.where(size[..., None] > 0, sums / np.maximum(size, 1)[..., None], means)
    shares = np.log((size + 1) / (size + 1).sum(1, keepdims=True))
    is_own = np.take_along_axis(on_side, seeds, 1) | (size > 0)  # else drawn on the other side, where this one has few
    return Colours(means, np.where(is_own, shares, -NEVER))


def resemblance(points: Floats, means: Floats) -> NDArray[Any]:
    """Compute how much points (n, P, D) resemble means (n, K, D): float (n, K, P), minus half of the squared distance,
    but for half of the square of the point itself. Means come first, so that they are compared along rows of memory."""
    return np.asarray(means @ points.transpose(0, 2, 1) - 0.5 * (means**2).sum(2)[..., None])
