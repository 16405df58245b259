"""Prediction of the samples of a burst's frames by an enlarged picture, in a window of the fine grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import spline_filter, uniform_filter

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.resolution import sample_sums
from klarsicht.burst.resolution.enlarged_frames import FINE_PIXELS
from klarsicht.burst.resolution.sampled_burst import SampledBurst

SCENE_BOX = 5  # side of the window in which the scene's variance is measured, in fine pixels
PREDICTION_REACH = 16  # fine pixels that a prediction depends on: those boxes, and 12 of a spline's prefilter

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FrameSamples:
    """Samples of one frame in a window of it. places: (2, h, w), in the fine window. light, predictions: (h, w), of the
    samples. spreads: the scene's variance around. inside: whether there is a prediction."""

    window: Window
    places: Values
    light: Values
    predictions: Values
    spreads: Values
    inside: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Coefficients (3, H, W) of a cubic spline through what a sample sees at each fine pixel of a window, the mean of
    2 x 2 from it, and the variance of that around."""

    window: Window
    splines: Values
    texture: Values

    @classmethod
    def of(cls, light: Planes, window: Window) -> Prediction:
        """Predict from light (3, H, W) of a fine window."""
        first = (0, -1, -1)  # of 2 x 2 pixels
        seen = uniform_filter(light, (0, FINE_PIXELS, FINE_PIXELS), mode="nearest", origin=first)
        mean, square = (uniform_filter(x, (0, SCENE_BOX, SCENE_BOX), mode="nearest") for x in (seen, np.square(seen)))
        splines = np.stack([spline_filter(plane, 3, output=np.float32, mode="mirror") for plane in seen])
        return cls(window, splines, np.maximum(square - np.square(mean), 0))

    @property
    def coarse(self) -> Window:
        """The window in pixels of the sensor."""
        return Window(
            *(side // FINE_PIXELS for side in (self.window.y0, self.window.y1, self.window.x0, self.window.x1))
        )

    def read_samples(self, burst: SampledBurst, k: int) -> FrameSamples | None:
        """Read the samples of the k-th frame that may show this window; None where there are none."""
        there = burst.locate_window(k, self.coarse)
        if min(there.size) <= 0:
            return None
        light = burst.spool.read_window(burst.frames[k], there)[0]
        places = np.empty((2, *there.size), np.float32)
        predictions, spreads = np.empty(there.size, np.float32), np.empty(there.size, np.float32)
        sample_sums.predict_samples(self._model(burst, k, there), places, predictions, spreads)
        inside = np.isfinite(predictions)
        return FrameSamples(there, places, light, np.where(inside, predictions, np.float32(0)), spreads, inside)

    def add_motion_equations(
        self, burst: SampledBurst, k: int, scale: float, equations: npt.NDArray[np.float64]
    ) -> None:
        """Add what the k-th frame's samples in this window say of its motion (sample_sums.add_motion_equations)."""
        there = burst.locate_window(k, self.coarse)
        if min(there.size) <= 0:
            return
        light = burst.spool.read_window(burst.frames[k], there)[0]
        model = self._model(burst, k, there)
        sample_sums.add_motion_equations(model, light, burst.frame_noise(k), scale, equations)

    def _model(self, burst: SampledBurst, k: int, there: Window) -> sample_sums.SampleModel:
        """Return what the kernels need to know of the samples of the k-th frame in a window of it."""
        placement, corner = burst.placement, (there.y0, there.x0)
        placed = (placement.fine[k], placement.turns[k], burst.colours, corner)
        return sample_sums.SampleModel(*placed, self.splines, self.texture, (self.window.y0, self.window.x0))
