"""Every p of a verdict: against closed forms, ranks counted by hand, and the uniform distribution over seeds."""

import numpy as np
import pytest

from klarsicht.audit.results.significance import (
    ALIGNED,
    LEVEL,
    MIN_CLASSES,
    MIN_OUTPUTS,
    STEP_SHARE,
    are_distinct,
    class_strategy,
    output_strategy,
    p_among_draws,
    p_values_of_use,
    rank_among_outputs,
)
from klarsicht.audit.verdicts.detectors.bank import change_of
from klarsicht.numerics.statistics import conformal
from klarsicht.numerics.statistics.split_half import combined_p

MEASURED = {
    "natural": False, "correlation": 0.0, "left": 0.0, "apart": "", "apart_p": float("nan"), "apart_left": float("nan"),
}  # fmt: skip
APART = MEASURED | {"apart": "noise 0.02", "apart_p": 0.03, "apart_left": 0.8}
NAMES = ("fine 50", "noise 0.02", "embedding 0.002")


def test_classes_are_compared_from_five_on_and_outputs_from_where_their_ranks_reach_the_level():
    for n in range(2, 25):
        assert class_strategy(n).compares_classes == output_strategy(n).shares == (n >= MIN_CLASSES == 5)
        assert (output_strategy(n).other_windows == 0) == (n >= MIN_OUTPUTS) == (1 / n <= LEVEL)


