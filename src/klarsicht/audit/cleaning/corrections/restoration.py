"""Restore the activations that images with an artifact would have without it, in images recognised as carriers.

    a' = a - g (L R (a - z) + o)        numerics.erasure.regression_eraser; g is 1 in recognised images, else 0

Both parts are fitted on pairs of an image without the artifact and with it. Subtracted is the change that a linear
regression predicts. An image is recognised by a linear discriminant of clarc.channel_features, above a threshold that
at most a given share of the images without the artifact exceed, by cross-validated scores. All others keep their
answers to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor

from klarsicht.audit.cleaning.corrections.activations import POSITIONS, channels_last, compute_layer_inputs
from klarsicht.audit.cleaning.corrections.clarc import Erasure, Gate, channel_features
from klarsicht.audit.cleaning.corrections.samples import Images
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.hooks import leading_tokens
from klarsicht.ground.arrays import Bools, Doubles, Floats
from klarsicht.ground.errors import InputError
from klarsicht.numerics.erasure import Eraser, regression_eraser

CARRIER_FALSE_ALARMS: Final = 0.01  # share of images without the artifact that may be taken for carriers, at strength 1
OF_CLASS: Final = 2.0  # times as many of those of the class: its bound on harm is wider, and they are few
MOST_AXES: Final = 64  # of the change that are subtracted, and that the discriminant looks at
SCORE_FOLDS: Final = 5  # of the pairs, whose scores are of discriminants fitted on the other folds
FEWEST_PAIRS: Final = 20
RIDGE_OF_SCORES: Final = 0.1  # of the variance of each feature, added to it
MOST_HELD: Final = 20_000_000  # activations that are held at once


@dataclass(frozen=True)
class LayerRows:
    """Rows of the input of a layer, of n images. features: float64 (n, D), see clarc.channel_features. positions:
    float32 (m, C), of positions drawn from all images. tokens: float32 (n, p, C), those before the positions. channels:
    axis of the channels of an input of four axes, 1 or -1."""

    features: Doubles
    positions: Floats
    tokens: Floats
    channels: int


def read_rows(classifier: Classifier, images: Images, layer: str, axes: Doubles) -> LayerRows:
    """Read features along axes (C, q), and rows, of the input of a layer; of images of the same shapes, at the same
    positions."""
    rng, along = np.random.default_rng(0), torch.as_tensor(axes, dtype=torch.float32)
    features: list[Tensor] = []
    positions: list[Tensor] = []
    tokens: list[Tensor] = []
    start, step, channels = 0, 1, 1
    while start < len(images):
        shape = images[start].shape
        alike = next((i for i, image in enumerate(images[start:]) if image.shape != shape), len(images) - start)
        some = images[start : start + min(step, alike)]
        a, channels = compute_layer_inputs(classifier, some, layer)
        start, step = start + len(some), max(1, MOST_HELD // a[0].numel())
        before = leading_tokens(a.shape, shape[-2] / shape[-1])
        rows = channels_last(a, channels)
        tokens.append(rows[:, :before])
        rows = rows[:, before:]
        features.append(channel_features(rows, along))
        drawn = rng.permuted(np.tile(np.arange(rows.shape[1]), (len(rows), 1)), axis=1)[:, :POSITIONS]
        positions.append(rows[torch.arange(len(rows))[:, None], torch.from_numpy(drawn)].flatten(0, 1))
    found = torch.cat(features).double().numpy()
    return LayerRows(found, torch.cat(positions).numpy(), torch.cat(tokens).numpy(), channels)


def feature_axes(covariance: Floats, directions: Floats) -> Doubles:
    """Return the axes (C, q) that features are computed along: all channels, of more than MOST_AXES orthonormal ones of
    the artifact's directions (C, k) and of the largest variances of a covariance (C, C)."""
    C = len(covariance)
    if C <= MOST_AXES:
        return np.eye(C)
    _, vectors = linalg.eigh(covariance, subset_by_index=[C - MOST_AXES, C - 1])
    return np.asarray(linalg.qr(np.concatenate([directions, vectors[:, ::-1]], 1), mode="economic")[0][:, :MOST_AXES])


