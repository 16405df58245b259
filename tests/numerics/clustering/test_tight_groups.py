"""The group of largest merit: on small tables beside a slow literal search, and by its definition."""

import numpy as np
import pytest

from klarsicht.numerics.clustering.tight_groups import GroupSearch, centred_cosines, measure_tightness


def literal_merit(search, alike, scores, members):
    """Sum over members of the score and the weighted mean similarity to the others, less the price."""
    total = 0.0
    for i in members:
        others = [alike[i, j] for j in members if j != i]
        total += scores[i] + search.weight * sum(others) / len(others) - search.price
    return total


def literal_search(search, alike, scores):
    """Grow from every row, one row at a time, and keep the best of all sizes."""
    best, found, n = -np.inf, None, len(scores)
    for seed in range(n):
        members = [seed]
        while len(members) < search.most:
            rest = [j for j in range(n) if j not in members]
            gains = [scores[j] + search.weight * np.mean([alike[j, i] for i in members]) for j in rest]
            members.append(rest[int(np.argmax(gains))])
            if len(members) >= search.least and (merit := literal_merit(search, alike, scores, members)) > best:
                best, found = merit, list(members)
    return best, found


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_what_a_literal_search_finds(seed):
    rng = np.random.default_rng(seed)
    alike = centred_cosines(rng.normal(size=(12, 4)), np.zeros((1, 4)))
    scores, search = rng.normal(size=12), GroupSearch(weight=2.0, price=0.5, least=3, most=6)
    found = search.find(alike, scores)
    merit, members = literal_search(search, alike, scores)
    assert found.merit == pytest.approx(merit) and {*found.members} == {*members}


def test_a_planted_group_is_found_whole_and_its_price_keeps_others_out():
    rows = np.random.default_rng(0).normal(size=(20, 50))
    rows[[3, 8, 11, 17]] += 4 * np.ones(50)
    alike = centred_cosines(rows, np.zeros((1, 50)))
    found = GroupSearch(weight=1.0, price=0.5, least=3, most=8).find(alike, np.zeros(20))
    assert set(found.members) == {3, 8, 11, 17} and found.tightness > 0.8


def test_scores_alone_choose_where_similarity_has_no_weight():
    scores = np.arange(10.0)
    found = GroupSearch(weight=0.0, price=0.0, least=3, most=4).find(np.eye(10), scores)
    assert set(found.members) == {6, 7, 8, 9} and found.merit == 6 + 7 + 8 + 9


def test_too_few_rows_have_no_group():
    assert GroupSearch(weight=1.0, price=0.0, least=3, most=6).find(np.eye(2), np.zeros(2)) is None


def test_tightness_is_the_mean_inside_less_the_mean_to_others():
    alike = np.array([[1, 0.8, 0.1, 0.0], [0.8, 1, 0.3, 0.2], [0.1, 0.3, 1, 0.5], [0.0, 0.2, 0.5, 1]])
    assert measure_tightness(alike, np.array([0, 1])) == pytest.approx(0.8 - (0.1 + 0.0 + 0.3 + 0.2) / 4)


def test_cosines_are_of_rows_less_the_mean_of_the_reference():
    rows, reference = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[0.0, 1.0], [2.0, 1.0]])
    assert centred_cosines(rows, reference) == pytest.approx(np.eye(2))
