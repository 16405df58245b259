# mypy: disable-error-code="no-untyped-call,no-any-return"
"""Rotation-invariant sliced transport: measures as sinograms, in which a rotation is a cyclic shift along the angle.

A sinogram holds the sorted projections of a measure on directions over the *full* circle. Rotating the measure shifts
it cyclically, so the least squared distance over rotations is |S_i|^2 + |S_j|^2 - 2 max over shifts
<S_i shifted, S_j>: matrix products for all pairs. A reflection reverses the angles.

Opposite directions have the same projections, negated and reversed. Split by that symmetry, the even half changes
its sign after half a turn and the odd one does not: shifts by s and by s plus half a turn share their products, which
halves the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.ground.arrays import Doubles
from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.sliced import average_quantiles, directions, project_sorted

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

ANGLES = 32  # on the full circle: coarse rotations are multiples of 11.25 degrees
HALF = ANGLES // 2
FINE = 8  # steps of the refinement between two angles: 1.4 degrees each
QUANTILES = 16  # of each projection
CHUNK = 2048  # measures projected together


class Alignment(NamedTuple):
    """Rotations that align measures i to measures j; each (m,).

    Attributes:
        angle: float64, radians in [-pi, pi]: rotate by this angle, from rows towards columns ...
        reflected: bool: ... after a reflection (columns negated), where True.
        cost: float64, the squared rotation-invariant sliced distance.
    """

    angle: Doubles
    reflected: NDArray[np.bool_]
    cost: Doubles


class Shift(NamedTuple):
    """Shifts in FINE steps, and whether the reflected sinogram is shifted; each (m,)."""

    step: Tensor
    reflected: Tensor


@dataclass(frozen=True)
class Sinograms:
    """Sorted projections of N centred measures on directions over the full circle; about 25 kB each.

    Attributes:
        circles: float32 (N, FINE, ANGLES + HALF, D): quantiles along directions 2 pi (a + f / FINE) / ANGLES, one and a
            half circles so that every half circle is contiguous; D = QUANTILES for each sign. Scaled so that
            2 |difference of half circles|^2 is a squared distance.
    """

    circles: Tensor

    @classmethod
    def of(cls, measures: PointMeasures, device: str = "cpu") -> Sinograms:
        """Compute sinograms of measures without moving them: centre them before, and scale them for invariance to
        size.
        """
        signs = [_circles(torch.from_numpy(points).to(device)) * math.sqrt(weight) for weight, points in measures.signs]
        return cls(torch.cat(signs, 3) * math.sqrt(2 / (ANGLES * QUANTILES)))

    @cached_property
    def coarse(self) -> Tensor:
        """Sinograms at the coarse directions, (N, ANGLES, D)."""
        return self.circles[:, 0, :ANGLES].contiguous()

    @cached_property
    def norms(self) -> Tensor:
        """Squared norms |S|^2, (N,)."""
        return self.coarse.square().sum((1, 2))

    @cached_property
    def _arcs(self) -> Tensor:
        """The half circles that start at each direction, (., HALF D), as overlapping views of memory."""
        D = self.circles.shape[3]
        flat = self.circles.flatten()
        return flat.as_strided((len(flat) // D - HALF + 1, HALF * D), (D, 1))

    @cached_property
    def _targets(self) -> Tensor:
        """The first half circle of each measure, and that of its reflection, (2 N, HALF D)."""
        return torch.stack((self.coarse, _mirror(self.coarse)), 1)[:, :, :HALF].reshape(2 * len(self.circles), -1)

    @cached_property
    def spectra(self) -> Tensor:
        """Fourier series along the angle, complex64 (N, ANGLES / 2 + 1, D)."""
        return torch.fft.rfft(self.coarse, dim=1)

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:
        """Even and odd part of all sinograms over half a circle, (D / 2 ANGLES / 2, N) each: right-hand sides of the
        products.
        """
        even, odd = _split_by_symmetry(self.coarse[:, :HALF])
        return even.flatten(1).T.contiguous(), odd.flatten(1).T.contiguous()

    def distances(self, block: slice, reflection: bool = False) -> Tensor:
        """Compute squared distances (b, N) from the measures of the block to all, minimised over ANGLES rotations."""
        rows = self.coarse[block]
        turns = (rows, _mirror(rows)) if reflection else (rows,)
        best = torch.stack([_best_product(turn, *self.halves) for turn in turns]).amax(0)
        return (self.norms[block, None] + self.norms - 4 * best).clamp_(min=0)

    def align(self, i: Ints, j: Ints, reflection: bool = False) -> Alignment:
        """Find the best rotations of pairs (i, j) to a fraction of a degree; costs never exceed `distances`.

        The correlation over all rotations is interpolated by its Fourier series. The cost is measured at its best FINE
        step and the two adjacent steps, and a parabola through them gives angle and cost; or at the best of ANGLES
        rotations, where that is less.
        """
        first, second = (torch.as_tensor(np.asarray(rows), device=self.circles.device) for rows in (i, j))
        correlation = self._correlation(first, second, reflection)
        fine, coarse = _best_shifts(correlation, 1), _best_shifts(correlation, FINE)
        around = [self._costs(first, second, fine.step + beside, fine.reflected) for beside in (-1, 0, 1)]
        offset, cost = _parabola_minimum(*around)
        plain = self._costs(first, second, *coarse)
        refined = cost <= plain
        step = torch.where(refined, fine.step + offset, coarse.step.double())
        reflected = torch.where(refined, fine.reflected, coarse.reflected)
        angle = torch.remainder(math.pi - step * (2 * math.pi / (ANGLES * FINE)), 2 * math.pi) - math.pi
        return Alignment(*(t.cpu().numpy() for t in (angle, reflected, torch.minimum(cost, plain))))

    def _correlation(self, i: Tensor, j: Tensor, reflection: bool) -> Tensor:
        """Correlate measure i, rotated by each FINE step (and reflected), with measure j; (m, 1 or 2, ANGLES FINE)."""
        F, G = self.spectra[i], self.spectra[j].conj()
        cross = torch.stack([(f * G).sum(2) for f in ((F, F.conj()) if reflection else (F,))], 1)
        cross[..., -1] /= 2  # the Nyquist frequency counts for itself and its negative
        return torch.fft.irfft(cross, ANGLES * FINE)

    def _costs(self, i: Tensor, j: Tensor, step: Tensor, reflected: Tensor) -> Tensor:
        """Compute squared distances with measure i shifted by these steps, float64 (m,); by differences, so 0 for
        equal ones.
        """
        step = torch.where(reflected, -step, step) % (ANGLES * FINE)
        start = (i * FINE + step % FINE) * (ANGLES + HALF) + step // FINE
        gap = self._arcs.index_select(0, start) - self._targets.index_select(0, 2 * j + reflected)
        return 2 * gap.square_().sum(1).double()


def _circles(points: Tensor) -> Tensor:
    """Compute sinograms (N, FINE, ANGLES + HALF, QUANTILES); each half circle is the other, negated and reversed."""
    u = directions(HALF * FINE, points)
    arc = torch.cat([average_quantiles(project_sorted(part, u), QUANTILES) for part in points.split(CHUNK)])
    arc = arc.unflatten(1, (HALF, FINE)).transpose(1, 2)
    return torch.cat((arc, -arc.flip(3), arc), 2)


def _split_by_symmetry(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Split rows into the parts (..., D / 2) that reversing the quantiles of each sign keeps, and negates."""
    quantiles = rows.unflatten(-1, (-1, QUANTILES))
    low, high = quantiles[..., : QUANTILES // 2], quantiles[..., QUANTILES // 2 :].flip(-1)
    return ((low + high) / math.sqrt(2)).flatten(-2), ((low - high) / math.sqrt(2)).flatten(-2)


def _mirror(rows: Tensor) -> Tensor:
    """Reflect rows (N, ANGLES, D): direction a takes the values of direction -a."""
    return rows.flip(1).roll(1, 1)


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


def _best_shifts(correlation: Tensor, every: int) -> Shift:
    """Find the shifts of greatest correlation (m, mirrors, steps), among every `every`-th step."""
    steps = correlation.shape[2] // every
    best = correlation[..., ::every].flatten(1).argmax(1)
    return Shift(best % steps * every, best >= steps)


def _parabola_minimum(before: Tensor, here: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise a parabola through three values; returns the offset in steps from the middle one, and the value, at
    least 0.
    """
    slope, bend = (after - before) / 2, before - 2 * here + after
    offset = torch.where(bend > 0, -slope / bend, 0).clamp(-1, 1)
    return offset, (here + slope * offset + bend * offset.square() / 2).clamp(min=0)
