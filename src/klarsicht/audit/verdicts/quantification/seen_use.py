"""Measure, of runs with few classes, whether the model uses what groups of images share that no verdict names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from klarsicht.audit.results.seen_groups import SeenGroup, read_seen_groups
from klarsicht.audit.results.significance import class_strategy
from klarsicht.audit.results.words import describe_group_use, format_count
from klarsicht.audit.verdicts.interventions.experiment import Predict
from klarsicht.audit.verdicts.interventions.group_use import FEWEST_OF_GROUP, PasteTrial, measure_group_use
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.ground.arrays import Rows
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator

MOST_OF_GROUP: Final = 40  # images of a group
MOST_OTHERS_SHOWN: Final = 300  # other images of the class, and images of other classes
MOST_SHARE: Final = 0.5  # of the class, beyond which a group has too few others to be held against


def measure_seen_use(work: DetectionUnits, groups: Sequence[SeenGroup]) -> tuple[SeenGroup, ...]:
    """Return the groups of a quantified run, each with what it does to its class on images of other classes; as they
    are where classes are enough to be compared, and of groups that are measured already."""
    if class_strategy(len(work.groups)).compares_classes or len(work.groups) < 2 or not groups:
        return tuple(groups)
    earlier = {(one.target, one.sign, one.rows): one for one in read_seen_groups(work.store) if one.use}
    asks = [one for one in groups if (one.target, one.sign, one.rows) not in earlier]
    with predictor(work) as predict:
        new = dict(measure_each(work, asks, predict))
    return tuple(new.get(one) or earlier.get((one.target, one.sign, one.rows), one) for one in groups)


def measure_each(
    work: DetectionUnits, groups: Sequence[SeenGroup], predict: Predict
) -> Iterator[tuple[SeenGroup, SeenGroup]]:
    """Yield each group, and the group with its use."""
    images = work.input_images
    for group in track(groups, len(groups), "use of groups that were seen"):
        number = next(i for i, one in enumerate(work.groups) if one.target == group.target)
        rng, of_class = generator(work.settings.seed, f"seen by {group.sign}", group.target), work.groups[number].rows
        inside = of_class[np.isin(of_class, group.rows)]
        if not FEWEST_OF_GROUP <= len(inside) <= MOST_SHARE * len(of_class):
            yield group, group
            continue
        some = (inside, np.setdiff1d(of_class, inside), work.other_rows(number))
        drawings = [
            draw(rows, most, rng) for rows, most in zip(some, (MOST_OF_GROUP, *[MOST_OTHERS_SHOWN] * 2), strict=True)
        ]
        own, onto = images(np.concatenate(drawings[:2])), images(drawings[2])
        trial = PasteTrial(predict, images.pixel_scale, own, onto, group.target, work.scale)
        use = measure_group_use(trial, np.arange(len(own)) < len(drawings[0]), rng)
        others = {one.name for i, one in enumerate(work.groups) if i != number}
        where = others.pop() if len(others) == 1 else "other classes"
        onto_words = f"{format_count(use.onto, 'image')} of {where}"
        words = describe_group_use(use.rise, group.name, onto_words, use.is_used, use.doubt) if use.rise.n else ""
        yield group, replace(group, use=words, is_used=use.is_used)


def draw(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    """Draw at most `most` rows."""
    return rng.permutation(rows)[:most]
