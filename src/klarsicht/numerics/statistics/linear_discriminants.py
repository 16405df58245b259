"""Tell classes by features: linear discriminants that are fitted on some images and scored on others."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from klarsicht.ground.arrays import Doubles, Floats, Ints

FOLDS = 5  # of a cross-validation
LEAST_SHRINKAGE = 1e-6  # of the covariance: more images than features may lie in fewer dimensions


def cross_validated_scores(features: Floats, labels: Ints, sources: Ints, *, seed: int = 0) -> Doubles:
    """Score images for every class by discriminants that were fitted without them, nor others of their source.

    The score of an image x for a class is (m - o)^T S^-1 (x - (m + o) / 2): m is the mean of the class, o that of all
    other images, S the covariance within classes, shrunk as Ledoit and Wolf (2004) do. The middle makes scores of
    several folds comparable. features: (n, F); constant ones say nothing. labels: int (n,), the class of each, 0 to K -
    1. sources: int (n,), equal for images that must stay together. Returns float (n, K); NaN where the other folds have
    no image of the class, or of no other."""
    classes = int(labels.max(initial=-1)) + 1
    scores, fold = np.full((len(labels), classes), np.nan), draw_folds(labels, sources, seed)
    x = rotate_to_span(standardise_columns(features))
    for number in range(FOLDS):
        away = fold == number
        if away.any() and not away.all():
            scores[away] = score_by_discriminants(x[~away], labels[~away], x[away], classes, features.shape[1])
    return scores


def draw_folds(labels: Ints, sources: Ints, seed: int) -> Ints:
    """Draw the fold of each image (n,): sources stay together, and each class is spread over all folds."""
    _, first, number = np.unique(sources, return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    fold = np.empty(len(first), np.intp)
    fold[order] = np.arange(len(first)) % FOLDS
    return np.asarray(fold[number])


def standardise_columns(features: Floats) -> Doubles:
    """Shift and scale each feature to mean 0 and deviation 1; those that do not vary become 0."""
    x = np.asarray(features, np.float64)
    x = x - x.mean(0)
    spread = x.std(0)
    return np.asarray(x / np.where(spread > 1e-9 * max(float(spread.max(initial=0)), 1e-300), spread, np.inf))


def rotate_to_span(x: Doubles) -> Doubles:
    """Rotate vectors (n, F) into coordinates of their span, (n, n), where it is smaller; inner products stay."""
    if x.shape[1] <= len(x):
        return x
    values, vectors = np.linalg.eigh(x @ x.T)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def score_by_discriminants(x: Doubles, labels: Ints, others: Doubles, classes: int, dimensions: int) -> Doubles:
    """Fit the discriminant of every class on images (n, m), and score others (k, m) by it: (k, K). labels: int (n,), of
    the images. dimensions: of the features before `rotate_to_span`, over which the covariance is shrunk."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    sums = np.zeros((classes, x.shape[1]))
    np.add.at(sums, labels, x)
    with np.errstate(invalid="ignore", divide="ignore"):
        own, rest = sums / counts[:, None], (sums.sum(0) - sums) / (len(x) - counts)[:, None]
    fits = (counts > 0) & (counts < len(x))
    solved = cho_solve(cho_factor(shrink_covariance(x - own[labels], dimensions)), (own - rest)[fits].T)
    scores = np.full((len(others), classes), np.nan)
    scores[:, fits] = others @ solved - ((own + rest)[fits] / 2 * solved.T).sum(1)
    return scores


def shrink_covariance(residuals: Doubles, dimensions: int) -> Doubles:
    """Estimate the covariance (m, m) of residuals (n, m) of mean 0, shrunk towards a multiple of the identity.

    Ledoit and Wolf (2004, Journal of Multivariate Analysis 88). All terms are invariant to rotation, so that residuals
    may be given in coordinates of their span. dimensions: of the space, m or more."""
    n, m = residuals.shape
    covariance = residuals.T @ residuals / n
    mean, square = float(np.trace(covariance)) / dimensions, float((covariance**2).sum())
    distance = square - dimensions * mean**2
    error = (float(((residuals**2).sum(1) ** 2).sum()) / n - square) / n
    share = min(max(error / distance, LEAST_SHRINKAGE), 1.0) if distance > 0 else 1.0
    return np.asarray((1 - share) * covariance + (share * mean or 1.0) * np.eye(m))
