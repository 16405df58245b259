"""Sinkhorn divergence: debiased entropic transport of weighted points, in the log domain, batched on any device.

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

ANNEALING_FACTOR = 0.25  # of the regularisation in each step, from the largest cost down to blur^2
TOLERANCE = 1e-5  # in units of e: smaller changes of the potentials count as converged
SWEEPS = 1000


def sinkhorn_divergence(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, blur: float
) -> Tensor:
    """Compute S of measures on points (..., P, D) and (..., Q, D), in the square of their unit: (...).

    Args:
        a, b: weights (..., P) and (..., Q), none negative, the sum of each row 1; equal if None. Points of weight 0
            are ignored.
        blur: distance below which points are not distinguished. The number of sweeps grows as 1 / blur^2; after SWEEPS
            the current value is returned, in which each OT is a lower bound. Converged values are within about 1e-3
            blur^2.

    Raises:
        InputError: points of other shapes, or weights that are negative or do not add up to 1.
        UsageError: a blur that is not positive.
    """
    if not blur > 0:
        raise UsageError("blur of transport", got=blur, rule="positive, in the unit of the points")
    log_a, log_b = _log_weights(x, a), _log_weights(y, b)
    cross, e = _costs(x, y), blur**2
    return (
        entropic_cost(cross, log_a, log_b, e)
        - (entropic_self_cost(_costs(x, x), log_a, e) + entropic_self_cost(_costs(y, y), log_b, e)) / 2
    )


def entropic_cost(C: Tensor, log_a: Tensor, log_b: Tensor, e: float) -> Tensor:
    """Compute OT_e (...) of costs (..., P, Q) and logarithms of weights by alternating updates of the two
    potentials.
    """
    f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)
    for now in _annealing_schedule(C, e):
        before, f = f, softmin(C, g, log_b, now)
        g = softmin(C.mT, f, log_a, now)
        if now == e and _has_converged(before, f, log_a, e):
            break
    return _mean(log_a, f) + _mean(log_b, g)


def entropic_self_cost(C: Tensor, log_a: Tensor, e: float) -> Tensor:
    """Compute OT_e (...) of a measure and itself by averaged updates of one potential, which halve the error in each
    step.
    """
    f = torch.zeros_like(log_a)
    for now in _annealing_schedule(C, e):
        before, f = f, (f + softmin(C, f, log_a, now)) / 2
        if now == e and _has_converged(before, f, log_a, e):
            break
    return _mean(log_a, f) + _mean(log_a, softmin(C, f, log_a, e))


def softmin(C: Tensor, g: Tensor, log_b: Tensor, e: float) -> Tensor:
    """Compute (..., P): -e log sum_j b_j exp((g_j - C_ij) / e), the minimum of C - g for small e."""
    return -e * torch.logsumexp((g / e + log_b).unsqueeze(-2) - C / e, -1)


def _annealing_schedule(C: Tensor, e: float) -> Iterator[float]:
    """Yield the regularisation from the largest cost down to e, then e SWEEPS times."""
    now = float(C.detach().max())
    while now > e:
        yield now
        now *= ANNEALING_FACTOR
    yield from [e] * SWEEPS


def _has_converged(before: Tensor, f: Tensor, log_a: Tensor, e: float) -> bool:
    """Whether the potentials changed by at most TOLERANCE e; points of weight 0 are ignored."""
    moved = (f - before).abs().masked_fill(log_a == -torch.inf, 0)
    return bool(moved.max() <= TOLERANCE * e)


def _mean(log_a: Tensor, f: Tensor) -> Tensor:
    """Compute the weighted mean of a potential."""
    return (log_a.exp() * f).sum(-1)


def _costs(x: Tensor, y: Tensor) -> Tensor:
    """Compute squared distances (..., P, Q) by differences, so that they are 0 for equal points."""
    return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)


def _log_weights(x: Tensor, a: Tensor | None) -> Tensor:
    """Check the weights and return their logarithms; raises InputError."""
    if a is None:
        a = x.new_full(x.shape[:-1], 1 / x.shape[-2])
    if a.shape != x.shape[:-1]:
        raise InputError("weights of another shape", got=tuple(a.shape), rule=f"needs {tuple(x.shape[:-1])}")
    if not bool((a >= 0).all() and ((a.sum(-1) - 1).abs() < 1e-3).all()):
        raise InputError("weights of measures", rule="none negative, the sum of each row 1")
    return a.log()
