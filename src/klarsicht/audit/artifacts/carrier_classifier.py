"""How likely an image carries an artifact: a detector over what the run stores of every image of the corpus.

A cluster is a group of one class, found on a part of the evidence. The detector extends it to all images, and to
members that the cluster missed. It is a logistic regression; its own images get their probability from folds by source
that they took no part in, so that it is worth as much there as on others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
MOST: Final = 64  # principal components: members are often few
BLOCK: Final = 4096  # rows read at once


@dataclass(frozen=True)
class CarrierProbabilities:
    """A detector's say on every image, with its own check.

    Attributes:
        probability: float32 (N,), out of fold where the detector was fitted on the image.
        seen: what it looks at, a name among the run's arrays.
        auc: area under the curve, out of fold. 1 parts all members from all others, .5 none.
        precision, recall: against the given members, out of fold, at a probability of one half.
    """

    probability: NDArray[np.float32]
    seen: str
    auc: float
    precision: float
    recall: float

    def certain_of(self, rows: Ints) -> CarrierProbabilities:
        """The same, and sure of some images."""
        probability = self.probability.copy()
        probability[rows] = 1
        return replace(self, probability=probability)


def spread(
    arrays: Mapping[str, Any], rows: Ints, member: Bools, sources: Ints, n: int, seed: int = 0
) -> CarrierProbabilities:
    """Membership of n images from that of a few.

    Args:
        arrays: name -> (N, F), of which the one that foretells membership best, out of fold, is used.
        rows: (m,), images whose membership is known; member (m,).
        sources: (m,), images of one source are never in two folds.
    """
    best: tuple[float, str, float, Floats] | None = None
    for name, array in arrays.items():
        X = np.asarray(_rows(array, rows), np.float32)
        for penalty in PENALTIES:
            p = out_of_fold(X, member, sources, penalty, seed)
            loss = float(log_loss(member, p))
            if best is None or loss < best[0]:
                best = (loss, name, penalty, p)
    assert best is not None
    _, name, penalty, own = best
    fit = detector(penalty, len(rows), arrays[name].shape[1], seed).fit(_rows(arrays[name], rows), member)
    probability = np.concatenate([fit.predict_proba(block)[:, 1] for block in _blocks(arrays[name], n)])
    probability[rows] = own
    called = own >= 0.5
    hits = int((called & member).sum())
    return CarrierProbabilities(
        probability.astype(np.float32),
        name,
        float(roc_auc_score(member, own)),
        hits / max(int(called.sum()), 1),
        hits / int(member.sum()),
    )


def out_of_fold(X: Floats, member: Bools, sources: Ints, penalty: float, seed: int) -> Floats:
    """The probability of each image from a detector that saw none of its source: (m,)."""
    folds = min(FOLDS, len(np.unique(sources[member])), len(np.unique(sources[~member])))
    if folds < 2:
        return np.full(len(member), member.mean())
    p = np.full(len(member), member.mean())
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in split.split(X, member, sources):
        if 0 < member[train].sum() < len(train):
            fit = detector(penalty, len(train), X.shape[1], seed).fit(X[train], member[train])
            p[test] = fit.predict_proba(X[test])[:, 1]
    return np.asarray(np.clip(p, 1e-6, 1 - 1e-6))


def detector(penalty: float, n: int, features: int, seed: int) -> Any:
    """Standardised, reduced to principal components where features are many, then a logistic regression."""
    components = min(MOST, features, n - 1)
    return make_pipeline(
        StandardScaler(),
        PCA(components, random_state=seed, svd_solver="auto"),
        LogisticRegression(C=penalty, max_iter=500),
    )


def _blocks(array: Any, n: int) -> Iterator[Floats]:
    for start in range(0, n, BLOCK):
        yield np.asarray(np.nan_to_num(np.asarray(array[start : min(start + BLOCK, n)], np.float32)))


def _rows(array: Any, rows: Ints) -> Floats:
    """Of a numpy array or one of the store."""
    taken = array[rows] if isinstance(array, np.ndarray) else array.oindex[np.asarray(rows)]
    return np.asarray(np.nan_to_num(np.asarray(taken, np.float32)))
