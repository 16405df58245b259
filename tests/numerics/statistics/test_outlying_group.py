"""Groups that stand apart: Gaussian classes with and without a shifted group, and laws of the whitening."""

import numpy as np
import pytest
from scipy.stats import binom

from klarsicht.numerics.statistics.outlying_group import Exceedance, OtherClasses, Whitening, find_outlying_group
from klarsicht.numerics.statistics.split_half import draw_halves

N, M, R = 200, 1000, 12


def classes(seed, shifted=0, by=0.0):
    """Rows of a class, of which the first `shifted` lie `by` deviations away in a direction of their own."""
    rng = np.random.default_rng(seed)
    own, reference = rng.normal(0, 1, (N, R)), rng.normal(0, 1, (M, R))
    direction = rng.normal(0, 1, R)
    direction /= np.linalg.norm(direction)
    own[:shifted] += by * direction
    return own, reference, draw_halves(N, rng)


def found(own, reference, half, counted=None):
    return find_outlying_group(own, reference, half, np.ones(len(own), bool) if counted is None else counted, 0)


def test_reference_is_white_and_linear_maps_do_not_matter():
    rng = np.random.default_rng(3)
    reference = rng.normal(0, 1, (500, 8)) @ rng.normal(0, 1, (8, 8)) + 5
    white = Whitening.of(reference)(reference)
    np.testing.assert_allclose(np.cov(white.T), np.eye(8), atol=1e-8)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-8)


def test_constant_columns_are_dropped():
    reference = np.random.default_rng(0).normal(0, 1, (50, 3)) * [1, 0, 2]
    assert Whitening.of(reference)(reference).shape == (50, 2)
    assert Whitening.of(np.ones((20, 4)))(np.ones((3, 4))).shape == (3, 0)


@pytest.mark.parametrize("shifted", [40, 20, 10])
def test_a_shifted_group_is_found_with_its_members(shifted):
    group = found(*classes(shifted, shifted, 9.0))
    assert group.score > 5
    assert group.member[:shifted].mean() > 0.9
    assert group.member[shifted:].sum() <= 2


def test_few_carriers_are_set_apart_by_the_difference_of_means_in_the_midst_of_noise():
    """Fourteen of 280 lie apart in components of large variance. Whitened, these are four of 46, and a discriminant of
    seven carriers is fitted to the noise of the others; the difference of means is not."""
    scores = {True: [], False: []}
    for seed in (3, 4, 5):
        rng = np.random.default_rng(seed)
        deviation = np.r_[np.full(4, 1.0), np.full(42, 0.05)]
        own, reference = rng.normal(0, deviation, (280, 46)), rng.normal(0, deviation, (M, 46))
        own[:14, :4] += 5.5 * np.array([1, -1, 1, 1])
        half, white = draw_halves(280, rng), Whitening.of(reference)
        group = find_outlying_group(own, reference, half, np.ones(280, bool), 0, whiten=False)
        scores[False].append(group.score)
        assert group.member[:14].mean() > 0.9 and group.member[14:].sum() <= 2
        scores[True].append(find_outlying_group(white(own), white(reference), half, np.ones(280, bool), 0).score)
    assert np.mean(scores[False]) > 3 * np.mean(scores[True])


def test_differences_of_means_do_not_change_under_rotation_and_one_scale():
    own, reference, half = classes(2, 20, 9.0)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(R, R)))[0]
    plain, turned = (
        find_outlying_group(own @ by, reference @ by, half, np.ones(N, bool), 0, whiten=False)
        for by in (np.eye(R), 3 * turn)
    )
    assert plain.score == pytest.approx(turned.score) and (plain.member == turned.member).all() and plain.score > 5


@pytest.mark.slow
def test_clean_classes_do_not_surprise():
    """The surprisal of chance is exponential at most: its mean over classes is below one nat."""
    assert np.mean([found(*classes(seed)).score for seed in range(30)]) < 0.5


def test_as_many_are_expected_beyond_the_edge_as_in_the_band_below():
    own, reference = np.zeros((1, 100)), np.linspace(-1, 1, 1001)[None]
    edge = np.quantile(reference, 0.998)
    own[0, :5], own[0, 5:15], own[0, 15:20] = 10, 0.8 * edge, 0.5 * edge  # the band is [.6, 1] of the edge
    assert Exceedance.of(own, reference, 0.002).surprisal[0] == pytest.approx(-binom.logsf(4, 100, 0.1), rel=1e-6)


