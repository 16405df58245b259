"""Measure the effect of an artifact with few forward passes: they are the cost of an audit.

Ways to put an artifact on images are compared by successive halving, and an effect that cannot matter is left after a
quarter of the images. Intervals hold at all looks together, by alpha spending; see numerics.statistics.sequential.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from klarsicht.audit.verdicts.interventions.effect import LogitEffect, Predict, compute_effect
from klarsicht.audit.verdicts.interventions.insertion import Insertion
from klarsicht.ground.arrays import Floats
from klarsicht.numerics.statistics.logits import EXCLUSIVE, LogitScale
from klarsicht.numerics.statistics.sequential import look_quantiles

Key = TypeVar("Key")

COMPARISON_SIZES: Final = (8, 16, 32)  # images on which ways are compared; after each the better half goes on
LOOKS: Final = (16, 32)  # images after which an effect is looked at, before all
MISS_LEVEL: Final = 0.05  # probability that an interval misses the effect at any look


def choose_way(
    predict: Predict, x: Tensor, before: Floats, target: int, ways: Mapping[Key, Insertion], rng: np.random.Generator,
    scale: LogitScale = EXCLUSIVE,
) -> Key:  # fmt: skip
    """Choose the way under which the fewest outputs rise more than the class, and of these that of the largest lower
    end of the rise, by successive halving (Jamieson and Talwalkar 2016).

    All ways are tried on the first images; the better half of them goes on to as many more. All get common random
    numbers. A choice by z would prefer a small effect among outputs that do not move to a large one among outputs that
    do.

    Args:
        predict: function from model inputs to logits.
        x: images (B, C, H, W) of other classes, as model inputs, at least two.
        before: (B, K), their logits.
        target: output of the artifact's class.
        ways: insertions, at least one.
        scale: scale on which logits count.
    """
    ways_left, logits = list(ways), {key: InsertionLogits() for key in ways}
    sizes = sorted({min(max(size, 2), len(x)) for size in comparison_sizes(len(ways))})
    for a, b in pairwise((0, *sizes)):
        start = rng.bit_generator.state
        for key in ways_left:
            rng.bit_generator.state = start
            logits[key].add(predict, ways[key].put(x[a:b], rng))

        def order(key: Key, count: int = b) -> tuple[int, float]:
            effect = logits[key].effect("", before[:count], target, scale)
            return effect.rank, -effect.low

        ways_left = sorted(ways_left, key=order)[: 1 if b == sizes[-1] else -(-len(ways_left) // 2)]
    return ways_left[0]


def comparison_sizes(ways: int) -> tuple[int, ...]:
    """Return on how many images so many ways have been compared when the better half of them is taken; none for a
    single way."""
    halvings = min((ways - 1).bit_length(), len(COMPARISON_SIZES))
    return COMPARISON_SIZES[1:2] if halvings == 1 else COMPARISON_SIZES[:halvings]


@dataclass
class InsertionLogits:
    """Logits of images with an artifact, and under the control, as they come in.

    Attributes:
        turns: how often each image is shown, each time with another artifact; it counts by its mean.
        with_artifact, control: parts (turns, n, K).
    """

    turns: int = 1
    with_artifact: list[Floats] = field(default_factory=list)
    control: list[Floats] = field(default_factory=list)

    def add(self, predict: Predict, put: tuple[Tensor, Tensor]) -> None:
        """Show images with the artifact and under the control to the network, each (turns n, C, H, W)."""
        for known, images in zip((self.with_artifact, self.control), put, strict=True):
            known.append(np.stack([predict(turn) for turn in torch.split(images, len(images) // self.turns)]))

    def effect(self, how: str, before: Floats, target: int, scale: LogitScale, reach: float = 1.96) -> LogitEffect:
        """Compute the effect on all images so far, whose logits before are (n, K)."""
        marked, control = (np.concatenate(parts, 1) for parts in (self.with_artifact, self.control))
        return compute_effect(how, before, marked, control, target, scale, reach)


def measure_until_settled(
    predict: Predict, x: Tensor, before: Floats, target: int, how: str, insertion: Insertion, rng: np.random.Generator,
    floor: float, scale: LogitScale = EXCLUSIVE,
) -> LogitEffect:  # fmt: skip
    """Measure the effect of an insertion on more and more images; stop at a look where it cannot reach the floor any
    more.

    It cannot where the rise lies below a floor for sure, and no more images are taken for the class than under the
    control. A rise that may matter is measured on all images: its z among the outputs grows with them.

    Args:
        predict: function from model inputs to logits.
        x: images (B, C, H, W) of other classes, as model inputs, which chose nothing.
        before: (B, K), their logits.
        target: output of the artifact's class.
        how: name of the way.
        floor: least rise that matters.
        scale: scale on which logits count.
    """
    answers = InsertionLogits()
    for a, b, reach in looks_at(len(x)):
        answers.add(predict, insertion.put(x[a:b], rng))
        effect = answers.effect(how, before[:b], target, scale, reach)
        if effect.cannot_reach(floor, reach):
            break
    return effect


def looks_at(images: int, looks: tuple[int, ...] = LOOKS) -> Iterator[tuple[int, int, float]]:
    """Yield for each look at so many images the first and last of those that come in, and the standard errors to the
    ends of the interval; a single look where there are no more images than at the first."""
    sizes = (*(look for look in looks if look < images), images)
    return zip((0, *sizes), sizes, look_quantiles(sizes, MISS_LEVEL).tolist(), strict=False)


def most_images_compared(ways: int) -> int:
    """Bound the number of images that `choose_way` shows to the network for so many ways."""
    images = 0
    for before, after in pairwise((0, *comparison_sizes(ways))):
        images += 2 * ways * (after - before)
        ways = -(-ways // 2)
    return images
