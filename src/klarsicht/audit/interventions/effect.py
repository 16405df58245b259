"""Does the model use what a detector found? Put it on images of other classes, and look at all the logits.

That a paste moves the logit of its class proves little: any content of a class speaks for it a little, and the control
does not take all of that away. So the shift is compared with that of all other logits, and the figure this gives with
the same figure of clean classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from klarsicht.audit.interventions.insertion import CHANGES, ArtifactExamples, rivals, tile
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.numerics.statistics.logits import centred, rounding

Predict = Callable[[Floats], Floats]

NORMAL = 1.4826  # deviation of a normal distribution over its median absolute deviation


@dataclass(frozen=True)
class LogitEffect:
    """What an artifact on images of other classes does to the logit of its own class.

    Attributes:
        how: where it was put, or how strong it was.
        shift: mean change of the centred logit against the control.
        low, high: 95 % interval of the shift over images.
        runner_up: the largest shift of any other output, and `runner`: which output that is.
        margin: by how much the class rises more than that output, and the 95 % interval of the difference, image by
            image. The output is picked by the same images, so the margin is rather too small than too large.
        z: the shift among those of all outputs, in robust deviations.
        rank: outputs that rise more, or as much but for rounding; 0 for none.
        flips: share of images, not yet taken for the class, that are taken for it with the artifact.
        flips_control: the same under the control.
        flips_low: lower end of the 95 % interval of their difference, image by image.
        uplift: how many times more probable the class is than on the image as it was, by the median image.
        uplift_control: the same under the control.
        images: how many it was put on.
        p_tiles: p of its rise among those of other windows of the same size; 1 where none were put on: see
            `among_rivals`.
    """

    how: str
    shift: float
    low: float
    high: float
    runner_up: float
    runner: int
    margin: float
    margin_low: float
    margin_high: float
    z: float
    rank: int
    flips: float
    flips_control: float
    flips_low: float
    uplift: float
    uplift_control: float
    images: int
    p_tiles: float = 1.0


def effects(
    predict: Predict, x: Pixels, target: int, change: str, found: ArtifactExamples, rng: np.random.Generator
) -> dict[str, LogitEffect]:
    """Every way in which the artifact can be put on images x (B, H, W, C) of other classes.

    Args:
        predict: grey levels (B, H, W, C) -> logits (B, K).
        change: a name of changes.CHANGES.
    """
    before = predict(x.astype(np.float32))
    pairs = CHANGES[change](x, found, rng)
    return {how: effect(how, before, predict(a), predict(b), target) for how, (a, b) in pairs.items()}


def effect(how: str, before: Floats, marked: Floats, control: Floats, target: int) -> LogitEffect:
    """From logits of the same images as they are (B, K), and with the artifact and the control.

    These are (B, K) too, or (G, B, K), where every image was changed in G ways; then an image counts by their mean.
    """
    change = (centred(marked) - centred(control)).reshape(-1, *before.shape).mean(0)
    mean, error = change.mean(0), standard_error(change)
    runner, least = int(np.where(np.arange(len(mean)) == target, -np.inf, mean).argmax()), rounding(before)
    ahead = change[:, target] - change[:, runner]
    free = before.argmax(1) != target
    flipped = [(answer.argmax(-1) == target).reshape(-1, len(before)).mean(0)[free] for answer in (marked, control)]
    return LogitEffect(
        how=how,
        shift=float(mean[target]),
        low=float(mean[target] - 1.96 * error[target]),
        high=float(mean[target] + 1.96 * error[target]),
        runner_up=float(mean[runner]),
        runner=runner,
        margin=float(ahead.mean()),
        margin_low=float(ahead.mean() - 1.96 * standard_error(ahead)),
        margin_high=float(ahead.mean() + 1.96 * standard_error(ahead)),
        z=robust_z(mean, error[target], target, least),
        rank=int((np.delete(mean, target) > mean[target] - least).sum()),
        flips=share(flipped[0]),
        flips_control=share(flipped[1]),
        flips_low=lowest(flipped[0] - flipped[1]),
        uplift=uplift(before, marked, target),
        uplift_control=uplift(before, control, target),
        images=len(before),
    )


def among_rivals(
    predict: Predict, x: Pixels, target: int, found: ArtifactExamples, how: str, rng: np.random.Generator, count: int
) -> float:
    """p of the rise that an artifact's tile brings, among the rises of `count` other windows of its size in its place:
    (1 + those that rise as much) / (count + 1). It asks for no other outputs and for no other classes."""
    tried = (tile(x, found, rng)[how][0], *rivals(x, found, how, rng, count))
    answers = [predict(shown) for shown in tried]
    own, *other = (float(centred(answer)[:, target].mean()) for answer in answers)
    return (1 + sum(rise >= own - rounding(answers[0]) for rise in other)) / (count + 1)


def standard_error(values: Floats) -> Floats:
    """Of the mean of values (B, ...) over images."""
    return np.asarray(values.std(0, ddof=1) / np.sqrt(len(values)))


def uplift(before: Floats, after: Floats, target: int) -> float:
    """Median over images of the ratio of a class's probability after to that before; of several ways (G, B, K) the
    geometric mean counts."""
    rise = (log_softmax(after, -1) - log_softmax(before, -1))[..., target]
    return float(np.exp(np.median(rise.reshape(-1, len(before)).mean(0))))


def share(which: Floats) -> float:
    """The mean of shares; nought of none."""
    return float(which.mean()) if len(which) else 0.0


def lowest(values: Floats) -> float:
    """Lower end of the 95 % interval of a mean; nought of fewer than two."""
    return float(values.mean() - 1.96 * standard_error(values)) if len(values) > 1 else 0.0


def robust_z(shift: Floats, error: float, target: int, least: float = 0.0) -> float:
    """The target's shift less the median of the others, over their robust deviation and its own standard error.

    The error keeps a paste that does nothing to anything from looking large against nothing; so does `least`, the
    rounding of the logits, where even the error is nothing.
    """
    others = np.delete(shift, target)
    middle = np.median(others)
    spread = NORMAL * np.median(np.abs(others - middle))
    return float((shift[target] - middle) / max(np.hypot(spread, error), least, 1e-6))