def test_repeats_of_one_source_do_not_count():
    own, reference, half = classes(5, 20, 9.0)
    counted = np.ones(N, bool)
    counted[1:20] = False
    assert found(own, reference, half, counted).score < 1


def test_exceedance_is_the_binomial_tail():
    own, reference = np.zeros((1, 100)), np.linspace(-1, 1, 1001)[None]
    own[0, :5] = 10
    exceeded = Exceedance.of(own, reference, 0.002)
    assert exceeded.edge[0] == pytest.approx(np.quantile(reference, 0.998))
    rate = 3 / 1003  # two of the reference lie beyond the edge; Laplace's rule
    assert exceeded.surprisal[0] == pytest.approx(-binom.logsf(4, 100, rate), rel=1e-6)


def test_classes_with_most_rows_beyond_count_as_the_median_of_a_direction():
    """Of 20 classes two are left out. Along the first axis these are the shifted ones, whose rows then all lie at the
    median; along the second, the one that is shifted there and another."""
    rng = np.random.default_rng(1)
    label = rng.permutation(np.repeat(np.arange(20), 30))
    rows = rng.normal(0, 1, (600, 3))
    carriers = [np.flatnonzero(label == k)[:9] for k in (3, 7, 12)]
    rows[carriers[0], 0] += 8
    rows[carriers[1], 0] += 8
    rows[carriers[2], 1] += 8
    others = OtherClasses.of(rows, label)
    first, second = others.project(np.eye(2, 3))
    expected = np.where(np.isin(label, (3, 7)), np.median(rows[:, 0]), rows[:, 0])
    np.testing.assert_array_equal(np.sort(first), np.sort(expected))
    assert second.max() < 5 < rows[:, 1].max()
    assert np.isclose(second, np.median(rows[:, 1])).sum() == 60


def test_of_fewer_than_ten_classes_none_is_left_out():
    rng = np.random.default_rng(2)
    rows, label = rng.normal(0, 1, (90, 4)), np.repeat(np.arange(9), 10)
    directions = rng.normal(0, 1, (5, 4))
    np.testing.assert_allclose(OtherClasses.of(rows, label).project(directions), directions @ rows.T)
    np.testing.assert_array_equal(
        OtherClasses.of(rows, None).project(directions), OtherClasses.of(rows, label).project(directions)
    )


def test_carriers_in_two_other_classes_do_not_hide_a_rare_group():
    """Fourteen of 280 are carriers; two of 20 other classes hold the same artifact on a fifth, more than the edge
    allows."""
    rng = np.random.default_rng(4)
    own, reference, label = rng.normal(0, 1, (280, R)), rng.normal(0, 1, (2000, R)), np.repeat(np.arange(20), 100)
    shift = np.r_[9.0, np.zeros(R - 1)]
    own[:14] += shift
    reference[:20] += 1.2 * shift
    reference[300:320] += 1.2 * shift
    half, every = draw_halves(280, rng), np.ones(280, bool)
    plain = find_outlying_group(own, reference, half, every, 0)
    group = find_outlying_group(own, reference, half, every, 0, classes=label)
    assert plain.score < 2 and group.score > 5
    assert group.member[:14].mean() > 0.9 and group.member[14:].sum() <= 2


def test_one_class_of_others_in_ten_may_be_left_out_without_a_surprise_by_chance():
    scores = []
    for seed in range(8):
        own, reference, half = classes(seed)
        label = np.arange(M) % 25
        scores.append(find_outlying_group(own, reference, half, np.ones(N, bool), 0, classes=label).score)
    assert np.mean(scores) < 0.5


@pytest.mark.parametrize("n", [1, 4, 7])
def test_too_few_rows_have_no_group(n):
    own = np.random.default_rng(0).normal(0, 1, (n, 3))
    group = find_outlying_group(own, own, np.arange(n) < n // 2, np.ones(n, bool), 0)
    assert group.score == 0 and not group.member.any()
