"""Effect on a class of what is put on images, or taken from them, and whether it matters.

Three questions are asked of an effect, and each has its function. `is_raised`: is the class raised at all? `matters`:
by enough for a verdict? `is_futile`: can the images that are left still make it enough? The last one makes no claim,
only saves forward passes, so no level is spent on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Final, Literal

from klarsicht.numerics.statistics.intervals import Interval

FLOOR: Final = 0.5  # of a logit, least rise that matters: odds 1.6 times as large
FLIPPED: Final = 0.02  # or share of other images predicted as the class
LEFT_BY: Final = 2.0  # standard errors by which a rise must lie below the floor to be left
ANY_SHARE: Final = Interval(nan, -inf, inf, 0)  # share of images turned, where it is not counted: it may be any

End = Literal["low", "value", "high"]


@dataclass(frozen=True)
class LogitEffect:
    """Effect on one class.

    Attributes:
        rise: mean change of the class's score against the control, in logits.
        turned: share of the images predicted as the class, less that under the control.
    """

    rise: Interval
    turned: Interval = ANY_SHARE

    @classmethod
    def of_values(cls, rise: float, share: float = nan) -> LogitEffect:
        """Make the effect of a rise, and a share of images turned, without intervals."""
        return cls(Interval(rise, nan, nan, 1), Interval(share, nan, nan, 1))


def is_raised(effect: LogitEffect, least: float = 0.0) -> bool:
    """Say whether the class is shown to be raised, by the whole interval, and measured to be by `least` logits."""
    return bool(effect.rise.low > 0 and effect.rise.value >= least)


def matters(effect: LogitEffect, by: End = "low", factor: float = 1.0) -> bool:
    """Say whether an effect is one that matters: FLOOR of a logit, or FLIPPED of the images.

    Args:
        by: the end of either interval that must be so large: "low", it is shown to matter; "value", it is measured to;
            "high", it may, and where it does not it is shown to be less.
        factor: of both floors; at 0 whatever is there matters.
    """
    rise, share = (getattr(figure, by) for figure in (effect.rise, effect.turned))
    return bool(rise >= factor * FLOOR or share >= factor * FLIPPED)


def is_futile(effect: LogitEffect, reach: float) -> bool:
    """Say whether more images are in vain: the rise lies below FLOOR by LEFT_BY standard errors, and no more images are
    turned than under the control.

    Args:
        reach: standard errors to the ends of the interval.
    """
    rise = effect.rise
    upper = rise.value + LEFT_BY / reach * (rise.high - rise.value)
    return bool(upper < FLOOR and effect.turned.value <= 0)


def describe_floor(factor: float = 1.0) -> str:
    """Say in words what matters; see `matters`."""
    return f"{factor * FLOOR:g} logits, or {100 * factor * FLIPPED:g} % of other images"
