"""Set the threshold of a class back after a correction, by a bias of its output.

A correction that moves all logits of a class moves its threshold, and every class gains or loses by that. The ranking
of images is what it changed for good: the bias is chosen so that as many clean images are called the class as before,
classes weighing alike. Of two classes both then gain, or lose, the same recall."""

from __future__ import annotations

from typing import Final

import numpy as np
from torch import nn

from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.ground.arrays import Floats, Ints
from klarsicht.numerics.erasure import Eraser

EXACT: Final = 1e-4  # of the bias: largest error with which a head can be given it


def fit_bias(before: Floats, after: Floats, truth: Ints, target: int) -> float:
    """Fit the bias of one output by which its share of answers is as before, in the mean over classes: the middle of
    all that do, or 0 where that does. Images of equal margins stay on one side.

    Args:
        before, after: logits (n, K).
        truth: int (n,), right outputs.
    """
    margins, old = (y[:, target] - np.delete(y, target, 1).max(1) for y in (after, before))
    _, where, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    weight = 1 / sizes[where]
    order = np.argsort(-margins, kind="stable")
    shares = np.concatenate([[0.0], np.cumsum(weight[order])])  # of the first k images by their margin
    ends = np.concatenate([margins[order[:1]] + 1, margins[order], margins[order[-1:]] - 1])
    goal = weight[old > 0].sum()
    between = ends[:-1] > ends[1:]
    now, best = int((margins > 0).sum()), int(np.argmin(np.where(between, np.abs(shares - goal), np.inf)))
    if abs(shares[now] - goal) <= abs(shares[best] - goal) + 1e-9:
        return 0.0
    return -float(ends[best] + ends[best + 1]) / 2


def add_bias(classifier: Classifier, target: int, outputs: int, bias: float) -> Erasure | None:
    """Make the correction that adds a bias to one output of the classifier, against the mean of all: the smallest
    change of the input of its last layer. None where no change does, as where that has fewer channels than outputs."""
    head = classifier.module.get_submodule(classifier.head)
    if not isinstance(head, nn.Linear | nn.Conv2d) or head.weight[0, 0].numel() != 1 or len(head.weight) != outputs:
        return None
    W = head.weight.detach().flatten(1).double().cpu().numpy()
    W, goal = W - W.mean(0), bias * (np.eye(outputs)[target] - 1 / outputs)
    change = np.linalg.lstsq(W, goal, rcond=None)[0]
    if np.abs(W @ change - goal).max() > EXACT * abs(bias):
        return None
    nothing = np.zeros((W.shape[1], 1))
    return Erasure(classifier.head, Eraser(nothing, nothing.T, np.zeros(W.shape[1]), -change))
