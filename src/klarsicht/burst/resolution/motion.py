"""Motion of a burst's frames, measured once more on the enlarged result: alignment of noisy frames is off by a tenth to
a third of a pixel, which the finer grid does not forgive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.resolution import sample_sums
from klarsicht.burst.resolution.predicted_samples import PREDICTION_REACH, Prediction
from klarsicht.burst.resolution.sampled_burst import SampledBurst

MOTION_ROUNDS = 3  # of Gauss and Newton
MEASURED_SIDE = 256  # fine pixels of a window in which the motion is measured
MOST_WINDOWS = 24  # spread evenly over the picture
MOST_CORRECTED = 2.0  # pixels of the sensor, by which a corner may be corrected


def refine_motion(burst: SampledBurst, light: FrameStore, gain: float) -> SampledBurst:
    """Correct the placement of each frame but the reference by one affine motion, that of least squared differences
    between samples and what the enlarged result predicts for them (Gauss and Newton; Lucas and Kanade 1981), weighed by
    the inverse of the variance. One that would move a corner by more than MOST_CORRECTED is left out. light: the
    result, (1, C, H, W), times gain as bright as the frames."""
    height, width = burst.spool.size
    for _ in range(MOTION_ROUNDS):
        equations = np.zeros((len(burst.frames), sample_sums.UNKNOWNS, sample_sums.UNKNOWNS + 1))
        for window in choose_windows((light.size[0], light.size[1])):
            around = window.grow(PREDICTION_REACH)
            prediction = Prediction.of(light.read_window(0, around)[:3] * np.float32(gain), around)
            for k in range(1, len(burst.frames)):
                prediction.add_motion_equations(burst, k, float(height + width), equations[k])
        burst = _correct_placement(burst, equations, float(height + width))
    return burst


def choose_windows(size: tuple[int, int]) -> Iterator[Window]:
    """Yield windows of the fine grid, at most MOST_WINDOWS, spread evenly over a picture of that size."""
    corners = [(y, x) for y in range(0, size[0], MEASURED_SIDE) for x in range(0, size[1], MEASURED_SIDE)]
    count = min(len(corners), MOST_WINDOWS)
    for n in range(count):
        y, x = corners[n * len(corners) // count]
        yield Window(y, min(y + MEASURED_SIDE, size[0]), x, min(x + MEASURED_SIDE, size[1]))


def _correct_placement(burst: SampledBurst, equations: npt.NDArray[np.float64], scale: float) -> SampledBurst:
    """Solve the equations (N, 6, 7) of all frames, and correct their placement. scale: pixels in the unit of places."""
    placement, (H, W) = burst.placement, burst.spool.size
    fine, turns = placement.fine.copy(), placement.turns.copy()
    Y, X = fine.shape[1:3]
    centres = np.stack(np.meshgrid(np.arange(Y) * STEP - 0.5, np.arange(X) * STEP - 0.5, indexing="ij"), -1)
    corners = np.array([(0, 0), (0, W), (H, 0), (H, W)])
    for k in range(1, len(fine)):
        upper, right = equations[k, :, :-1], equations[k, :, -1]
        left = upper + np.triu(upper, 1).T
        if not left.any():
            continue
        motion = np.linalg.lstsq(left, right, rcond=1e-9)[0]
        shift, turn = motion[:2], motion[2:].reshape(2, 2) / scale
        if np.abs(shift + corners @ turn.T).max() > MOST_CORRECTED:
            continue
        fine[k] += shift + centres @ turn.T
        turns[k] += turn
    return burst.with_placement(replace(placement, fine=fine, turns=turns))
