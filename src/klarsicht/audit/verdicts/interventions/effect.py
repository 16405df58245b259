"""Measure the effect of an inserted artifact on all logits, on images of other classes.

A rise of the class's own logit proves little: any content of a class raises its logit, and the control does not remove
that rise completely. The shift is therefore compared with the shifts of all other outputs, and the resulting z with the
z of clean classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from klarsicht.audit.results.significance import p_among_draws
from klarsicht.audit.verdicts.interventions.insertion import Insertion
from klarsicht.audit.verdicts.interventions.patch import Patch
from klarsicht.audit.verdicts.interventions.random_artifacts import put_random_artifacts
from klarsicht.audit.verdicts.interventions.shared_content import SharedContent
from klarsicht.ground.arrays import Floats
from klarsicht.numerics.statistics.logits import (
    EXCLUSIVE,
    LogitScale,
    centred_logit,
    rounding_bound,
)

Predict = Callable[[Tensor], Floats]  # from model inputs (n, C, H, W) to logits (n, K)
Score = Callable[[Floats, int], Floats]  # from logits (n, K) and a class to (n,)

NORMAL = 1.4826  # deviation of a normal distribution over its median absolute deviation
LEFT_BY = 2.0  # standard errors by which a rise must lie below what matters to be left
WINDOW_IMAGES = 8  # images on which an artifact is compared with other windows, or with random artifacts


@dataclass(frozen=True)
class LogitEffect:
    """Effect of an artifact, inserted into images of other classes, on the logit of its own class.

    Attributes:
        how: where it was inserted, or its size.
        shift: mean change of the class's score against the control: of its centred logit, or of independent outputs of
            the logit itself.
        low, high: 95 % interval of the shift over images.
        runner_up: the largest shift of any other output.
        runner: number of that output.
        margin: mean difference of the two shifts, by which the class is ahead.
        margin_low, margin_high: 95 % interval of the margin, over the differences of single images. The output is
            chosen on the same images, so the margin is biased towards small values.
        z: the shift among those of all outputs, in robust standard deviations.
        rank: number of outputs with a larger shift, or with an equal one up to rounding; 0 for none.
        flips: share of the images not predicted as the class that are predicted as it with the artifact.
        flips_control: the same share under the control.
        flips_low: lower end of the 95 % interval of the paired difference of the two shares.
        uplift: median over images of the ratio of the class's probability with the artifact to that on the unchanged
            image.
        uplift_control: the same ratio under the control.
        images: number of images.
        p_tiles: p-value of the rise among the rises of other windows of the same size, or of random artifacts; 1 where
            none were inserted; see `p_among_windows` and `p_among_artifacts`.
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

    def cannot_reach(self, floor: float, reach: float) -> bool:
        """Say whether the rise lies below a floor by LEFT_BY standard errors, and no more images are taken for the
        class than under the control. To leave an effect makes no claim, so no level is spent on it.

        Args:
            floor: least rise that matters.
            reach: standard errors to the ends of the interval.
        """
        upper = self.shift + LEFT_BY / reach * (self.high - self.shift)
        return upper < floor and self.flips <= self.flips_control

    @property
    def is_surely_first(self) -> bool:
        """Whether the lower ends of the rise and of its margin to all other outputs exceed 0."""
        return self.rank == 0 and self.low > 0 and self.margin_low > 0


def measure_effects(
    predict: Predict, x: Tensor, target: int, ways: Mapping[str, Insertion], rng: np.random.Generator,
    scale: LogitScale = EXCLUSIVE,
) -> dict[str, LogitEffect]:  # fmt: skip
    """Measure the effect of each way to put an artifact on images x (B, C, H, W) of other classes.

    All ways get common random numbers, so that they differ by nothing else.

    Args:
        predict: function from model inputs to logits.
        x: model inputs.
        target: output of the artifact's class.
        ways: insertions by the name of the way; see insertion.CHANGES.
        scale: scale on which logits count.

    Returns:
        effect by the name of the way.
    """
    before, start, effects = predict(x), rng.bit_generator.state, {}
    for how, insertion in ways.items():
        rng.bit_generator.state = start
        marked, control = insertion.put(x, rng)
        effects[how] = compute_effect(how, before, predict(marked), predict(control), target, scale)
    return effects


def compute_effect(
    how: str, before: Floats, with_artifact: Floats, control: Floats, target: int, scale: LogitScale = EXCLUSIVE,
    reach: float = 1.96,
) -> LogitEffect:  # fmt: skip
    """Compute the effect from logits of the same images: unchanged (B, K), with the artifact, and under the control.

    The last two are (B, K), or (w, B, K) where each image was changed in w ways; an image then counts by its mean over
    these. Intervals are `reach` standard errors long on either side.
    """
    change = (scale.scores(with_artifact) - scale.scores(control)).reshape(-1, *before.shape).mean(0)
    mean, error = change.mean(0), standard_error(change)
    runner, least = int(np.where(np.arange(len(mean)) == target, -np.inf, mean).argmax()), rounding_bound(before)
    ahead = change[:, target] - change[:, runner]
    flip_share, flipped_control = (flips(before, answer, target, scale) for answer in (with_artifact, control))
    return LogitEffect(
        how=how,
        shift=float(mean[target]),
        low=float(mean[target] - reach * error[target]),
        high=float(mean[target] + reach * error[target]),
        runner_up=float(mean[runner]),
        runner=runner,
        margin=float(ahead.mean()),
        margin_low=float(ahead.mean() - reach * standard_error(ahead)),
        margin_high=float(ahead.mean() + reach * standard_error(ahead)),
        z=robust_z(mean, error[target], target, least),
        rank=int((np.delete(mean, target) > mean[target] - least).sum()),
        flips=mean_or_zero(flip_share),
        flips_control=mean_or_zero(flipped_control),
        flips_low=lower_end(flip_share - flipped_control, reach),
        uplift=uplift(before, with_artifact, target, scale),
        uplift_control=uplift(before, control, target, scale),
        images=len(before),
    )


