"""p-values from ranks: against closed forms, SciPy, and the uniform distribution over seeds."""

import numpy as np
import pytest

from klarsicht.numerics.statistics import conformal


def test_false_discovery_rates_reject_what_the_step_up_rule_rejects():
    """At a rate r, p-values up to the largest k-th one that is at most r k / n (Benjamini and Hochberg 1995)."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 17, 200):
        p = rng.random(n) ** 2
        q = conformal.false_discovery_rates(p)
        for rate in (0.01, 0.05, 0.3, 0.8):
            below = np.flatnonzero(np.sort(p) <= rate * np.arange(1, n + 1) / n)
            assert (q <= rate).sum() == (below.max() + 1 if len(below) else 0)


def test_a_smaller_least_excess_is_another_unit():
    """Scores in half the unit, with half the least excess, have the same levels."""
    scores = 9 * np.random.default_rng(1).exponential(size=(40, 3))
    whole, half = conformal.maximum_over_detectors(scores), conformal.maximum_over_detectors(scores / 2, 0.5)
    np.testing.assert_allclose(half.levels, whole.levels)
    quiet = np.linspace(0, 0.1, 40)[:, None]
    np.testing.assert_allclose(
        conformal.maximum_over_detectors(quiet, 0.5).levels, 2 * conformal.maximum_over_detectors(quiet).levels
    )


def test_p_is_the_rank_among_the_others():
    scores = np.array([1.0, 2, 3, 4])
    null = np.array([True, True, True, False])
    # 4 is above all three; 3 is compared with 1 and 2 only
    np.testing.assert_allclose(conformal.conformal_p_values(scores, null), [3 / 3, 2 / 3, 1 / 3, 1 / 4])


def test_ties_count_as_as_large():
    p = conformal.conformal_p_values(np.zeros(5), np.ones(5, bool))
    np.testing.assert_allclose(p, 1)


def test_a_score_that_is_no_number_is_the_least():
    scores = np.random.default_rng(4).exponential(size=(30, 2))
    scores[3], scores[5, 0] = np.nan, np.nan
    least = np.where(np.isnan(scores), -1e9, scores)
    for null in (np.ones(30, bool), np.arange(30) > 8):
        null &= ~np.isnan(scores[:, 0])
        found, wanted = (conformal.conformal_p_values(x[:, 0], null) for x in (scores, least))
        np.testing.assert_array_equal(found, wanted)
    whole = conformal.maximum_over_detectors(scores)
    assert whole.best[5] == 1 and whole.p[3] == 1 and np.isfinite(whole.extended).all()


def test_exponential_scores_of_any_scale_are_brought_to_one_scale():
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=(4000, 3)) * [2.0, 5.0, 40.0]
    level = conformal.standardise(scores)
    np.testing.assert_allclose(np.quantile(level, 0.75, axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.quantile(level, 0.99, axis=0), np.log(25), rtol=0.1)  # P = .25 exp(-level)
    quiet = conformal.standardise(scores / 1000)
    assert quiet.max() < 1  # whispers stay whispers


def test_the_null_lets_clean_scores_in_and_keeps_outliers_out():
    rng = np.random.default_rng(0)
    clean = rng.exponential(size=600)
    assert conformal.select_reference(clean).mean() > 0.99
    mixed = np.r_[clean, np.full(350, 30.0)]  # 37 % artifactual
    assert conformal.select_reference(mixed)[:600].mean() > 0.98
    assert not conformal.select_reference(mixed)[600:].any()


@pytest.mark.parametrize("draw", ["exponential", "normal", "uniform"])
def test_clean_classes_have_uniform_p(draw):
    """The largest of correlated detectors of different scale; 60 data sets of 40 clean classes."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shared = getattr(rng, draw)(size=(40, 1))
        found.append(conformal.maximum_over_detectors((shared + getattr(rng, draw)(size=(40, 6))) * np.arange(1, 7)))
    p = np.concatenate([v.p for v in found])
    for level in (0.05, 0.1, 0.3, 0.7):
        share, error = (p <= level + 1e-9).mean(), np.sqrt(level * (1 - level) / len(p))
        assert share <= level + 0.015 + 2 * error, (draw, level, share)  # a few far-out clean classes leave the null
        assert share >= level - 1 / 40 - 3 * error, (draw, level, share)


def test_artifactual_classes_do_not_hide_each_other():
    """A fifth of the classes are far out: all get the floor, and the clean ones keep their p."""
    clean_p = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores = rng.exponential(size=(50, 3))
        scores[:10, 1] += 40
        v = conformal.maximum_over_detectors(scores)
        assert v.floor == 1 / (v.null.sum() + 1)
        assert (v.p[:10] == v.floor).all() and (v.best[:10] == 1).all()
        assert (v.q[:10] < 0.1).all()
        clean_p.append(v.p[10:])
    assert (np.concatenate(clean_p) <= 0.05).mean() < 0.08


