"""Classes whose cluster the model follows and no detector knows: which are marked, and how often by chance."""

from dataclasses import replace

import numpy as np
import pytest

from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict
from klarsicht.audit.results.followed_groups import mark_followed_groups
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import VerdictKind

QUIET = DetectionResult("fine 32 0.8", 0.1, 0.1, 0.5, 0.9, 0.9)
UNUSED = UseResult("fine 32 0.8", "any place", 0.0, -0.1, 0.1, 0.0, 0.9, 5, 0.0, 0.0, 0.0, 1.0)
PATHS = [f"{i}.png" for i in range(1000)]


def verdict(target, **fields):
    return Verdict(f"c{target}", target, 100, 0, QUIET, (1,), ("1.png",), UNUSED, False, False, **fields)


def cluster(target, low=0.2, d2=9.0, rank=0):
    rise = {"effect": low + 0.1, "low": low, "high": low + 0.2, "images": 32}
    return rise | {"target": target, "d2": d2, "rank": rank, "rows": [10 * target, 10 * target + 1]}


def drawn(seed, classes=40):
    rng = np.random.default_rng(seed)
    return [cluster(k, float(rng.exponential(0.4)), float(rng.gamma(4, 3))) for k in range(classes)]


def marked(clusters, classes=40, artifactual=()):
    every = tuple(replace(verdict(k), artifactual=k in artifactual) for k in range(classes))
    return mark_followed_groups(Quantification(every, 0.02, 0.05), clusters, PATHS)


def test_a_group_that_rises_and_stands_apart_beyond_those_of_other_classes_is_marked():
    clusters = drawn(0)
    clusters[7] = cluster(7, low=9.0, d2=400.0)
    found = marked(clusters)
    one = found.of("c7")
    assert found[0].followed and one.kind is VerdictKind.FOLLOWED and one.needs_review
    assert one.rows == (70, 71) and one.members == ("70.png", "71.png")
    assert Verdict.from_json(one.to_json()) == one
    others = [v for v in found if v.target != 7]
    assert all(v.rows == (1,) for v in others if v.kind is VerdictKind.NOTHING)
    assert sum(v.kind is not VerdictKind.NOTHING for v in others) <= 2  # of forty that many rank at .05


def test_groups_of_several_classes_do_not_hide_each_other():
    """Oracle: their ranks. Of 80 classes four clusters that rise and stand apart more than all others have p of 4/80 at
    most; where they are so far out that they count as no reference, up to .05 of the 76 others may rank there too."""
    clusters = [cluster(k, 0.6 + 0.001 * k, (2 + 0.01 * k) ** 2) for k in range(80)]
    for k in (3, 4, 5, 6):
        clusters[k] = cluster(k, 3.0 + 0.1 * k, 81.0)
    followed = {v.target for v in marked(clusters, 80) if v.followed}
    assert followed >= {3, 4, 5, 6} and len(followed) <= 4 + 0.05 * 80


def test_a_level_marks_no_more_classes_than_its_share():
    clusters = [cluster(k, 0.6 + 0.001 * k, (2 + 0.01 * k) ** 2) for k in range(80)]
    assert {v.target for v in marked(clusters, 80) if v.followed} == {76, 77, 78, 79}


@pytest.mark.parametrize("changed", [{"rank": 1}, {"low": 0.4}])
def test_a_group_that_raises_another_class_more_or_hardly_its_own_is_not(changed):
    clusters = drawn(0)
    clusters[7] = cluster(7, **{"low": 9.0, "d2": 400.0} | changed)
    assert not marked(clusters).of("c7").followed


def test_what_a_detector_knows_keeps_its_verdict():
    clusters = drawn(0)
    clusters[7] = cluster(7, low=9.0, d2=400.0)
    found = marked(clusters, artifactual=(7,)).of("c7")
    assert found.kind is VerdictKind.PRESENT and found.rows == (1,)


def test_fewer_than_five_classes_are_not_compared():
    assert not any(v.followed for v in marked([cluster(0, 9.0, 400.0), *drawn(0, 4)[1:]], 4))


def test_classes_that_were_left_count_as_quiet_ones():
    found = marked([cluster(7, low=9.0, d2=400.0)])
    assert [v.target for v in found if v.followed] == [7]


def test_classes_that_differ_by_chance_are_marked_no_more_often_than_the_level():
    share = np.mean([[v.followed for v in marked(drawn(seed))] for seed in range(100)])
    assert share < 0.05
