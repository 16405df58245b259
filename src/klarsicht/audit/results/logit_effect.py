"""Effect on a class of an artifact that is inserted into images or removed from them, and whether it matters."""

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
    """Effect on one class: `rise` is the mean change of its score against the control in logits, `turned` the share of
    the images predicted as the class, less that under the control."""

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
        by: the end of either interval that must be so large: "low" where it is shown to matter, "value" where it is
            measured to, "high" where it may.
        factor: of both floors; at 0 whatever is there matters.
    """
    rise, share = (getattr(figure, by) for figure in (effect.rise, effect.turned))
    return bool(rise >= factor * FLOOR or share >= factor * FLIPPED)


def is_futile(effect: LogitEffect, reach: float) -> bool:
    """Say whether more images are in vain: the rise lies below FLOOR by LEFT_BY standard errors, and no more images are
    turned than under the control. `reach` is in standard errors to the ends of the interval. No level is spent on it,
    since it makes no claim."""
    rise = effect.rise
    upper = rise.value + LEFT_BY / reach * (rise.high - rise.value)
    return bool(upper < FLOOR and effect.turned.value <= 0)


def describe_floor(factor: float = 1.0) -> str:
    """Say in words what matters; see `matters`."""
    return f"{factor * FLOOR:g} logits, or {100 * factor * FLIPPED:g} % of other images"