def test_rows_outside_are_in_no_null_and_the_others_are_tested_as_if_they_were_not_there():
    rng = np.random.default_rng(4)
    scores, outside = rng.exponential(size=(40, 3)), np.arange(40) % 7 == 0
    found, without = (
        conformal.maximum_over_detectors(scores, outside=outside), conformal.maximum_over_detectors(scores[~outside]),
    )  # fmt: skip
    assert not found.null[outside].any() and (found.null[~outside] == without.null).all()
    for name in ("levels", "best", "score", "p", "extended"):
        np.testing.assert_array_equal(getattr(found, name)[~outside], getattr(without, name))
    above = (without.score[without.null] >= found.score[outside][:, None]).sum(1)
    np.testing.assert_allclose(found.p[outside], (1 + above) / (without.null.sum() + 1))
    taken = without.with_rows_of(conformal.maximum_over_detectors(9 - scores[~outside]), np.arange(34) < 5)
    assert (taken.extended[5:] == without.extended[5:]).all() and (taken.extended[:5] != without.extended[:5]).any()
    np.testing.assert_array_equal(taken.q, conformal.false_discovery_rates(taken.extended))


def test_the_floor_is_reached_by_the_largest_class_inside_the_reference_and_outside():
    """A class inside the reference has one class fewer to be compared with; counted by hand."""
    scores = np.linspace(0, 1, 19)[:, None]
    inside = conformal.maximum_over_detectors(scores)
    assert inside.null.all()
    assert inside.p.min() == inside.floor == pytest.approx(1 / 19)  # above 18 others
    outside = conformal.maximum_over_detectors(np.r_[scores, [[500.0]]])
    assert outside.null.sum() == 19
    assert outside.p.min() == outside.floor == pytest.approx(1 / 20)  # above all 19
    assert (outside.extended[:-1] >= 1 / 19).all()  # no power law below the floor goes on inside


def test_the_tail_goes_on_below_the_floor_and_errs_upwards():
    rng = np.random.default_rng(1)
    scores, null = np.r_[rng.exponential(size=200), 20.0], np.r_[np.ones(200, bool), False]
    p, extended = conformal.conformal_p_values(scores, null), conformal.tail_p_values(scores, null)
    assert extended[-1] < p[-1] == 1 / 201
    assert extended[-1] > np.exp(-20)  # the true tail is lighter
    assert (extended <= p).all()
    inside = scores < scores[:200].max()
    np.testing.assert_array_equal(extended[inside], p[inside])


def test_the_tail_of_a_power_law_is_the_power_law():
    rng = np.random.default_rng(2)
    scores = np.r_[rng.pareto(2.0, 20000), 999.0]  # P(S >= s) = (1 + s)^-2
    null = np.r_[np.ones(20000, bool), False]
    assert conformal.tail_p_values(scores, null)[-1] == pytest.approx(1e-6, rel=0.5)


def test_a_member_of_the_null_far_out_hides_no_size_where_the_rank_is_small():
    """Of 40 the four above u = 0 have log(1 + s) of 1, 1, 1 and 4, so xi is 1.75."""
    null = np.r_[np.zeros(36), np.expm1([1, 1, 1, 4])]
    asked = np.expm1([0.5, 1.01, 3, 5])
    scores, among = np.r_[null, asked], np.arange(44) < 40
    ranks, power = np.array([5, 2, 2, 1]) / 41, 0.1 * np.exp(-np.array([0.5, 1.01, 3, 5]) / 1.75)
    np.testing.assert_allclose(conformal.tail_p_values(scores, among)[40:], [*ranks[:3], power[3]])
    below = conformal.tail_p_values(scores, among, 0.05)[40:]
    np.testing.assert_allclose(below, [*ranks[:2], power[2], power[3]])  # 0.1 e^(-0.58) is above 2 / 41


def test_a_null_of_noughts_lets_whispers_in_and_calls_a_shout():
    scores = np.r_[np.zeros(17), 1.4, 1.4, 1.6, 1.6, 25.0]
    null = conformal.select_reference(scores)
    assert null[:-1].all() and not null[-1]
    p = conformal.tail_p_values(scores, null)
    assert (p[:-1] > 0.05).all() and p[-1] < 0.001


def test_further_levels_are_judged_like_classes_of_their_own():
    rng = np.random.default_rng(0)
    v = conformal.maximum_over_detectors(rng.exponential(size=(40, 3)))
    asked = np.array([v.score.max() + 1, v.score.min() - 1])
    with_them = conformal.tail_p_values(np.r_[v.score, asked], np.r_[v.null, False, False])[-2:]
    np.testing.assert_allclose(v.p_of(asked), with_them)
    assert v.p_of(asked)[1] == 1 and v.p_of(asked)[0] <= v.floor
    np.testing.assert_array_equal(v.levels.max(1), v.score)


def test_constant_and_missing_scores_do_not_break_anything():
    scores = np.zeros((4, 2))
    v = conformal.maximum_over_detectors(scores)
    np.testing.assert_allclose(v.p, 1)
    assert conformal.maximum_over_detectors(np.zeros((1, 1))).p == pytest.approx([1.0])
    assert not conformal.select_reference(np.array([np.nan, np.inf])).any()
