"""Say where the least p-value that a test can give exceeds the level, so that nothing can be claimed by it."""

from __future__ import annotations

from math import ceil


def describe_rank_limit(least: float, level: float, claim: str) -> str:
    """Say that no rank among classes reaches the level, what is claimed nevertheless, and what helps; empty where one
    does.

    Args:
        least: smallest p-value of a rank among the classes, above 0 to 1.
        level: of p, above 0 to 1.
        claim: the claim on a class, a verb in the passive: "called", "noted".
    """
    if least <= level:
        return ""
    return (
        f"No rank among so few classes is below {least:.3f}, so none reaches {level:g}: a class is {claim} only where "
        "it lies so far beyond all others that a power law through their largest scores says so. Ranks decide from "
        f"{ceil(1 / level)} classes on: audit these beside more classes of the same kind."
    )


def describe_least_p(least: float, level: float, claim: str, remedy: str) -> str:
    """Say that a claim cannot be made at the level, and what helps; empty where it can.

    Args:
        least: smallest p-value that the test can give.
        level: of p.
        claim: the claim, a sentence with "can be" or "is": "no picture is said to carry one".
        remedy: a sentence.
    """
    if least <= level:
        return ""
    return f"Here p can be no smaller than {least:.3f}, so at {level:g} {claim}. {remedy}"
