"""Loss of a share between two answers to the same items: its interval, and how many items would settle it against a
bound (non-inferiority).

The interval is the score interval of Tango (1998, Statistics in Medicine 17): the differences D whose score

    Z(D) = (lost - won - n D) / sqrt(n (2 q + D (1 - D)))

is at most z in size, where q is the share won that is most likely if the loss is D. Wald intervals are too short where
few items change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr

from klarsicht.ground.arrays import Bools
from klarsicht.numerics.statistics.intervals import Z95, Interval, nearest_limit

HALVINGS: Final = 40  # of an interval of length 2: a limit is known to 2e-12
ASSURANCE: Final = 0.8  # chance that the named number of items settles a loss
MOST: Final = 10**9  # items; a loss that is not settled by so many lies on its bound
DOUBT: Final = 0.5  # items added to each of the three cells (Jeffreys's prior) to foresee further items


@dataclass(frozen=True)
class PairedLoss(Interval):
    """Share of items lost minus share won, with its 95 % interval, and the number of items that changed."""

    changed: int = 0


NO_LOSS = PairedLoss(float("nan"), float("nan"), float("nan"), 0)


def paired_loss(before: Bools, after: Bools, z: float = Z95) -> PairedLoss:
    """Estimate the share true before minus the share true after, of the same items (n,); NO_LOSS without items."""
    n = len(before)
    if not n:
        return NO_LOSS
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    low, high = (score_limit(lost, won, n, end) for end in (z, -z))
    return PairedLoss((lost - won) / n, low, high, n, lost + won)


def score_limit(lost: int, won: int, n: int, z: float) -> float:
    """Solve Z(D) = z for D in [-1, 1] by bisection: Z falls as D grows."""
    low, high = -1.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if score(lost, won, n, middle) > z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def score(lost: float, won: float, n: float, loss: float) -> float:
    """Compute Z(D) for a loss D, see the module."""
    return float((lost - won - n * loss) / max(np.sqrt(n * null_variance(lost, won, n, loss)), 1e-12))


def null_variance(lost: float, won: float, n: float, loss: float) -> float:
    """Compute the variance of one item's loss under a true loss D: 2 q + D (1 - D), with the most likely q.

    q solves 2 n q^2 + (n (2 D) - (lost - won) D - lost - won) q - won D (1 - D) = 0.
    """
    a, c = 2 * n, -won * loss * (1 - loss)
    b = (2 * n - lost + won) * loss - lost - won
    q = (np.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    return float(max(2 * q + loss * (1 - loss), 0.0))


def items_to_settle(loss: PairedLoss, bound: float) -> int:
    """Compute how many other items would settle, with a chance of ASSURANCE, whether a loss is beyond a bound.

    For all that these items say, the loss of m others is normal about the mean of both, with the variance of both.
    Rounded up to two digits; MOST where no number within it suffices."""
    n = loss.n + 3 * DOUBT
    lost, won = ((loss.changed + sign * loss.value * loss.n) / 2 + DOUBT for sign in (1, -1))
    mean, each = (lost - won) / n, (lost + won) / n - ((lost - won) / n) ** 2
    null = null_variance(lost, won, n, bound)

    def settled(m: float) -> float:
        apart, deviation = Z95 * np.sqrt(null / m), np.sqrt(each / (n + 1) + each / m)
        return float(ndtr((bound - apart - mean) / deviation) + ndtr((mean - bound - apart) / deviation))

    if settled(MOST) < ASSURANCE:
        return MOST
    fewest = nearest_limit(lambda size: settled(np.exp(size)) < ASSURANCE, 0.0, float(np.log(MOST)), HALVINGS)
    return round_up(float(np.exp(fewest)))


def round_up(number: float) -> int:
    digits = int(np.floor(np.log10(max(number, 1.0))))
    unit = int(10 ** max(digits - 1, 0))
    return int(np.ceil(number / unit - 1e-9)) * unit
