"""The least p is that of an item beyond all others, ranked by brute force."""

from types import SimpleNamespace

import numpy as np
import pytest
from tests.audit.results.test_sufficiency import evidence_of

from klarsicht.audit.results.checked_picture import ELSEWHERE, CheckedPictures
from klarsicht.audit.results.resolution import describe_least_p, describe_rank_limit
from klarsicht.audit.results.sufficiency import ClassProfile, Sufficiency
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.numerics.statistics import conformal


def least_rank(n):
    """p of the largest of n scores, all of them the reference of each other."""
    scores = np.arange(n, dtype=float)
    return conformal.conformal_p_values(scores, np.ones(n, bool)).min()


@pytest.mark.parametrize("level", [0.05, 0.1, 0.25])
def test_a_limit_is_said_exactly_where_no_rank_reaches_the_level(level):
    for n in range(2, 45):
        reaches = least_rank(n) <= level
        told = describe_rank_limit(1 / n, level)
        assert (told == "") == reaches
        if told:
            assert f"{least_rank(n):.3f}" in told and f"{round(1 / level)} or more of them" in told
            assert "presumably clean classes" in told  # classes with a finding are no reference


def part(p):
    return evidence_of("border", p=p, noted=False)


@pytest.mark.parametrize(("classes", "natural"), [(6, True), (19, True), (20, False), (30, False)])
def test_profiles_say_among_which_classes_p_is_where_a_rank_among_their_own_cannot_reach_the_level(classes, natural):
    profiles = tuple(ClassProfile(f"c{k}", k, 20, 1.0, 0.9, 1.0, (part(0.5),)) for k in range(classes))
    found = Sufficiency(profiles, 0.05, 20)
    assert (least_rank(classes) > 0.05) == natural
    assert ("among classes of ordinary photographs" in found.limits) == natural
    assert ("among the strongest parts of other classes" in found.limits) != natural
    floor = 1 if natural else least_rank(classes)
    assert found.to_json()["limits"] == found.limits and found.to_json()["floor"] == pytest.approx(floor)


JUDGED = SimpleNamespace(to_json=dict)  # a class of which only the number counts


def test_verdicts_of_few_classes_say_so_in_words_and_json():
    few, many, alone = (Quantification((JUDGED,) * n, floor, 0.05) for n, floor in ((5, 0.2), (25, 0.04), (4, 1.0)))
    assert "below 0.200" in few.limits and "audit power" in few.limits and few.to_json()["limits"] == few.limits
    assert "so few classes" not in many.limits and "Here p" not in alone.limits
    assert "no smaller than 0.025" in Quantification((), 1.0, 0.02).limits


def test_pictures_compared_with_few_clean_images_say_that_none_can_carry():
    assert "no smaller than" not in CheckedPictures((), ("a", "b"), (), 0.05, 39).limits  # 2 / 40
    told = CheckedPictures((), ("a", "b"), (), 0.05, 38)
    assert f"{2 / 39:.3f}" in told.limits and "38 clean images and 2 known artifacts" in told.limits
    assert told.to_json()["limits"] == told.limits
    assert f"{ELSEWHERE} other places" in CheckedPictures((), ("a",), (), 0.02, 500).limits
    assert "smaller" not in CheckedPictures((), (), ("b",), 0.001, 3).limits


def test_nothing_is_said_where_the_level_is_reached():
    assert describe_least_p(0.05, 0.05, "nothing is called", "Do.") == ""
    assert describe_least_p(0.1, 0.05, "nothing is called", "Do.").startswith("Here p can be no smaller than 0.100")
