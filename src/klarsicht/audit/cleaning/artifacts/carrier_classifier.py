"""Predict which images carry an artifact, by a logistic regression on arrays that the run stores for every image: it
extends a cluster to all images, and to members that the cluster missed. Images that it is fitted on get out-of-fold
probabilities, in folds by source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from klarsicht.ground.arrays import Bools, Floats, Ints

FOLDS: Final = 5
PENALTIES: Final = (1e-3, 1e-2, 1e-1, 1.0)
COMPONENTS: Final = 64  # principal components: members are often few
ROW_BLOCK: Final = 4096  # rows read at once


@dataclass(frozen=True)
class CarrierProbabilities:
    """Probability of carrying the artifact for every image, with the out-of-fold quality of the classifier.
    probability: float32 (N,), out of fold for images that the classifier was fitted on. seen: name of the array of the
    run that it is fitted on. auc: area under the ROC curve, out of fold. precision, recall: against the given members,
    out of fold, at a probability of one half."""

    probability: NDArray[np.float32]
    seen: str
    auc: float
    precision: float
    recall: float

    def with_certain(self, rows: Ints) -> CarrierProbabilities:
        """Return the same with probability 1 for some rows."""
        probability = self.probability.copy()
        probability[rows] = 1
        return replace(self, probability=probability)


def predict_carriers(
    arrays: Mapping[str, Any], rows: Ints, member: Bools, sources: Ints, n: int, seed: int = 0
) -> CarrierProbabilities:
    """Predict membership of n images from known membership (m,) of some rows (m,). arrays: name -> (N, F); the one with
    the least out-of-fold log loss is used. sources: (m,); images of one source are never in two folds."""
    tried = [
        (name, penalty, predict_out_of_fold(X, member, sources, penalty, seed))
        for name, array in arrays.items()
        for X in [_rows(array, rows)]
        for penalty in PENALTIES
    ]
    name, penalty, own = min(tried, key=lambda one: log_loss(member, one[2]))
    X = _rows(arrays[name], rows)
    fit = make_classifier(penalty, len(rows), X.shape[1], seed).fit(X, member)
    blocks = (slice(start, min(start + ROW_BLOCK, n)) for start in range(0, n, ROW_BLOCK))
    probability = np.concatenate([fit.predict_proba(_rows(arrays[name], block))[:, 1] for block in blocks])
    probability[rows] = own
    found = own >= 0.5
    hits = int((found & member).sum())
    quality = float(roc_auc_score(member, own)), hits / max(int(found.sum()), 1), hits / int(member.sum())
    return CarrierProbabilities(probability.astype(np.float32), name, *quality)


def predict_out_of_fold(X: Floats, member: Bools, sources: Ints, penalty: float, seed: int) -> Floats:
    """Compute for each image (m,) the probability from a classifier that was fitted without its source."""
    folds = min(FOLDS, len(np.unique(sources[member])), len(np.unique(sources[~member])))
    if folds < 2:
        return np.full(len(member), member.mean())
    p = np.full(len(member), member.mean())
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in split.split(X, member, sources):
        if 0 < member[train].sum() < len(train):
            fit = make_classifier(penalty, len(train), X.shape[1], seed).fit(X[train], member[train])
            p[test] = fit.predict_proba(X[test])[:, 1]
    return np.asarray(np.clip(p, 1e-6, 1 - 1e-6))


def make_classifier(penalty: float, n: int, features: int, seed: int) -> Any:
    """Make a pipeline: standardisation, principal components where features are many, and a logistic regression."""
    components = min(COMPONENTS, features, n - 1)
    classifier = LogisticRegression(C=penalty, max_iter=500)
    return make_pipeline(StandardScaler(), PCA(components, random_state=seed), classifier)


def _rows(array: Any, rows: Ints | slice) -> Floats:
    """Read rows of a numpy array or of an array of the store, with NaN replaced."""
    return np.asarray(np.nan_to_num(np.asarray(array[rows], np.float32)))
