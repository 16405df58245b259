"""Does the model use what a detector found? Put it on images of other classes, and look at all the logits.

That a paste moves the logit of its class proves little: any content of a class speaks for it a little, and the control
does not take all of that away. So the shift is compared with that of all other logits, and the figure this gives with
the same figure of clean classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.changes import CHANGES, Specimen
from klarsicht.audit.shown import Levels

Floats = NDArray[np.floating[Any]]
Predict = Callable[[Floats], Floats]

NORMAL = 1.4826  # deviation of a normal distribution over its median absolute deviation


@dataclass(frozen=True)
class Effect:
    """What an artifact on images of other classes does to the logit of its own class.

    Attributes:
        how: where it was put, or how strong it was.
        shift: mean change of the centred logit against the control.
        low, high: 95 % interval of the shift over images.
        runner_up: the largest shift of any other output.
        z: the shift among those of all outputs, in robust deviations.
        rank: outputs that rise more, 0 for none.
        flips: share of images, not yet taken for the class, that are taken for it with the artifact.
        flips_control: the same under the control.
        flips_low: lower end of the 95 % interval of their difference, image by image.
        images: how many it was put on.
    """

    how: str
    shift: float
    low: float
    high: float
    runner_up: float
    z: float
    rank: int
    flips: float
    flips_control: float
    flips_low: float
    images: int


def effects(
    predict: Predict, x: Levels, target: int, change: str, found: Specimen, rng: np.random.Generator
) -> dict[str, Effect]:
    """Every way in which the artifact can be put on images x (B, H, W, C) of other classes.

    Args:
        predict: grey levels (B, H, W, C) -> logits (B, K).
        change: a name of changes.CHANGES.
    """
    before = predict(x.astype(np.float32))
    pairs = CHANGES[change](x, found, rng)
    return {how: effect(how, before, predict(a), predict(b), target) for how, (a, b) in pairs.items()}


def effect(how: str, before: Floats, marked: Floats, control: Floats, target: int) -> Effect:
    """From logits (B, K) of the same images as they are, with the artifact, and with the control."""
    change = centred(marked) - centred(control)
    mean, error = change.mean(0), change.std(0, ddof=1) / np.sqrt(len(change))
    free = before.argmax(1) != target
    flipped = [answer[free].argmax(1) == target for answer in (marked, control)]
    return Effect(
        how=how,
        shift=float(mean[target]),
        low=float(mean[target] - 1.96 * error[target]),
        high=float(mean[target] + 1.96 * error[target]),
        runner_up=float(np.delete(mean, target).max()),
        z=robust_z(mean, error[target], target),
        rank=int((mean > mean[target]).sum()),
        flips=share(flipped[0]),
        flips_control=share(flipped[1]),
        flips_low=lowest(flipped[0].astype(float) - flipped[1]),
        images=len(before),
    )


def share(which: NDArray[np.bool_]) -> float:
    """Of those that hold; nought of none."""
    return float(which.mean()) if len(which) else 0.0


def lowest(values: Floats) -> float:
    """Lower end of the 95 % interval of a mean; nought of fewer than two."""
    return float(values.mean() - 1.96 * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def centred(logits: Floats) -> Floats:
    return np.asarray(logits - logits.mean(1, keepdims=True))


def robust_z(shift: Floats, error: float, target: int) -> float:
    """The target's shift less the median of the others, over their robust deviation and its own standard error.

    The error keeps a paste that does nothing to anything from looking large against nothing.
    """
    others = np.delete(shift, target)
    middle = np.median(others)
    spread = NORMAL * np.median(np.abs(others - middle))
    return float((shift[target] - middle) / max(np.hypot(spread, error), 1e-6))
