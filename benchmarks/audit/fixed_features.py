"""Embedding without a gradient: layers of the network that comes along, pooled, under a linear head in closed form.

    python benchmarks/audit/untaught_classes.py IMAGENET32 --folder kinds --fixed --seeds 0 1

Every layer gives the mean, the deviation and the maximum of each channel over the places of an image. Artifacts of all
families are planted in images of the run, in groups of the same content as in the training of the embedding. The head
keeps the directions in which the shift by an artifact is largest against the spread of plain images and of the same
artifact on other content: Fisher's discriminants (Rao 1948), with a covariance shrunk towards the identity. The judge
of `lab/decisions/0176-a-closed-form-head-does-not-replace-the-training.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor, nn

from klarsicht.audit.verdicts.detectors.artifact_embedding import (
    CONTENTS,
    DIMENSION,
    DRAWS,
    GREY_MIDDLE,
    GREY_SPREAD,
    ArtifactEmbedding,
    as_input,
    draw_batch,
    load_shipped_embedding,
    taught_families,
)
from klarsicht.ground.seeding import generator

GROUPS = 1000  # of contents that artifacts are planted in, each plain and under DRAWS artifacts
SHRINKAGE = 2.0  # identity that is added to the covariance, times its mean eigenvalue
BLOCK = 256  # images that pass through the network at once


def pool_layers(network: ArtifactEmbedding, levels: np.ndarray) -> np.ndarray:
    """Pool the layers of a network: float (n, 3 times all channels), from images uint8 (n, H, W, C)."""
    with torch.no_grad():
        parts = [pool_block(network, as_input(levels[a : a + BLOCK])) for a in range(0, len(levels), BLOCK)]
    return np.concatenate([part.numpy() for part in parts])


def pool_block(network: ArtifactEmbedding, fields: Tensor) -> Tensor:
    """Pool the layers of a network over places: mean, deviation and maximum of every channel after each ReLU."""
    fields, pooled = (fields - GREY_MIDDLE) / GREY_SPREAD, []
    for layer in network.body:
        fields = layer(fields)
        if isinstance(layer, nn.ReLU):
            values = fields.contiguous().flatten(2)
            mean = values.mean(2)
            spread = ((values**2).mean(2) - mean**2).clamp(min=0).sqrt()
            pooled += [mean, spread, values.amax(2)]
    return torch.cat(pooled, 1)


def shrunk_discriminants(planted: np.ndarray, plain: np.ndarray, shrinkage: float, count: int) -> np.ndarray:
    """Compute the first directions (d, count) of Fisher's discriminants. planted: (groups, 1 + DRAWS, CONTENTS, d), of
    which the first is without an artifact. plain: (n, d), images of the run as they are."""
    shift = planted[:, 1:] - planted[:, :1]
    mean = shift.mean(2)
    rest = (shift - mean[:, :, None]).reshape(-1, shift.shape[-1])
    draws = mean.reshape(-1, shift.shape[-1])
    noise = rest.T @ rest / (len(draws) * (CONTENTS - 1))
    between = draws.T @ draws / len(draws) - noise / CONTENTS
    within = np.cov(plain.T) + noise
    size = len(within)
    within += shrinkage * np.trace(within) / size * np.eye(size)
    return eigh(between, within, subset_by_index=[size - count, size - 1])[1][:, ::-1]


@dataclass(frozen=True)
class FixedEmbedding:
    """Embedding of images by pooled layers (n, d), in units of the run's deviations (d,) from its means (d,), their
    tails drawn in by an inverse hyperbolic sine, and directions (d, DIMENSION)."""

    network: ArtifactEmbedding
    mean: np.ndarray
    deviation: np.ndarray
    directions: np.ndarray

    def describe(self, levels: np.ndarray) -> np.ndarray:
        return np.arcsinh((pool_layers(self.network, levels) - self.mean) / self.deviation).astype(np.float64)

    def embed(self, levels: np.ndarray) -> np.ndarray:
        """Embed images uint8 (n, H, W, C): (n, DIMENSION)."""
        return self.describe(levels) @ self.directions


def fit_embedding(images: np.ndarray, seed: int) -> FixedEmbedding:
    """Fit the head on images of a run, uint8 (n, H, W, 3)."""
    network = load_shipped_embedding()
    planted, _ = draw_batch(images, taught_families(3), generator(seed, "planted set"), GROUPS)
    plain = pool_layers(network, images)
    deviation = plain.std(0) + 1e-6
    raw = FixedEmbedding(network, plain.mean(0), deviation, np.eye(plain.shape[1]))
    described = raw.describe(planted).reshape(GROUPS, 1 + DRAWS, CONTENTS, -1)
    directions = shrunk_discriminants(described, raw.describe(images), SHRINKAGE, DIMENSION)
    return FixedEmbedding(network, raw.mean, deviation, directions)
