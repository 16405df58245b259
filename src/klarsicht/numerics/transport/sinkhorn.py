"""Sinkhorn divergence: smooth transport of weighted points, debiased, in the log domain, batched on any device.

OT_e(a, b) = min_P <P, C> + e KL(P | a b^T) with C = |x - y|^2 and e = blur^2, and

    S(a, b) = OT_e(a, b) - OT_e(a, a) / 2 - OT_e(b, b) / 2,

which is 0 for equal measures, positive for others, W2^2 for a small blur and |difference of means|^2 for a large one.
Cuturi (2013), NeurIPS 26; Feydy et al. (2019), AISTATS 89:2681.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from klarsicht.ground.errors import InputError, UsageError

COOLING = 0.25  # of the blur's square, from the largest cost to its own
TOLERANCE = 1e-5  # of e: potentials that move less have settled
SWEEPS = 1000


def divergence(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, blur: float) -> Tensor:
    """S of measures on points (..., P, D) and (..., Q, D), in the square of their unit: (...).

    Args:
        a, b: weights (..., P) and (..., Q), none negative, the sum of each row 1; equal if None. Points of weight 0
            do not count.
        blur: the distance below which points are not told apart. Sweeps grow as 1 / blur^2; after SWEEPS the value is
            what they reached, each OT from below. Settled values are within about 1e-3 blur^2.

    Raises:
        InputError: points of other shapes, or weights that are negative or do not add up to 1.
        UsageError: a blur that is not positive.
    """
    if not blur > 0:
        raise UsageError("blur of transport", got=blur, rule="positive, in the unit of the points")
    log_a, log_b = _logarithms(x, a), _logarithms(y, b)
    cross, e = _costs(x, y), blur**2
    return entropic(cross, log_a, log_b, e) - (itself(_costs(x, x), log_a, e) + itself(_costs(y, y), log_b, e)) / 2


def entropic(C: Tensor, log_a: Tensor, log_b: Tensor, e: float) -> Tensor:
    """OT_e (...) of costs (..., P, Q) and logarithms of weights: each potential in turn fits the other."""
    f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)
    for now in _cooling(C, e):
        before, f = f, softmin(C, g, log_b, now)
        g = softmin(C.mT, f, log_a, now)
        if now == e and _settled(before, f, log_a, e):
            break
    return _mean(log_a, f) + _mean(log_b, g)


def itself(C: Tensor, log_a: Tensor, e: float) -> Tensor:
    """OT_e (...) of a measure and itself: one potential, halfway to the one that fits it, which halves every error."""
    f = torch.zeros_like(log_a)
    for now in _cooling(C, e):
        before, f = f, (f + softmin(C, f, log_a, now)) / 2
        if now == e and _settled(before, f, log_a, e):
            break
    return _mean(log_a, f) + _mean(log_a, softmin(C, f, log_a, e))


def softmin(C: Tensor, g: Tensor, log_b: Tensor, e: float) -> Tensor:
    """(..., P): -e log sum_j b_j exp((g_j - C_ij) / e), the least of C - g for small e."""
    return -e * torch.logsumexp((g / e + log_b).unsqueeze(-2) - C / e, -1)


def _cooling(C: Tensor, e: float) -> Iterator[float]:
    """From the largest cost to e, then e SWEEPS times."""
    now = float(C.detach().max())
    while now > e:
        yield now
        now *= COOLING
    yield from [e] * SWEEPS


def _settled(before: Tensor, f: Tensor, log_a: Tensor, e: float) -> bool:
    moved = (f - before).abs().masked_fill(log_a == -torch.inf, 0)
    return bool(moved.max() <= TOLERANCE * e)


def _mean(log_a: Tensor, f: Tensor) -> Tensor:
    return (log_a.exp() * f).sum(-1)


def _costs(x: Tensor, y: Tensor) -> Tensor:
    """(..., P, Q): squared distances, by differences: 0 for equal points."""
    return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)


def _logarithms(x: Tensor, a: Tensor | None) -> Tensor:
    if a is None:
        a = x.new_full(x.shape[:-1], 1 / x.shape[-2])
    if a.shape != x.shape[:-1]:
        raise InputError("weights of another shape", got=tuple(a.shape), rule=f"needs {tuple(x.shape[:-1])}")
    if not bool((a >= 0).all() and ((a.sum(-1) - 1).abs() < 1e-3).all()):
        raise InputError("weights of measures", rule="none negative, the sum of each row 1")
    return a.log()
