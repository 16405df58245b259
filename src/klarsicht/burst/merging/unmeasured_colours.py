"""Mixture of estimates with a reference whose colours were interpolated from a mosaic.

Where a colour was measured, the shares of `sure` are taken. Elsewhere the reference X has the error of its
interpolation, too, and less of it should be taken. There the filtered burst E is corrected by the interpolated
difference of the samples, I(X - E) = X - I(E), times

    b = (sum r_p L_p - SLACK (sum v_p L_p^2)^(1/2)) / sum L_p^2,

r = X - E at a sample p, L_p the same predicted from the samples around p, v the variance of their noise; over a window,
clipped to [0, 1]. The first term is the share that predicts left-out samples best (cross-validation, Stone 1974); the
second, SLACK deviations of it where r is noise alone, keeps chance out where noise is strong.

Where something moved, the filtered reference A is taken in place of this, wholly where Stein's estimate has it that E's
mean square error on samples exceeds A's by the noise's variance, in part from FROM_EXCESS of that on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from klarsicht.burst.data.cokriging import Mask, measured_mask, predict_samples, take_samples
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.merging.motion_check import Map, MotionCheck
from klarsicht.burst.merging.sure import SLACK, LightEstimate, Risk, divide_or, soften_edges

CROSS_BOX = 15  # side of a window in pixels
FROM_EXCESS = 0.5  # variances of the noise: excess of the burst's error from which the filtered reference is taken


@dataclass(frozen=True, eq=False)
class UnmeasuredColours:
    """Mixture for one window of a picture. measured, white: (3, H, W), where the sensor measures a colour, and where
    the reference is clipped. correction: (H, W), the share b. alone: (H, W), the share of the filtered reference."""

    noise: InterpolatedNoise
    there: Window
    measured: Mask
    correction: Map
    alone: Map
    white: Mask

    @classmethod
    def fit(
        cls, noise: InterpolatedNoise, there: Window, risk: Risk, estimates: Sequence[LightEstimate | None]
    ) -> UnmeasuredColours:
        """Fit the mixture of estimates, the filtered burst first, the filtered reference last. risk: of samples."""
        cell, gains = noise.cell_at(there.y0, there.x0), np.array(noise.gains, np.float32)[:, None, None]
        burst, alone, reference = estimates[0], estimates[-1], risk.light
        assert burst is not None
        r = take_samples(gains * (reference - burst.light), cell)
        predicted = predict_samples(r, cell)
        light = np.maximum(burst.light, 0)
        variances = np.stack([level.variance(x) for level, x in zip(risk.noise, light, strict=True)])
        v = take_samples(np.square(gains) * variances.astype(np.float32), cell)
        sums = (r * predicted, np.square(predicted), v * np.square(predicted))
        agreeing, square, chance = (uniform_filter(x, CROSS_BOX, mode="nearest") for x in sums)
        sure = agreeing - np.float32(SLACK / CROSS_BOX) * np.sqrt(np.maximum(chance, 0))
        correction = soften_edges(np.clip(divide_or(sure, square, np.float32(0)), 0, 1))
        replaced = np.zeros_like(correction)
        if alone is not None:
            excess = risk.excess_error(burst, alone)
            replaced = soften_edges(np.clip((excess - FROM_EXCESS) / (1 - FROM_EXCESS), 0, 1))
        white = reference >= risk.limits.high
        return cls(noise, there, measured_mask(cell, there.size), correction, replaced, white)

    def crop(self, part: tuple[slice, slice]) -> UnmeasuredColours:
        """Return the mixture for some of the rows and columns."""
        rows, columns = part
        there = Window(rows.start, rows.stop, columns.start, columns.stop).translate(self.there.y0, self.there.x0)
        measured, white = self.measured[:, *part], self.white[:, *part]
        return UnmeasuredColours(self.noise, there, measured, self.correction[part], self.alone[part], white)

    def mix(self, verdict: MotionCheck, estimates: Sequence[Planes | None], reference: Planes) -> Planes:
        """Mix estimates, in the order of fit, with the reference; linear in both."""
        burst = estimates[0]
        assert burst is not None
        lost = reference - self.noise.interpolate_samples(burst, self.there.y0, self.there.x0)
        lost[self.white] = 0
        best = burst + self.correction * lost
        if estimates[-1] is not None:
            best += self.alone * (estimates[-1] - best)
        elsewhere = reference + (1 - verdict.kept) * (best - reference)
        return np.where(self.measured, verdict.mix(estimates, reference), elsewhere)
