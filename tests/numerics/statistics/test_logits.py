"""Centring by its law, and rounding against sums in another order and in double precision."""

import numpy as np
from scipy.special import softmax

from klarsicht.numerics.statistics.logits import centre_logits, rounding_bound

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
