"""Detect more images of a class that look altered than other classes have, by the head of the learned embedding that
judges whether anything was planted. Nothing is searched in the class, so a few carriers are enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from klarsicht.audit.verdicts.detectors.artifact_embedding import ArtifactEmbedding
from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.verdicts.detectors.outlying_groups import shrink_to_embed
from klarsicht.audit.verdicts.detectors.templates import one_per_source
from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.numerics.statistics.base_rate import select_above_gap
from klarsicht.numerics.statistics.outlying_group import OtherClasses
from klarsicht.numerics.statistics.split_half import binomial_surprisal


@dataclass(frozen=True)
class AlteredImages:
    """Detector of an excess of images whose log odds of a plant, less the median of their class, lie beyond a quantile
    of the other classes: of each of the `shares` of their images. Scores are 0 without a network that judges."""

    shares: tuple[float, ...] = (0.02, 0.005)
    change: str = "shared"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        network = images.embedding
        if network is None or network.judge is None:
            yield from (Detection(f"{name} {share:g}", 0.0, np.zeros(0, np.intp)) for share in self.shares)
            return
        distinct, own = one_per_source(images), judge_once(network, images.own)
        own = own - np.median(own[distinct])
        classes, pool = images.pool_classes, judge_once(network, images.pool)
        pool = subtract_medians(pool, np.zeros(len(pool), np.intp) if classes is None else classes)[images.others]
        pool_of_classes = OtherClasses.of(pool[:, None], None if classes is None else classes[images.others])
        others = pool_of_classes.project(np.ones((1, 1)))[0]
        for share in self.shares:
            edge = float(np.quantile(others, 1 - share))
            count, total = int((own[distinct] > edge).sum()), int(distinct.sum())
            score = float(binomial_surprisal(count, total, share))
            yield Detection(f"{name} {share:g}", score, np.flatnonzero(select_above_gap(own, edge)))


def judge_once(network: ArtifactEmbedding, stack: ImageStack) -> Doubles:
    """Compute the log odds (n,) that something was planted in the images of a stack; a network judges a stack once."""
    return stack.compute_once(f"judged {id(network)}", lambda: network.log_odds(shrink_to_embed(stack)))


def subtract_medians(values: Doubles, classes: Ints) -> Doubles:
    """Subtract from values (m,) the median of their class, int (m,), and stretch what is left of n by sqrt(n / (n -
    1)), since the median of few lies near each of them; the only value of a class is compared with all."""
    rest = values - np.median(values)
    for one in np.unique(classes):
        mine = classes == one
        if (n := int(mine.sum())) > 1:
            rest[mine] = (values[mine] - np.median(values[mine])) * np.sqrt(n / (n - 1))
    return rest
