"""The search among a pile: orders by hand, a planted group, and chance."""

import numpy as np
import pytest
from scipy.special import log_softmax

from klarsicht.audit.verdicts.content.content_search import MOST_LIKED, SHARE_OF_ALIKE, PicturePile

N, F, K, PLANTED = 160, 40, 6, (3, 20, 77, 90, 131, 150)


def make_pile(planted=PLANTED):
    """Random features; the planted rows share a direction that output 2 reads, too."""
    rng = np.random.default_rng(5)
    features = rng.normal(size=(N, F))
    features[list(planted)] += 9 * np.eye(F)[0]
    weight = 0.5 * rng.normal(size=(K, F))
    weight[:, 0] = 0
    weight[2, 0] = 3.0
    return PicturePile(features @ weight.T, features)


def search(pile, seed=0):
    others = np.arange(N)
    return pile.find_group(2, pile.order(2, others)[:MOST_LIKED], others, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_group_is_found_and_no_random_group_is_as_tight(seed):
    found = search(make_pile(), seed)
    assert set(found.rows) == set(PLANTED) and found.p == 0.01 and found.likings == len(PLANTED)


def test_a_group_of_nothing_is_as_tight_as_random_ones():
    assert min(search(make_pile(()), seed).p for seed in range(3)) > 0.05


def test_the_neighbours_of_an_output_are_those_that_vary_like_it():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 40))
    logits[:, 7] = logits[:, 3] + 0.1 * rng.normal(size=50)
    neighbours = PicturePile(logits, logits).neighbours(3)
    assert neighbours[0] == 7 and len(neighbours) == 30 and 3 not in neighbours


def test_what_neighbours_are_liked_is_taken_off():
    """Of three outputs both others are neighbours."""
    logits = np.random.default_rng(0).normal(size=(20, 3))
    log_p = log_softmax(logits, 1)
    pile = PicturePile(logits, logits)
    assert pile.measure_liking(1) == pytest.approx(log_p[:, 1] - SHARE_OF_ALIKE * log_p[:, [0, 2]].max(1))
    assert pile.order(1, np.array([4, 9, 2])).tolist() == sorted([4, 9, 2], key=lambda i: -pile.measure_liking(1)[i])


@pytest.mark.parametrize(("outputs", "first"), [(3, 1), (60, 3), (1000, 5)])
def test_a_class_is_liked_where_it_is_among_the_first_outputs(outputs, first):
    logits = np.random.default_rng(0).normal(size=(300, outputs))
    logits[:, 0] += 2
    ranks = (-logits).argsort(1).argsort(1)[:, 0]
    liked = PicturePile(logits, logits).is_among_first(0, np.arange(300))
    assert liked.tolist() == (ranks < first).tolist() and 0 < liked.sum() < 300


def test_a_pile_of_few_pictures_is_not_compared():
    few = np.arange(10)
    assert make_pile().find_group(2, few, few, np.random.default_rng(0)) is None
