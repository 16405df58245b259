"""Images of a class come in until a cluster rises for sure. Oracles: planted clusters, and classes without any."""

import numpy as np
from scipy.stats import binomtest

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.regions import RegionEffects
from klarsicht.audit.verdicts.quantification.cluster_search import (
    SEARCH_LOOKS,
    SETTLE_LEVEL,
    most_images_shown,
    search_in_looks,
    search_looks,
)

N = 180
SCALE = PixelScale(np.zeros(1, np.float32), np.ones(1, np.float32))


def searched(rng, members, distance, rise):
    """Search among images of known rise: what was found, and the images that were measured."""
    shown = []

    def measure(some, look):
        shown.extend(some.tolist())
        blank = np.zeros((len(some), 1, 1), bool)
        levels, none = np.zeros((len(some), 1, 1, 1), np.uint8), np.zeros((2, 0, 3), np.float32)
        return RegionEffects(levels, SCALE, blank, rise[some], np.arange(len(some)), none)

    return search_in_looks(measure, members, distance, rng.normal(size=len(rise)), rng), shown


def clusters(rng, count=40):
    return rng.random((count, N)) < rng.uniform(0.05, 0.5, (count, 1))


def test_a_cluster_that_rises_is_settled_at_the_first_look():
    rng = np.random.default_rng(0)
    members, distance = clusters(rng), np.full(40, 2.0)
    members[3], distance[3] = np.arange(N) % 10 == 0, 5.0
    found, shown = searched(rng, members, distance, rng.normal(size=N) + 5 * members[3])
    assert found is not None and len(shown) == SEARCH_LOOKS[0] and members[3][shown].sum() > 3
    effects, seen = found
    assert seen.tolist() == shown and len(effects.rise) == len(shown) == len(set(shown))
    assert effects.owner.tolist() == list(range(len(shown)))


def test_classes_without_one_are_left_and_settled_no_more_often_than_the_level_says():
    rng, early, cost = np.random.default_rng(1), 0, []
    for _ in range(120):
        found, shown = searched(rng, clusters(rng), rng.uniform(1, 4, 40), rng.exponential(size=N))
        early += found is not None and len(shown) < SEARCH_LOOKS[-1]
        cost.append(len(shown))
    assert binomtest(early, 120, SETTLE_LEVEL, alternative="greater").pvalue > 0.01
    assert np.mean(np.array(cost) == SEARCH_LOOKS[0]) > 0.35 and np.mean(cost) < 0.5 * N


def test_a_class_that_does_not_move_is_left():
    rng = np.random.default_rng(2)
    found, shown = searched(rng, clusters(rng), np.ones(40), np.zeros(N))
    assert found is None and len(shown) == SEARCH_LOOKS[0]


def test_bounds_are_those_of_a_count_by_hand():
    """Of 80 images four regions each, on themselves and by a fellow; one background at each look; 32 images for the
    effect, each nine times."""
    assert search_looks(80) == (32, 64, 80) and search_looks(30) == (30,) and search_looks(5000)[-1] == 96
    assert most_images_shown(80) == (8 * 32 + 1, 8 * 80 + 3 + 32 * 9)
    assert most_images_shown(30) == (8 * 30 + 1, 8 * 30 + 1 + 32 * 9)