def test_clean_classes_are_called_no_more_often_than_the_level():
    """Of many classes and of few; scores are the mean surprisal of two halves, a quarter of a chi squared of four."""
    rng, called = np.random.default_rng(0), {4: [], 40: []}
    for n, shares in called.items():
        for _ in range(4000 // n):
            scores = rng.chisquare(4, (n, 3)) / 4
            found = class_strategy(n).test_detections(scores, NAMES, change_of, [MEASURED] * n)
            shares += found.artifactual(0.05).tolist()
    assert 0 < np.mean(called[40]) < 0.05
    assert np.mean(called[4]) < 0.05 * 0.2 + 0.005  # few classes spend a fifth of the level on it


def test_a_class_of_many_must_exceed_the_others_and_chance_within_itself():
    """Oracle: of 30 classes of equal scores but one, its rank is 1/30 and more; its p by itself is Fisher's."""
    scores = np.full((30, 2), 0.1)
    for score in (2.0, 20.0):
        scores[7, 1] = score
        found = class_strategy(30).test_detections(scores, NAMES[:2], change_of)
        own = min(2 * np.exp(-2 * score) * (1 + 2 * score), 1)
        assert found.p_own[7] == pytest.approx(own) and found.p_decisive[7] >= own
        assert found.artifactual(0.05).tolist() == [score == 20 and k == 7 for k in range(30)]
        assert not found.class_specific(0.05).any()
        assert found.significant(0.05).sum() == (score == 20) and found.decisive[7] == 1


def step_down(scores):
    """Rewrite the rule class by class: what is called leaves the reference, the others are tested again, and with fewer
    in the reference the p of a class by itself counts twice."""
    n, m = scores.shape
    own = np.minimum(m * np.exp(-2 * scores) * (1 + 2 * scores), 1)
    p, left, times = np.ones(n), set(), 1
    while True:
        mask = np.array([k in left for k in range(n)])
        test = conformal.maximum_over_detectors(np.where(mask[:, None], np.inf, scores)[~mask])
        for k in range(n):
            if k in left:
                continue
            place = k - sum(i < k for i in left)
            p[k] = min(p[k], max(test.extended[place], min(times * own[k, test.best[place]], 1)))
        new = {k for k in range(n) if p[k] <= 0.05} - left
        if not new:
            return p
        left, times = left | new, 2


def test_what_is_called_leaves_the_reference_until_nothing_changes():
    """Oracle: the literal rewrite, in which a class that left is not there any more."""
    shown = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores = rng.chisquare(4, (50, 4)) / 4
        scores[:18, 0] += rng.uniform(3, 9, 18)  # many artifacts, of which most hide in the reference of the others
        found = class_strategy(50).test_detections(scores, NAMES, change_of)
        expected = step_down(scores)
        np.testing.assert_allclose(found.p_decisive, expected)
        np.testing.assert_allclose(found.p_decisive, np.maximum(found.largest.extended, found.p_own))
        once = conformal.maximum_over_detectors(scores)
        own = combined_p(scores, 4)[np.arange(50), once.best]
        before = np.maximum(once.extended, own)
        assert (found.p_decisive <= before).all()  # nothing that was called is lost
        later = found.artifactual(0.05) & (before > 0.05)
        assert (combined_p(scores.max(1), 4)[later] <= 0.05 * STEP_SHARE).all()
        shown += later.sum()
    assert shown > 60  # two a run at least are called in a smaller reference alone


def test_classes_that_surprise_by_nature_are_compared_once():
    """Of aligned images nearly every class is beyond chance by itself: stepping down would call one after another."""
    scores = 8 * np.random.default_rng(0).exponential(size=(60, 4))
    found = class_strategy(60).test_detections(scores, NAMES, change_of)
    once = conformal.maximum_over_detectors(scores)
    np.testing.assert_array_equal(found.largest.extended, once.extended)
    assert found.artifactual(0.05).mean() <= 0.06 < (found.p_own <= 0.05).mean()


def test_p_of_each_detection_is_that_of_a_class_more():
    """Oracle: the class appended to the run, as the only one outside the reference."""
    scores = np.random.default_rng(1).exponential(size=(20, 3))
    found = class_strategy(20).test_detections(scores, NAMES, change_of)
    largest = found.largest
    for i, j in ((0, 0), (3, 2), (19, 1)):
        above = (largest.score[largest.null] >= largest.levels[i, j]).sum()
        rank = (1 + above) / (largest.null.sum() + 1)
        assert found.p_each[i, j] == pytest.approx(rank) or found.p_each[i, j] < rank == 1 / (largest.null.sum() + 1)


def test_too_few_classes_count_by_their_windows_alone():
    scores, names = np.array([[9.0, 30, 2], [0.5, 40, 1]]), ("fine 50", "noise 0.02", "texture 32")
    alone = class_strategy(2).test_detections(scores, names, change_of).largest
    s = np.array([9, 1.0])
    np.testing.assert_allclose(
        alone.p, np.minimum(2 / 0.2 * np.exp(-2 * s) * (1 + 2 * s), 1)
    )  # Fisher's method, a fifth
    assert list(alone.best) == [0, 2]


def test_differences_of_means_do_not_change_what_is_said_of_few_classes():
    scores = np.array([[9.0, 50, 2], [2, 9, 5]])
    before = class_strategy(2).test_detections(scores, NAMES, change_of, [MEASURED] * 2)
    after = class_strategy(2).test_detections(
        np.c_[scores, [[99.0], [99]]], (*NAMES, "embedding-means 0.002"), change_of, [MEASURED] * 2
    )
    for name in ("p_decisive", "p_own", "decisive"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_array_equal(after.p_each, np.c_[before.p_each, [[1.0], [1]]])


def test_what_stands_apart_from_reference_classes_has_its_p_from_there():
    """The description counts with the score that a window of the same p would have: the inverse of Fisher's method."""
    scores = np.array([[0.1, 50, 0.1], [0.2, 9, 0.1]])

    def tested(*measures):
        return class_strategy(2).test_detections(scores, NAMES, change_of, measures)

    found = tested(APART, MEASURED)
    assert found.p_decisive == pytest.approx([0.03, 1.0], rel=1e-9) and found.decisive[0] == 1
    assert found.artifactual(0.05).tolist() == [True, False]
    for other in (MEASURED | {"correlation": ALIGNED}, MEASURED | {"correlation": float("nan")}):
        assert not tested(APART, other).artifactual(0.05).any()  # the pictures of a class of the run are aligned
    for left in (0.05, float("nan")):  # what is left stands apart as well, or was not looked at
        assert not tested(APART | {"apart_left": left}, MEASURED).artifactual(0.05).any()


def test_windows_of_aligned_images_have_their_p_from_random_classes_and_change_no_other():
    aligned = MEASURED | {"correlation": 0.2, "natural": True}
    called = aligned | {"apart": "aligned 50 0.8", "apart_p": 0.03, "apart_left": 0.8}
    scores = np.array([[9.0, 9, 1, 6], [0.2, 9, 0.1, 0.5]])

    def tested(*measures, some=slice(None)):
        names = (*NAMES, "aligned 50 0.8")[some]
        return class_strategy(2).test_detections(scores[:, some], names, change_of, measures)

    found = tested(called, aligned)
    assert found.p_decisive == pytest.approx([0.03, 1.0], rel=1e-9) and found.decisive[0] == 3
    without = tested(aligned, aligned, some=slice(3))
    np.testing.assert_array_equal(found.p_each[1], [*without.p_each[1], 1.0])  # no test more: the null is its own
    assert not tested(called | {"apart_left": 0.01}, aligned).artifactual(0.05).any()


def test_windows_are_distinct_where_every_class_was_measured_and_none_is_natural():
    natural = MEASURED | {"natural": True}
    assert are_distinct([MEASURED] * 2)
    assert not are_distinct([MEASURED, natural]) and not are_distinct([])


@pytest.mark.parametrize("change", ["blur", "border", "shared"])
def test_what_brings_no_content_along_counts_by_its_rank_among_outputs(change):
    """A change that raises its class most of a hundred outputs, at a z that clean classes' tiles reach easily."""
    z, rank = [*np.linspace(-2, 3, 40), 2.0, 2.0, np.nan], [*[50] * 40, 0, 0, -1]
    changes = ["tile"] * 40 + [change, "tile", ""]
    effects = [{"z": a, "rank": b, "change": c} for a, b, c in zip(z, rank, changes, strict=True)]
    p = p_values_of_use(effects, [False] * 40 + [True, True, False], 100, 0.05)
    assert p[-3] == 0.01 and 0.1 < p[-2] < 0.4 and p[-1] == 1
    assert p[39] == pytest.approx(1 / 40)  # the largest of forty clean ones


def test_of_twenty_outputs_the_first_counts_by_its_margin():
    """Student's t of the deviation, as a table has it: 2.101 of 18 degrees of freedom is exceeded 25 times in 1,000."""
    effects = [{"z": z, "rank": rank} for z, rank in ((2.101, 0), (2.101, 1), (0.1, 0))]
    p = output_strategy(20).p_beside(effects)
    np.testing.assert_allclose(p, [0.025, 0.1, 0.05], atol=1e-4)


@pytest.mark.parametrize("outputs", [2, 5, 10, 19])
def test_a_large_effect_is_said_at_any_number_of_outputs(outputs):
    """No rank among nineteen is below the level; that among 39 random artifacts on the same images is."""
    clean = [{"z": 0.2 * i, "rank": 3, "p_tiles": 1.0, "change": "shared"} for i in range(outputs - 1)]
    large = {"z": 1.5, "rank": 0, "p_tiles": 0.025, "change": "shared"}
    p = p_values_of_use([*clean, large], [False] * (outputs - 1) + [True], outputs, 0.05)
    assert p[-1] == 0.025 and min(p[:-1], default=1) > 0.05


@pytest.mark.parametrize(("clean", "beside"), [(8, True), (40, False)])
def test_a_tile_is_judged_among_outputs_where_clean_classes_are_few(clean, beside):
    effects = [{"z": z, "rank": 5} for z in np.linspace(-2, 3.5, clean)] + [{"z": 3.4, "rank": 0}]
    effects = [effect | {"change": "tile"} for effect in effects]
    p = p_values_of_use(effects, [False] * clean + [True], 20, 0.05)
    assert (p[-1] < 0.005) == beside
    assert not any(one <= 0.05 for one in p[:8])  # nor is a clean class whose tile does not raise it first of all


@pytest.mark.parametrize(("rank", "p_tiles", "p"), [(0, 0.025, 0.025), (1, 0.025, 0.025), (1, 1.0, 0.5)])
def test_a_tile_is_judged_among_other_windows_where_outputs_are_few(rank, p_tiles, p):
    """Also one that is not first, where most images become the class: else its p among windows stays 1."""
    effects = [{"z": 0.1, "rank": 1, "p_tiles": 1.0}, {"z": 9.0, "rank": rank, "p_tiles": p_tiles}]
    effects = [effect | {"change": "tile"} for effect in effects]
    assert p_values_of_use(effects, [False, True], 2, 0.05) == [1.0, p]


@pytest.mark.parametrize(("reached", "p"), [([], 1 / 40), ([20], 2 / 40), ([0, 3], 2 / 4), ([38], 2 / 40)])
def test_draws_end_with_the_second_that_reaches_the_rise(reached, p):
    """Besag and Clifford: two over the number of draws, or one more than reached it over one more than were drawn."""
    assert p_among_draws((i in reached for i in range(39)), 39) == p


def test_a_rank_among_outputs_counts_the_output_itself():
    assert rank_among_outputs(0, 10) == 0.1 and rank_among_outputs(np.array([0, 9]), 10).tolist() == [0.1, 1.0]
