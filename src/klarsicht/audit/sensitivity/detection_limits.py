"""Detection limits: down to which prevalence is something found?"""

from __future__ import annotations

from collections.abc import Mapping


def limit(shares: Mapping[float, float]) -> float | None:
    """The smallest prevalence at which half are found, and at all larger ones; None without any.

    Args:
        shares: prevalence -> share of those planted that were found; not a number where none was planted.
    """
    down_to = None
    for prevalence in sorted(shares, reverse=True):
        if not shares[prevalence] >= 0.5:
            break
        down_to = prevalence
    return down_to


def percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"


def told(found: float | None) -> str:
    return "not found" if found is None else percent(found)
