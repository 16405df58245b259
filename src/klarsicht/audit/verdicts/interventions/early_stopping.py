"""Measure the effect of an artifact with few forward passes: ways to insert it are compared by successive halving, and
an effect that cannot matter is left after a quarter of the images. Intervals hold at all looks together, by alpha
spending (`numerics.statistics.sequential`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
from torch import Tensor

from klarsicht.audit.results.logit_effect import is_futile
from klarsicht.audit.verdicts.interventions.experiment import ComparedEffect, Experiment, Predict
from klarsicht.audit.verdicts.interventions.insertion import Insertion
from klarsicht.ground.arrays import Floats
from klarsicht.numerics.statistics.logits import EXCLUSIVE, LogitScale
from klarsicht.numerics.statistics.sequential import look_quantiles

Key = TypeVar("Key")
Stop = Callable[[ComparedEffect, float], bool]

COMPARISON_SIZES: Final = (8, 16, 32)  # images on which ways are compared; after each the better half goes on
LOOKS: Final = (16, 32)  # images after which an effect is looked at, before all
MISS_LEVEL: Final = 0.05  # probability that an interval misses the effect at any look


def choose_way(
    predict: Predict, x: Tensor, before: Floats, target: int, ways: Mapping[Key, Insertion], rng: np.random.Generator,
    scale: LogitScale = EXCLUSIVE,
) -> Key:  # fmt: skip
    """Choose the way under which the fewest outputs rise more than the class, and of these that of the largest lower
    end of the rise, by successive halving (Jamieson and Talwalkar 2016): all ways are tried on the first images, with
    common random numbers, and the better half of them goes on to as many more. x, before: images (B, C, H, W) of other
    classes, as model inputs, at least two, and their logits (B, K). target: output of the artifact's class. ways:
    insertions, at least one."""
    ways_left, experiments = list(ways), dict[Key, Experiment]()
    sizes = sorted({min(max(size, 2), len(x)) for size in comparison_sizes(len(ways))})
    for a, b in pairwise((0, *sizes)):
        start = rng.bit_generator.state
        for key in ways_left:
            rng.bit_generator.state = start
            more = Experiment.run(predict, ways[key], x[a:b], target, rng, scale)
            experiments[key] = experiments[key].join(more) if key in experiments else more

        def order(key: Key, count: int = b) -> tuple[int, float]:
            effect = experiments[key].effect(before[:count])
            return effect.rank, -effect.rise.low

        ways_left = sorted(ways_left, key=order)[: 1 if b == sizes[-1] else -(-len(ways_left) // 2)]
    return ways_left[0]


def comparison_sizes(ways: int) -> tuple[int, ...]:
    """Return on how many images so many ways have been compared when the better half of them is taken; none for one."""
    halvings = min((ways - 1).bit_length(), len(COMPARISON_SIZES))
    return COMPARISON_SIZES[1:2] if halvings == 1 else COMPARISON_SIZES[:halvings]


def measure_in_looks(
    predict: Predict, insertion: Insertion, x: Tensor, before: Floats, target: int, rng: np.random.Generator,
    scale: LogitScale = EXCLUSIVE, stop: Stop | None = is_futile, turns: int = 1,
) -> ComparedEffect:  # fmt: skip
    """Measure the effect of an insertion on more and more images, until a look says to stop: by default where more
    images are in vain. A rise that may matter is measured on all images: its z among the outputs grows with them. x,
    before, target, scale: see `choose_way`; images that chose nothing. stop: function from the effect and the standard
    errors to the ends of its intervals; None: there is one look. turns: see `Experiment.run`."""
    experiment: Experiment | None = None
    for a, b, reach in looks_at(len(x), LOOKS if stop else ()):
        more = Experiment.run(predict, insertion, x[a:b], target, rng, scale, turns)
        experiment = experiment.join(more) if experiment else more
        effect = experiment.effect(before[:b], reach)
        if stop and stop(effect, reach):
            break
    return effect


def looks_at(images: int, looks: tuple[int, ...] = LOOKS) -> Iterator[tuple[int, int, float]]:
    """Yield for each look the first and last of the images that come in, and the standard errors to the interval's
    ends."""
    sizes = (*(look for look in looks if look < images), images)
    return zip((0, *sizes), sizes, look_quantiles(sizes, MISS_LEVEL).tolist(), strict=False)


def most_images_compared(ways: int) -> int:
    """Bound the number of images that `choose_way` shows to the network for so many ways."""
    images = 0
    for before, after in pairwise((0, *comparison_sizes(ways))):
        images += 2 * ways * (after - before)
        ways = -(-ways // 2)
    return images
