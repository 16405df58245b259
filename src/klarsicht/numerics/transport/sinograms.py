# mypy: disable-error-code="no-untyped-call,no-any-return"
"""Rotation-invariant sliced transport: measures as sinograms, in which a rotation is a cyclic shift along the angle.

A sinogram holds the sorted projections of a measure on directions over the *full* circle. The least squared distance
over rotations is |S_i|^2 + |S_j|^2 - 2 max over shifts <S_i shifted, S_j>: matrix products for all pairs. A reflection
reverses the angles.

Opposite directions have the same projections, negated and reversed. Split by that symmetry, the even half changes
its sign after half a turn and the odd one does not: shifts by s and by s plus half a turn share their products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.ground.arrays import Doubles
from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.sliced import average_quantiles, directions, project_sorted

Ints = NDArray[np.integer]

ANGLES = 32  # on the full circle: coarse rotations are multiples of 11.25 degrees
HALF = ANGLES // 2
FINE = 8  # steps of the refinement between two angles: 1.4 degrees each
QUANTILES = 16  # of each projection
CHUNK = 2048  # measures projected together


@dataclass(frozen=True)
class Sinograms:
    """Sorted projections of N centred measures on directions over the full circle; about 25 kB each. circles: float32
    (N, FINE, ANGLES + HALF, QUANTILES), along directions 2 pi (a + f / FINE) / ANGLES; half a circle more, so that
    every half is contiguous. 2 |difference of half circles|^2 is a squared distance."""

    circles: Tensor

    @classmethod
    def of(cls, measures: PointMeasures) -> Sinograms:
        """Compute sinograms of measures without moving them."""
        return cls(_circles(torch.from_numpy(measures.points)) * math.sqrt(2 / (ANGLES * QUANTILES)))

    @cached_property
    def coarse(self) -> Tensor:
        """Sinograms at the coarse directions, (N, ANGLES, QUANTILES)."""
        return self.circles[:, 0, :ANGLES].contiguous()

    @cached_property
    def norms(self) -> Tensor:
        return self.coarse.square().sum((1, 2))

    @cached_property
    def _arcs(self) -> Tensor:
        """The half circles that start at each direction, (., HALF QUANTILES), as overlapping views of memory."""
        flat = self.circles.flatten()
        return flat.as_strided((len(flat) // QUANTILES - HALF + 1, HALF * QUANTILES), (QUANTILES, 1))

    @cached_property
    def spectra(self) -> Tensor:
        """Fourier series along the angle, complex64 (N, ANGLES / 2 + 1, QUANTILES)."""
        return torch.fft.rfft(self.coarse, dim=1)

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:
        """Even and odd part over half a circle, (QUANTILES / 2 HALF, N) each: right-hand sides of the products."""
        even, odd = _split_by_symmetry(self.coarse[:, :HALF])
        return even.flatten(1).T.contiguous(), odd.flatten(1).T.contiguous()

    def distances(self, block: slice, reflection: bool = False) -> Tensor:
        """Compute squared distances (b, N) from the measures of the block to all, minimised over ANGLES rotations."""
        rows = self.coarse[block]
        turns = (rows, rows.flip(1).roll(1, 1)) if reflection else (rows,)
        best = torch.stack([_best_product(turn, *self.halves) for turn in turns]).amax(0)
        return (self.norms[block, None] + self.norms - 4 * best).clamp_(min=0)

    def refined_distances(self, i: Ints, j: Ints) -> Doubles:
        """Compute squared distances (m,) of pairs, minimised over all rotations; they never exceed `distances`. The
        correlation is interpolated by its Fourier series; the cost is that of a parabola through its best FINE step and
        the two adjacent ones, or at the best of ANGLES rotations, where that is less."""
        first, second = (torch.as_tensor(np.asarray(rows)) for rows in (i, j))
        cross = (self.spectra[first] * self.spectra[second].conj()).sum(2)
        cross[..., -1] /= 2  # the Nyquist frequency counts for itself and its negative
        correlation = torch.fft.irfft(cross, ANGLES * FINE)
        fine, coarse = correlation.argmax(1), correlation[:, ::FINE].argmax(1) * FINE
        refined = _parabola_minimum(*(self._costs(first, second, fine + beside) for beside in (-1, 0, 1)))
        return torch.minimum(refined, self._costs(first, second, coarse)).numpy()

    def _costs(self, i: Tensor, j: Tensor, step: Tensor) -> Tensor:
        """Compute squared distances with measure i shifted by FINE steps, float64 (m,); 0 for equal ones."""
        step = step % (ANGLES * FINE)
        start = (i * FINE + step % FINE) * (ANGLES + HALF) + step // FINE
        gap = self._arcs.index_select(0, start) - self._arcs.index_select(0, j * FINE * (ANGLES + HALF))
        return 2 * gap.square_().sum(1).double()


def _circles(points: Tensor) -> Tensor:
    """Compute sinograms (N, FINE, ANGLES + HALF, QUANTILES); each half circle is the other, negated and reversed."""
    u = directions(HALF * FINE, points)
    arc = torch.cat([average_quantiles(project_sorted(part, u), QUANTILES) for part in points.split(CHUNK)])
    arc = arc.unflatten(1, (HALF, FINE)).transpose(1, 2)
    return torch.cat((arc, -arc.flip(3), arc), 2)


def _split_by_symmetry(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Split rows into the parts (..., QUANTILES / 2) that reversing the quantiles keeps, and negates."""
    low, high = rows[..., : QUANTILES // 2], rows[..., QUANTILES // 2 :].flip(-1)
    return (low + high) / math.sqrt(2), (low - high) / math.sqrt(2)


def _best_product(rows: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """Maximise the product of rows (b, ANGLES, D), shifted, and all measures, over half a circle; (b, N)."""
    left_even, left_odd = _split_by_symmetry(torch.cat((rows, rows[:, :HALF]), 1))
    best = rows.new_full((len(rows), even.shape[1]), -math.inf)
    product, other = torch.empty_like(best), torch.empty_like(best)
    for shift in range(HALF):
        here = slice(shift, shift + HALF)
        torch.mm(left_odd[:, here].flatten(1), odd, out=product)
        torch.mm(left_even[:, here].flatten(1), even, out=other)
        torch.maximum(best, product.add_(other.abs_()), out=best)
    return best


def _parabola_minimum(before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    """Minimise a parabola through three values within a step of the middle one; at least 0."""
    slope, bend = (after - before) / 2, before - 2 * here + after
    offset = torch.where(bend > 0, -slope / bend, 0).clamp(-1, 1)
    return (here + slope * offset + bend * offset.square() / 2).clamp(min=0)