def p_among_windows(
    predict: Predict, x: Tensor, target: int, patch: Patch, rng: np.random.Generator, count: int,
    scale: LogitScale = EXCLUSIVE,
) -> float:  # fmt: skip
    """Compute the p-value of the rise by an artifact's patch among the rises by other windows in its place.

    They are compared on the first WINDOW_IMAGES images, for windows differ by more than images do. This test needs
    neither other outputs nor other classes.
    """
    x = x[:WINDOW_IMAGES]
    return _p_among(predict, patch.put(x, rng)[0], patch.other_windows(x, rng, count), target, count, scale)


def p_among_artifacts(
    predict: Predict, x: Tensor, target: int, shared: SharedContent, rng: np.random.Generator, count: int,
    scale: LogitScale = EXCLUSIVE,
) -> float:  # fmt: skip
    """Compute the p-value of the rise by what carriers share among the rises by random artifacts on the same images.

    Images that are changed by anything often fall to one class, so the rise of that class proves nothing. They are
    compared on the first WINDOW_IMAGES images, for artifacts differ by more than images do.
    """
    x = x[:WINDOW_IMAGES]
    drawn = put_random_artifacts(x, shared.pixel_scale, rng, count)
    return _p_among(predict, shared.put(x, rng)[0], drawn, target, count, scale)


def _p_among(
    predict: Predict, own: Tensor, others: Iterable[Tensor], target: int, count: int, scale: LogitScale
) -> float:
    """Compute the p-value of the class's mean score on images among those on the same images changed otherwise.

    `count` changes are drawn, or fewer, see `significance.p_among_draws`.
    """
    answer = predict(own)
    least = float(scale.scores(answer)[:, target].mean()) - rounding_bound(answer)
    scores = (scale.scores(predict(shown))[:, target].mean() for shown in others)
    return p_among_draws((bool(score >= least) for score in scores), count)


def logit_rise(with_artifact: Floats, control: Floats, target: int, score: Score = centred_logit) -> Floats:
    """Subtract the class's score on the same images under the control from that with the artifact: (n, K) -> (n,)."""
    return np.asarray(score(with_artifact, target) - score(control, target))


def logit_excess(members: Floats, others: Floats, target: int, score: Score = centred_logit) -> Floats:
    """Subtract the class's mean score on other images (m, K) from that on members (n, K): (n,).

    For an artifact that is not put on images.
    """
    return np.asarray(score(members, target) - score(others, target).mean())


def flips(before: Floats, after: Floats, target: int, scale: LogitScale = EXCLUSIVE) -> Floats:
    """Return for each image not predicted as the class before (n, K) whether it is predicted as it after: 0 or 1, (m,).

    Where each image was changed in w ways, logits (w, n, K), the result is the share of these ways.
    """
    free = ~scale.predicts(before, target)
    return np.asarray(scale.predicts(after, target).reshape(-1, len(before)).mean(0)[free])


def standard_error(values: Floats) -> Floats:
    """Compute the standard error of the mean of values (B, ...) over images."""
    return np.asarray(values.std(0, ddof=1) / np.sqrt(len(values)))


def uplift(before: Floats, after: Floats, target: int, scale: LogitScale = EXCLUSIVE) -> float:
    """Compute the median over images of the ratio of a class's probability after to before.

    Where each image was changed in w ways, logits (w, B, K), the geometric mean of its ratios counts.
    """
    rise = scale.log_probability(after, target) - scale.log_probability(before, target)
    return float(np.exp(np.median(rise.reshape(-1, len(before)).mean(0))))


def mean_or_zero(which: Floats) -> float:
    """Compute the mean of the values, or 0 where there are none."""
    return float(which.mean()) if len(which) else 0.0


def lower_end(values: Floats, reach: float = 1.96) -> float:
    """Compute the lower end of the interval of the mean, or 0 for fewer than two values."""
    return float(values.mean() - reach * standard_error(values)) if len(values) > 1 else 0.0


def robust_z(shift: Floats, error: float, target: int, least: float = 0.0) -> float:
    """Compute the robust z-score of the target's shift among the shifts (K,) of all outputs.

    z = (shift of the target - median of the others) / hypot(robust deviation of the others, standard error of the
    target's shift). The standard error keeps an insertion without effect from having a large z where the other outputs
    do not move either; so does `least`, the rounding of the logits, where the error vanishes too.
    """
    others = np.delete(shift, target)
    middle = np.median(others)
    spread = NORMAL * np.median(np.abs(others - middle))
    return float((shift[target] - middle) / max(np.hypot(spread, error), least, 1e-6))
