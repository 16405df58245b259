"""Detection limits: the smallest prevalence at which an artifact is found."""

from __future__ import annotations

from collections.abc import Mapping


def detection_limit(shares: Mapping[float, float]) -> float | None:
    """Compute the smallest prevalence from which on at least half of the planted artifacts are found; None without any.
    shares: prevalence -> share of the planted artifacts that were found; NaN where none was planted."""
    down_to = None
    for prevalence in sorted(shares, reverse=True):
        if not shares[prevalence] >= 0.5:
            break
        down_to = prevalence
    return down_to


def format_percent(share: float) -> str:
    """Format a share in percent, with three digits."""
    return f"{100 * share:.3g}%"


def format_limit(limit: float | None) -> str:
    """Format a detection limit in percent."""
    return "not found" if limit is None else format_percent(limit)
