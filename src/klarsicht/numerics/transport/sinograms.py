# mypy: disable-error-code="no-untyped-call,no-any-return"
"""Sliced transport that does not see rotations: measures as sinograms, a rotation as a shift along the angle.

A sinogram is the sorted projections of a measure on directions over the *full* circle. Turning the measure shifts it
cyclically, so the least squared distance over rotations is |S_i|^2 + |S_j|^2 - 2 max over shifts <S_i shifted, S_j>:
matrix products for all pairs. A mirror image runs through the angles backwards.

The opposite direction holds the same projections, negated and reversed. Split by that symmetry, an even half changes
its sign after half a turn and an odd one does not: shifts by s and by s plus half a turn share their products, which
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
from klarsicht.numerics.transport.sliced import averaged, directions, projected

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

ANGLES = 32  # on the full circle: a rotation of the screening is a multiple of 11.25 degrees
HALF = ANGLES // 2
FINE = 8  # steps of the refinement between two angles: 1.4 degrees each
QUANTILES = 16  # of each projection
CHUNK = 2048  # measures projected together


class Alignment(NamedTuple):
    """How to turn measures i onto measures j; each (m,).

    Attributes:
        angle: float64, radians in [-pi, pi]: turn by this much, from rows towards columns ...
        reflected: bool: ... after a reflection (columns negated), where True.
        cost: float64, the squared rotation-invariant sliced distance.
    """

    angle: Doubles
    reflected: NDArray[np.bool_]
    cost: Doubles


class Turn(NamedTuple):
    """Shifts in FINE steps, and of which mirror image; each (m,)."""

    step: Tensor
    reflected: Tensor


@dataclass(frozen=True)
class Sinograms:
    """Sorted projections of N centred measures on directions over the full circle; about 25 kB each.

    Attributes:
        circles: float32 (N, FINE, ANGLES + HALF, D): quantiles along directions 2 pi (a + f / FINE) / ANGLES, half a
            circle more than a whole so that every half circle is in one piece; D = QUANTILES for each sign. Scaled so
            that 2 |difference of half circles|^2 is a squared distance.
    """

    circles: Tensor

    @classmethod
    def of(cls, measures: PointMeasures, device: str = "cpu") -> Sinograms:
        """Of measures as they stand: centre them before, and scale them if size shall not count."""
        signs = [_circles(torch.from_numpy(points).to(device)) * math.sqrt(weight) for weight, points in measures.signs]
        return cls(torch.cat(signs, 3) * math.sqrt(2 / (ANGLES * QUANTILES)))

    @cached_property
    def coarse(self) -> Tensor:
        """(N, ANGLES, D): the directions of the screening."""
        return self.circles[:, 0, :ANGLES].contiguous()

    @cached_property
    def norms(self) -> Tensor:
        """(N,): |S|^2."""
        return self.coarse.square().sum((1, 2))

    @cached_property
    def _arcs(self) -> Tensor:
        """(., HALF D): the half circles that start at each direction, one after another; they overlap in memory."""
        D = self.circles.shape[3]
        flat = self.circles.flatten()
        return flat.as_strided((len(flat) // D - HALF + 1, HALF * D), (D, 1))

    @cached_property
    def _targets(self) -> Tensor:
        """(2 N, HALF D): the first half circle of each measure, and that of its mirror image."""
        return torch.stack((self.coarse, _mirrored(self.coarse)), 1)[:, :, :HALF].reshape(2 * len(self.circles), -1)

    @cached_property
    def spectra(self) -> Tensor:
        """complex64 (N, ANGLES / 2 + 1, D): Fourier series along the angle."""
        return torch.fft.rfft(self.coarse, dim=1)

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:
        """Even and odd half of all rows over half a circle, (D / 2 ANGLES / 2, N) each: right-hand sides."""
        even, odd = _halves(self.coarse[:, :HALF])
        return even.flatten(1).T.contiguous(), odd.flatten(1).T.contiguous()

    def distances(self, block: slice, reflection: bool = False) -> Tensor:
        """(b, N): squared distances from the measures of the block to all, least over ANGLES rotations."""
        rows = self.coarse[block]
        turns = (rows, _mirrored(rows)) if reflection else (rows,)
        best = torch.stack([_best_product(turn, *self.halves) for turn in turns]).amax(0)
        return (self.norms[block, None] + self.norms - 4 * best).clamp_(min=0)

    def align(self, i: Ints, j: Ints, reflection: bool = False) -> Alignment:
        """The best turns of pairs (i, j), to a part of a degree; never worse than `distances`.

        The correlation over all rotations is interpolated by its Fourier series. The cost is measured at its best
        FINE step and the two beside it, and a parabola through them gives angle and cost; or at the best of ANGLES
        rotations, should that be less.
        """
        first, second = (torch.as_tensor(np.asarray(rows), device=self.circles.device) for rows in (i, j))
        correlation = self._correlation(first, second, reflection)
        fine, coarse = _best(correlation, 1), _best(correlation, FINE)
        around = [self._costs(first, second, fine.step + beside, fine.reflected) for beside in (-1, 0, 1)]
        offset, cost = _vertex(*around)
        plain = self._costs(first, second, *coarse)
        refined = cost <= plain
        step = torch.where(refined, fine.step + offset, coarse.step.double())
        reflected = torch.where(refined, fine.reflected, coarse.reflected)
        angle = torch.remainder(math.pi - step * (2 * math.pi / (ANGLES * FINE)), 2 * math.pi) - math.pi
        return Alignment(*(t.cpu().numpy() for t in (angle, reflected, torch.minimum(cost, plain))))

    def _correlation(self, i: Tensor, j: Tensor, reflection: bool) -> Tensor:
        """(m, 1 or 2, ANGLES FINE): product of measure i, turned by each FINE step (and mirrored), and measure j."""
        F, G = self.spectra[i], self.spectra[j].conj()
        cross = torch.stack([(f * G).sum(2) for f in ((F, F.conj()) if reflection else (F,))], 1)
        cross[..., -1] /= 2  # the highest frequency stands for itself and its mirror image
        return torch.fft.irfft(cross, ANGLES * FINE)

    def _costs(self, i: Tensor, j: Tensor, step: Tensor, reflected: Tensor) -> Tensor:
        """float64 (m,): squared distances with measure i shifted by these steps, by differences: 0 for equal ones."""
        step = torch.where(reflected, -step, step) % (ANGLES * FINE)
        start = (i * FINE + step % FINE) * (ANGLES + HALF) + step // FINE
        gap = self._arcs.index_select(0, start) - self._targets.index_select(0, 2 * j + reflected)
        return 2 * gap.square_().sum(1).double()


def _circles(points: Tensor) -> Tensor:
    """(N, FINE, ANGLES + HALF, QUANTILES): each half of a circle is the other, negated and reversed."""
    u = directions(HALF * FINE, points)
    arc = torch.cat([averaged(projected(part, u), QUANTILES) for part in points.split(CHUNK)])
    arc = arc.unflatten(1, (HALF, FINE)).transpose(1, 2)
    return torch.cat((arc, -arc.flip(3), arc), 2)


def _halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(..., D / 2) twice: the parts that reversing the quantiles of each sign keeps, and negates."""
    quantiles = rows.unflatten(-1, (-1, QUANTILES))
    low, high = quantiles[..., : QUANTILES // 2], quantiles[..., QUANTILES // 2 :].flip(-1)
    return ((low + high) / math.sqrt(2)).flatten(-2), ((low - high) / math.sqrt(2)).flatten(-2)


def _mirrored(rows: Tensor) -> Tensor:
    """Rows (N, ANGLES, D) of the mirror images: direction a shows what direction -a did."""
    return rows.flip(1).roll(1, 1)


def _best_product(rows: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """(b, N): the greatest product of rows (b, ANGLES, D), shifted, and all, over half a circle."""
    left_even, left_odd = _halves(torch.cat((rows, rows[:, :HALF]), 1))
    best = rows.new_full((len(rows), even.shape[1]), -math.inf)
    product, other = torch.empty_like(best), torch.empty_like(best)
    for shift in range(HALF):
        here = slice(shift, shift + HALF)
        torch.mm(left_odd[:, here].flatten(1), odd, out=product)
        torch.mm(left_even[:, here].flatten(1), even, out=other)
        torch.maximum(best, product.add_(other.abs_()), out=best)
    return best


def _best(correlation: Tensor, every: int) -> Turn:
    """The turns of greatest correlation (m, mirrors, steps), among every `every`-th step."""
    steps = correlation.shape[2] // every
    best = correlation[..., ::every].flatten(1).argmax(1)
    return Turn(best % steps * every, best >= steps)


def _vertex(before: Tensor, here: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Place, in steps from here, and value of the least point of a parabola through three values, never below 0."""
    slope, bend = (after - before) / 2, before - 2 * here + after
    offset = torch.where(bend > 0, -slope / bend, 0).clamp(-1, 1)
    return offset, (here + slope * offset + bend * offset.square() / 2).clamp(min=0)
