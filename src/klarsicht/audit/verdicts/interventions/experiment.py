"""Measure the effect of an artifact on all logits: the same images are shown with it, and under a control.

Any content of a class raises its logit, and the control does not remove that rise completely. The shift is therefore
compared with the shifts of all other outputs, and the resulting z with the z of clean classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from klarsicht.audit.results.logit_effect import LogitEffect, is_raised
from klarsicht.audit.results.significance import p_among_draws
from klarsicht.audit.verdicts.interventions.insertion import Insertion
from klarsicht.ground.arrays import Bools, Floats
from klarsicht.numerics.statistics.intervals import Interval, student_quantile
from klarsicht.numerics.statistics.logits import EXCLUSIVE, LogitScale, centred_logit, rounding_bound

Predict = Callable[[Tensor], Floats]  # from model inputs (n, C, H, W) to logits (n, K)
Score = Callable[[Floats, int], Floats]  # from logits (n, K) and a class to (n,)

MOST = 0.5  # share of images that are turned into a class from which no other output counts
NORMAL = 1.4826  # deviation of a normal distribution over its median absolute deviation


@dataclass(frozen=True, kw_only=True)
class ComparedEffect(LogitEffect):
    """Effect of an artifact on its class, compared with that on all other outputs. Of independent outputs the rise is
    that of the logit itself, else of the centred one; `turned` is of the images not predicted as the class before.

    Attributes:
        flips, flips_control: share of these images predicted as the class with the artifact, and under the control.
        runner, runner_up: number of the other output that rises most, and its mean change.
        margin: mean difference of the two changes; biased towards small values, for the same images choose the output.
        z: the rise among those of all outputs, in robust standard deviations.
        rank: number of outputs with a larger rise, or with an equal one up to rounding.
        uplift, uplift_control: median ratio of the class's probability to that on the unchanged image.
    """

    flips: float
    flips_control: float
    runner: int
    runner_up: float
    margin: Interval
    z: float
    rank: int
    uplift: float
    uplift_control: float

    @property
    def leads(self) -> bool:
        """Whether no other output rises more, or most images are predicted as the class, whatever rises beside it."""
        return self.rank == 0 or self.turned.low >= MOST

    @property
    def is_surely_first(self) -> bool:
        """Whether the lower ends of the rise and of its margin to all other outputs exceed 0."""
        return self.rank == 0 and is_raised(self) and self.margin.low > 0


@dataclass(frozen=True)
class Experiment:
    """Logits (n, K) of the same images with an artifact, and under a control, or (w, n, K) where each image was changed
    in w ways; it then counts by its mean. `target` is the output of the artifact's class."""

    with_artifact: Floats
    control: Floats
    target: int
    scale: LogitScale = EXCLUSIVE

    @classmethod
    def run(
        cls, predict: Predict, insertion: Insertion, images: Tensor, target: int, rng: np.random.Generator,
        scale: LogitScale = EXCLUSIVE, turns: int = 1,
    ) -> Experiment:  # fmt: skip
        """Insert an artifact and its control in images (n, C, H, W), `turns` times each, and show both to the
        network."""
        shown = (torch.split(some, len(images)) for some in insertion.put(images.repeat(turns, 1, 1, 1), rng))
        with_artifact, control = (np.stack([predict(turn) for turn in turns_of]) for turns_of in shown)
        return cls(with_artifact, control, target, scale)

    def join(self, more: Experiment) -> Experiment:
        """Append the images of a further experiment of the same kind."""
        with_artifact = np.concatenate([self.with_artifact, more.with_artifact], -2)
        return replace(self, with_artifact=with_artifact, control=np.concatenate([self.control, more.control], -2))

    def rises(self, score: Score | None = None) -> Floats:
        """Subtract the class's score, by default that of the scale, under the control from that with it, (n,)."""
        score = score or self.scale.score
        after, before = (score(y.reshape(-1, y.shape[-1]), self.target) for y in (self.with_artifact, self.control))
        return np.asarray((after - before).reshape(-1, self.with_artifact.shape[-2]).mean(0))

    @property
    def taken(self) -> tuple[Bools, Bools]:
        """Whether each image is predicted as the class, with the artifact and under the control."""
        with_artifact, control = (self.scale.predicts(y, self.target) for y in (self.with_artifact, self.control))
        return with_artifact, control

    def effect(self, before: Floats, reach: float | None = None) -> ComparedEffect:
        """Compare the class with all outputs, given the images' logits (n, K) and the standard errors to the ends, by
        default those of Student's t. An output that is not a number exceeds the class."""
        target, scale, n = self.target, self.scale, len(before)
        reach = student_quantile(n) if reach is None else reach
        change = (scale.scores(self.with_artifact) - scale.scores(self.control)).reshape(-1, *before.shape).mean(0)
        mean, error = change.mean(0), standard_error(change)
        runner, least = int(np.where(np.arange(len(mean)) == target, -np.inf, mean).argmax()), rounding_bound(before)
        ahead = change[:, target] - change[:, runner]
        own, other = (flips(before, y, target, scale) for y in (self.with_artifact, self.control))
        return ComparedEffect(
            rise=_interval(mean[target], error[target], reach, n), turned=turned_share(own, other, reach),
            flips=mean_or_zero(own), flips_control=mean_or_zero(other), runner=runner, runner_up=float(mean[runner]),
            margin=_interval(ahead.mean(), float(standard_error(ahead)), reach, n),
            z=robust_z(mean, error[target], target, least),
            rank=int((~(np.delete(mean, target) <= mean[target] - least)).sum()),
            uplift=uplift(before, self.with_artifact, target, scale),
            uplift_control=uplift(before, self.control, target, scale),
        )  # fmt: skip