@dataclass(frozen=True)
class Restoration:
    """Map and discriminant fitted at the input of one layer. eraser, token_erasers: of the positions, and of each token
    before them. channels: axis of the channels of an input of four axes, 1 or -1. axes, weight: float32 (C, q) and
    (D,), see clarc.Gate. scores: cross-validated scores (n,) of the images without the artifact, without the bias. own:
    bool (n,), whether they are of the class."""

    layer: str
    eraser: Eraser
    token_erasers: tuple[Eraser, ...]
    channels: int
    axes: NDArray[np.float32]
    weight: NDArray[np.float32]
    scores: Doubles
    own: Bools

    def make_erasure(self, false_alarms: float) -> Erasure:
        """Make the correction by which at most that share of the images without the artifact, and OF_CLASS times that
        of those of the class, is recognised."""
        groups = [(self.scores, false_alarms)]
        groups += [(self.scores[self.own], OF_CLASS * false_alarms)] if self.own.any() else []
        threshold = max(float(np.quantile(scores, 1 - min(share, 1.0))) for scores, share in groups)
        gate = Gate(self.weight, -threshold, self.axes)
        return Erasure(self.layer, self.eraser, gate=gate, channels=self.channels, leading=self.token_erasers)


def fit_restoration(
    layer: str, plain: LayerRows, carriers: LayerRows, own: Bools, axes: Doubles, rng: np.random.Generator
) -> Restoration:
    """Fit map and discriminant from the rows of n images without the artifact, and of the same with it, at the same
    positions; `own` (n,) says whether they are of the artifact's class. Raises InputError: pairs are fewer than
    FEWEST_PAIRS, or the artifact changes nothing."""
    n = len(plain.features)
    if n < FEWEST_PAIRS:
        raise InputError(
            "too few images to insert the artifact into", got=n, rule=f"at least {FEWEST_PAIRS} to fit it on",
            remedy="Raise --images, or use another --method.",
        )  # fmt: skip
    if not (carriers.positions != plain.positions).any():
        raise InputError("the artifact changes nothing at this layer", remedy="Choose another --layer.")
    features = np.concatenate([plain.features, carriers.features])
    carries, fold = np.arange(2 * n) >= n, np.tile(rng.permutation(n) % SCORE_FOLDS, 2)
    simple = np.arange(features.shape[1]) < 2 * axes.shape[1]
    of_sets = [cross_validate(features * kept, carries, fold) for kept in (simple, np.ones_like(simple))]
    recognised = [float((s[n:] > np.quantile(s[:n], 1 - CARRIER_FALSE_ALARMS)).mean()) for s in of_sets]
    best = int(np.argmax(recognised))  # of equal ones the simpler
    w, b = fit_discriminant(features * simple if best == 0 else features, carries)
    scores = of_sets[best][:n] - b

    def subtracts(rows: Floats, others: Floats) -> Eraser:
        return regression_eraser(rows, rows.astype(np.float64) - others, MOST_AXES)

    of_tokens = tuple(subtracts(carriers.tokens[:, i], plain.tokens[:, i]) for i in range(plain.tokens.shape[1]))
    eraser = subtracts(carriers.positions, plain.positions)
    facts = plain.channels, np.asarray(axes, np.float32), w.astype(np.float32)
    return Restoration(layer, eraser, of_tokens, *facts, scores, own)


def cross_validate(features: Doubles, carries: Bools, fold: NDArray[np.intp]) -> Doubles:
    """Compute scores (n,) of features (n, D) by discriminants that were fitted on the other folds, int (n,)."""
    scores = np.zeros(len(features))
    for one in range(SCORE_FOLDS):
        w, b = fit_discriminant(features[fold != one], carries[fold != one])
        scores[fold == one] = features[fold == one] @ w + b
    return scores


def fit_discriminant(features: Doubles, carries: Bools) -> tuple[Doubles, float]:
    """Fit the linear discriminant w (D,), b of features (n, D) with the artifact and without: by ridge regression of -1
    and 1 on features of unit variance, which is Fisher's with a raised covariance."""
    mean = features.mean(0)
    scale = np.maximum(features.std(0), 1e-6 * max(float(np.abs(features).max()), 1e-30))
    Z, t = (features - mean) / scale, np.where(carries, 1.0, -1.0)
    n, D = Z.shape
    if n >= D:
        w = np.linalg.solve(Z.T @ Z + RIDGE_OF_SCORES * n * np.eye(D), Z.T @ (t - t.mean()))
    else:  # the same by the matrix that is smaller
        w = Z.T @ np.linalg.solve(Z @ Z.T + RIDGE_OF_SCORES * n * np.eye(n), t - t.mean())
    w = w / scale
    return w, float(t.mean() - mean @ w)
