"""Check whether relevance depends on what a network has learned: maps of the network, and of one with weights redrawn.

A map that stays when the weights go shows edges of the image, not what the network uses (Adebayo et al., NeurIPS 2018).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.relevance.explainer import AUTO, explain
from klarsicht.ground.seeding import generator

REDRAWS: Final = 3  # networks with weights redrawn


def redraw_weights(module: nn.Module, rng: np.random.Generator) -> nn.Module:
    """Copy a network, and permute the values inside each of its weights: they keep their distribution and lose what was
    learned. Biases, and norms with one weight a channel, are permuted too; statistics of batch norms stay."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for weight in other.parameters():
            order = torch.from_numpy(rng.permutation(weight.numel())).to(weight.device)
            weight.copy_(weight.flatten()[order].reshape(weight.shape))
    return other


def correlate_with_redrawn(
    classifier: Classifier, batch: Tensor, targets: Tensor, method: str = AUTO, map_side: int = 32, seed: int = 0
) -> float:
    """Compute the rank correlation (Spearman) of relevance maps (G, G) with those of networks of redrawn weights: the
    median over images (B, C, H, W) and REDRAWS networks. Takes and raises as `explain`."""
    own = explain(classifier, batch, targets, method=method, map_side=map_side).maps
    correlations: list[float] = []
    for number in range(REDRAWS):
        other = replace(classifier, module=redraw_weights(classifier.module, generator(seed, f"redraw {number}")))
        maps = explain(other, batch, targets, method=method, map_side=map_side).maps
        correlations += [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(own, maps, strict=True)]
    return float(np.nanmedian(correlations))