def p_among_rivals(
    predict: Predict, plain: Tensor, own: Tensor, rivals: Iterable[Tensor], target: int, count: int,
    scale: LogitScale = EXCLUSIVE,
) -> float:  # fmt: skip
    """Compute the p-value of the class's mean score on images with its artifact among those on the same images with
    other windows in its place, or with random artifacts: images that are changed by anything often fall to one class.
    At most `count` rivals are drawn, see `significance.p_among_draws`; none, and p is 1, where the images as they are
    score as high."""
    answer = predict(own)
    least = float(scale.scores(answer)[:, target].mean()) - rounding_bound(answer)
    if not float(scale.scores(predict(plain))[:, target].mean()) < least:  # so that NaN reaches, too
        return 1.0
    scores = (scale.scores(predict(shown))[:, target].mean() for shown in rivals)
    return p_among_draws((not score < least for score in scores), count)


def logit_excess(members: Floats, others: Floats, target: int, score: Score = centred_logit) -> Floats:
    """Subtract the class's mean score on others (m, K) from that on members (n, K), of an artifact that is not
    inserted."""
    return np.asarray(score(members, target) - score(others, target).mean())


def flips(before: Floats, after: Floats, target: int, scale: LogitScale = EXCLUSIVE) -> Floats:
    """Return for images not predicted as the class before (n, K) whether they are after, or the share of ways: (m,)."""
    free = ~scale.predicts(before, target)
    return np.asarray(scale.predicts(after, target).reshape(-1, len(before)).mean(0)[free])


def standard_error(values: Floats) -> Floats:
    """Compute the standard error of the mean of values (B, ...) over images; not a number for a single one."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1) / np.sqrt(len(values)))


def uplift(before: Floats, after: Floats, target: int, scale: LogitScale = EXCLUSIVE) -> float:
    """Compute the median over images of the (geometric mean) ratio of a class's probability after to before."""
    rise = scale.log_probability(after, target) - scale.log_probability(before, target)
    return float(np.exp(np.median(rise.reshape(-1, len(before)).mean(0))))


def mean_or_zero(which: Floats) -> float:
    """Compute the mean of the values, or 0 where there are none."""
    return float(which.mean()) if len(which) else 0.0


def turned_share(own: Floats, other: Floats, reach: float | None = None) -> Interval:
    """Estimate the mean of flips (n,) less that under the control, by paired differences; 0 to 1 of fewer than two.
    reach: standard errors to the ends; None: those of Student's t."""
    difference, n = own - other, len(own)
    if n < 2:
        return Interval(mean_or_zero(difference), 0.0, 1.0, n)
    reach = student_quantile(n) if reach is None else reach
    return _interval(difference.mean(), float(standard_error(difference)), reach, n)


def _interval(mean: float, error: float, reach: float, n: int) -> Interval:
    return Interval(float(mean), float(mean - reach * error), float(mean + reach * error), n)


def robust_z(shift: Floats, error: float, target: int, least: float = 0.0) -> float:
    """Compute the robust z-score of the target's shift among the shifts (K,) of all outputs: (shift - median of the
    others) / hypot(their robust deviation, standard error of the shift). The error, and `least`, the rounding of the
    logits, keep z small where no output moves."""
    others = np.delete(shift, target)
    middle = np.median(others)
    spread = NORMAL * np.median(np.abs(others - middle))
    return float((shift[target] - middle) / max(np.hypot(spread, error), least, 1e-6))
