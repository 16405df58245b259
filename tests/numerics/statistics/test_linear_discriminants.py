"""Scores beside a literal fit with scikit-learn's covariance, areas of Gaussian classes in closed form, and noise."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from klarsicht.numerics.statistics import linear_discriminants as discriminants


def draw(n, features, classes, shift, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = rng.normal(size=(n, features))
    x[:, 0] += shift * (labels == 0)
    return x, labels


def literal_scores(x, labels, fold, classes):
    """Every fold by numpy's inverse of scikit-learn's covariance, class by class, in the space of the features."""
    x = (x - x.mean(0)) / x.std(0)
    out = np.empty((len(x), classes))
    for number in np.unique(fold):
        fit = fold != number
        within = np.concatenate([x[fit & (labels == k)] - x[fit & (labels == k)].mean(0) for k in range(classes)])
        inverse = np.linalg.inv(ledoit_wolf(within, assume_centered=True)[0])
        for k in range(classes):
            own, rest = (x[fit & some].mean(0) for some in (labels == k, labels != k))
            out[~fit, k] = (x[~fit] - (own + rest) / 2) @ inverse @ (own - rest)
    return out


@pytest.mark.parametrize(("n", "features", "classes"), [(60, 8, 3), (40, 90, 2)])
def test_scores_are_those_of_a_literal_fit(n, features, classes):
    x, labels = draw(n, features, classes, 2.0)
    fold = discriminants.draw_folds(labels, np.arange(n), 0)
    found = discriminants.cross_validated_scores(x, labels, np.arange(n))
    np.testing.assert_allclose(found, literal_scores(x, labels, fold, classes), rtol=1e-6, atol=1e-8)


def test_the_area_of_two_gaussian_classes_is_that_of_theory():
    """Area Phi(d / sqrt 2) of classes d deviations apart; 4,000 images fit the discriminant nearly without error."""
    x, labels = draw(4000, 4, 2, 1.0)
    scores = discriminants.cross_validated_scores(x, labels, np.arange(4000))
    assert roc_auc_score(labels == 0, scores[:, 0]) == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.02)


def test_noise_tells_no_class():
    areas = []
    for seed in range(30):
        x, labels = draw(60, 40, 2, 0.0, seed)
        areas.append(roc_auc_score(labels == 0, discriminants.cross_validated_scores(x, labels, np.arange(60))[:, 0]))
    assert abs(np.mean(areas) - 0.5) < 3 * np.std(areas) / np.sqrt(30)


def test_two_classes_mirror_each_other():
    x, labels = draw(50, 6, 2, 1.0)
    first, second = discriminants.cross_validated_scores(x, labels, np.arange(50)).T
    np.testing.assert_allclose(first, -second, atol=1e-9)


def test_sources_stay_together_and_classes_are_spread():
    labels, sources = np.arange(200) % 2, np.arange(200) // 8 * 2 + np.arange(200) % 2
    fold = discriminants.draw_folds(labels, sources, 3)
    assert all(len(set(fold[sources == s])) == 1 for s in sources)
    for k in (0, 1):
        counts = np.bincount([fold[sources == s][0] for s in np.unique(sources[labels == k])], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_what_is_known_by_its_source_alone_is_told_only_where_sources_may_part():
    """Images of one source are equal but for noise and a source says nothing of its class."""
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(20), 6)
    labels = rng.permutation(np.arange(20) % 2)[sources]
    x = rng.normal(size=(20, 30))[sources] + 0.01 * rng.normal(size=(120, 30))
    parted, together = (
        roc_auc_score(labels == 0, discriminants.cross_validated_scores(x, labels, s)[:, 0])
        for s in (np.arange(120), sources)
    )
    assert parted > 0.95 and together < 0.8


def test_constant_features_and_a_class_of_one_source_are_no_error():
    labels = np.arange(30) % 3
    scores = discriminants.cross_validated_scores(np.ones((30, 4)), labels, np.arange(30))
    np.testing.assert_allclose(scores, 0, atol=1e-12)
    x, labels = draw(30, 4, 2, 1.0)
    sources = np.where(labels == 0, 0, np.arange(30))
    scores = discriminants.cross_validated_scores(x, labels, sources)
    assert np.isnan(scores[labels == 0]).all() and np.isfinite(scores[labels == 1, 1]).sum() < 15
