"""The detector against the Bayes posterior of a problem whose posterior is known, and against leakage."""

import numpy as np
import pytest
from scipy.special import expit

from klarsicht.audit.cleaning.artifacts.carrier_classifier import predict_carriers, predict_out_of_fold


def gaussians(n=2000, F=5, shift=1.5, seed=0):
    """Two classes of unit variance: the posterior is a logistic function of the first coordinate."""
    rng = np.random.default_rng(seed)
    member = rng.random(n) < 0.3
    X = rng.standard_normal((n, F)).astype(np.float32)
    X[member, 0] += shift
    return X, member, expit(shift * X[:, 0] - shift**2 / 2 + np.log(0.3 / 0.7))


def test_probabilities_are_the_posterior_and_calibrated():
    X, member, posterior = gaussians()
    rows = np.arange(800)
    found = predict_carriers({"x": X}, rows, member[rows], rows, len(X))
    assert np.abs(found.probability - posterior).mean() < 0.04
    unseen = np.arange(800, 2000)
    for low, high in ((0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1)):
        there = unseen[(found.probability[unseen] >= low) & (found.probability[unseen] < high)]
        assert abs(found.probability[there].mean() - member[there].mean()) < 0.1


def test_the_array_that_foretells_membership_is_used():
    X, member, _ = gaussians(400)
    noise = np.random.default_rng(1).standard_normal((400, 9)).astype(np.float32)
    assert predict_carriers({"noise": noise, "x": X}, np.arange(400), member, np.arange(400), 400).seen == "x"


def test_out_of_fold_means_that_noise_is_not_learned():
    """More features than images part any training set; out of fold they are worth nothing."""
    rng = np.random.default_rng(0)
    X, member = rng.standard_normal((60, 200)).astype(np.float32), np.arange(60) < 20
    found = predict_carriers({"noise": X}, np.arange(60), member, np.arange(60), 60)
    assert found.auc < 0.75
    assert found.recall < 0.5


def test_images_of_one_source_are_not_in_two_folds():
    """Copies of one image: with folds by image each would be foretold by its twin."""
    rng = np.random.default_rng(0)
    originals, label = rng.standard_normal((30, 100)), np.arange(30) < 12
    X, member, sources = (np.repeat(part, 4, axis=0) for part in (originals, label, np.arange(30)))
    leaky = predict_out_of_fold(X, member, np.arange(120), 1.0, 0)
    honest = predict_out_of_fold(X, member, sources, 1.0, 0)
    assert ((leaky >= 0.5) == member).mean() > 0.95
    assert ((honest >= 0.5) == member).mean() < 0.8


def test_recall_and_precision_are_those_of_the_counts():
    X, member, _ = gaussians(600, shift=6)
    found = predict_carriers({"x": X}, np.arange(600), member, np.arange(600), 600)
    called = found.probability >= 0.5
    assert found.recall == pytest.approx((called & member).sum() / member.sum())
    assert found.precision == pytest.approx((called & member).sum() / called.sum())
    assert found.auc > 0.99
