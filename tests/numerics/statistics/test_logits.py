"""Centring by its law, and rounding against sums in another order and in double precision."""

import numpy as np
from scipy.special import expit, softmax

from klarsicht.numerics.statistics.logits import EXCLUSIVE, Independent, centre_logits, logit_scale, rounding_bound

RNG = np.random.default_rng(0)


def test_centred_logits_have_no_mean_and_the_same_probabilities():
    y = RNG.normal(3, 5, (7, 4, 6))
    np.testing.assert_allclose(centre_logits(y).mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(softmax(centre_logits(y), -1), softmax(y, -1))
    np.testing.assert_allclose(centre_logits(y + 100), centre_logits(y))


def test_sums_in_another_order_differ_by_less_than_the_rounding():
    features = np.abs(RNG.normal(size=(50, 2048))).astype(np.float32)
    weight = RNG.normal(size=(2048, 10)).astype(np.float32)
    order = RNG.permutation(2048)
    y, other = features @ weight, np.add.accumulate(features[:, order, None] * weight[order], 1)[:, -1]
    assert 0 < np.abs(y - other).max() < rounding_bound(y)
    assert rounding_bound(y) < 1e-3 * np.abs(y).max()


def test_rounding_is_of_the_type_and_of_the_largest_logit():
    assert rounding_bound(np.array([[-8.0, 1.0]], np.float32)) == 256 * 8 * 2.0**-23
    assert rounding_bound(np.array([[-8.0, 1.0]], np.float64)) == 256 * 8 * 2.0**-23  # copied from single precision
    assert rounding_bound(np.array([[-8.0, 1.0]], np.float16)) == 256 * 8 * 2.0**-10
    assert rounding_bound(np.zeros((0, 3))) == 0


def test_exclusive_outputs_count_by_their_softmax_and_independent_ones_by_their_sigmoids():
    y, own = RNG.normal(0, 2, (3, 9, 5)), Independent()
    np.testing.assert_allclose(EXCLUSIVE.log_probability(y, 2), np.log(softmax(y, -1)[..., 2]))
    np.testing.assert_allclose(own.log_probability(y, 2), np.log(expit(y[..., 2])))
    np.testing.assert_array_equal(EXCLUSIVE.predicts(y, 2), y.argmax(-1) == 2)
    np.testing.assert_array_equal(own.predicts(y, 2), expit(y[..., 2]) > 0.5)
    np.testing.assert_allclose(EXCLUSIVE.scores(y), y - y.mean(-1, keepdims=True))
    assert own.scores(y) is y and logit_scale(True) == own and logit_scale(False) == EXCLUSIVE
    for scale in (EXCLUSIVE, own):
        np.testing.assert_allclose(scale.score(y[0], 2), scale.scores(y[0])[:, 2])
