"""Say where the least p-value that a test can give exceeds the level, so that nothing can be claimed by it."""

from __future__ import annotations

from math import ceil


def describe_rank_limit(least: float, level: float) -> str:
    """Say that no rank among the classes presumed clean reaches the level, so that smaller p are extrapolated; empty
    where one does. Of twenty classes with three findings, seventeen are presumed clean."""
    if least <= level:
        return ""
    return (
        f"Among so few presumably clean classes a p below {least:.3f} is extrapolated by a power law through the "
        f"largest scores; {ceil(1 / level)} or more of them give exact ranks at {level:g}."
    )


def describe_least_p(least: float, level: float, claim: str, remedy: str) -> str:
    """Say that a claim, as "no picture can be said to have one", cannot be made at the level, and what helps, or ""."""
    if least <= level:
        return ""
    return f"Here p can be no smaller than {least:.3f}, so at {level:g} {claim}. {remedy}"
