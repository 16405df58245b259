"""Find the window of a known artifact in one image, and take it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate

from klarsicht.audit.verdicts.interventions.artifact_examples import AGREE, ArtifactExamples, grow_window
from klarsicht.ground.arrays import Bools, Doubles, Floats, Pixels
from klarsicht.numerics.imaging.harmonic_fill import fill_harmonically

SEARCH_REACH: Final = 2  # pixels beyond the places that carriers show, within which a window is searched
WINDOW_MARGIN: Final = 1  # pixels around a window that are taken out with it


@dataclass(frozen=True)
class CarrierTemplate:
    """Window of an artifact as its carriers show it. values: (h, w, C), median over carriers, 0 to 255. plain: (h, w,
    C), mean over other images at the same places. is_shared: bool (h, w), pixels at which carriers agree. low, high:
    int (2,), the least and the largest upper left corner at which the window is searched."""

    values: Doubles
    plain: Doubles
    is_shared: Bools
    low: NDArray[np.intp]
    high: NDArray[np.intp]

    @classmethod
    def of(cls, examples: ArtifactExamples) -> CarrierTemplate:
        """Estimate the window from carriers; its box is grown to the whole artifact."""
        whole = grow_window(examples)
        own, other = (crop_windows(stack, whole) for stack in (whole.carriers, whole.others))
        spread = [np.median(np.abs(crops - np.median(crops, 0)), 0).mean(-1) for crops in (own, other)]
        is_shared = spread[0] < AGREE * spread[1]
        last = np.array(whole.carriers.shape[1:3]) - whole.extent
        return cls(
            np.median(own, 0), other.mean(0), is_shared if is_shared.any() else np.ones_like(is_shared),
            np.maximum(whole.places.min(0) - SEARCH_REACH, 0), np.minimum(whole.places.max(0) + SEARCH_REACH, last),
        )  # fmt: skip

    @property
    def extent(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    def match(self, levels: Pixels) -> tuple[float, tuple[int, int]]:
        """Return the largest similarity of a place in an image (H, W, C), and its upper left corner."""
        alike = self.similarities(levels)
        best = np.unravel_index(alike.argmax(), alike.shape)
        return float(alike[best]), (int(best[0] + self.low[0]), int(best[1] + self.low[1]))

    def similarities(self, levels: Pixels) -> Doubles:
        """Compute the similarity of the window and every place that is searched, -1 to 1.

        It is 2 <x, t> / (<x, x> + <t, t>) over shared pixels, x the place and t the window, either less the mean of
        other images: 1 where they are equal, near 0 where the place is flat, or of another pattern or contrast.
        """
        (a, b), (c, d) = self.low, self.high + self.extent
        x = levels[a:c, b:d].astype(np.float64)
        mask = np.repeat(self.is_shared[..., None], x.shape[2], 2).astype(np.float64)
        plain, window = mask * self.plain, mask * (self.values - self.plain)
        product = correlate(x, window, "valid")[..., 0] - (plain * window).sum()
        energy = correlate(x**2, mask, "valid") - 2 * correlate(x, plain, "valid") + (plain**2).sum()
        return np.asarray(2 * product / np.maximum(np.maximum(energy[..., 0], 0) + (window**2).sum(), 1.0))

    def take_out(self, levels: Pixels, place: tuple[int, int]) -> Pixels:
        """Fill the window at a place of an image (H, W, C), and WINDOW_MARGIN around it, from its surroundings."""
        mask = np.zeros(levels.shape[:2], bool)
        (a, b), (h, w) = place, self.extent
        mask[max(a - WINDOW_MARGIN, 0) : a + h + WINDOW_MARGIN, max(b - WINDOW_MARGIN, 0) : b + w + WINDOW_MARGIN] = (
            True
        )
        return fill_harmonically(levels, mask)


def crop_windows(images: Pixels, examples: ArtifactExamples) -> Floats:
    """Cut windows (n, h, w, C) out of images (n, H, W, C); of images without the artifact, at the carriers' places."""
    h, w = examples.extent
    places = np.resize(examples.places, (len(images), 2))
    return np.stack([x[a : a + h, b : b + w] for x, (a, b) in zip(images, places, strict=True)]).astype(np.float64)


def take_out_border(levels: Pixels, widths: tuple[int, int, int, int]) -> Pixels:
    """Replace the border of an image (H, W, C), of such widths at each side, by the nearest pixel inside it."""
    top, bottom, left, right = widths
    inside = levels[top : levels.shape[0] - bottom, left : levels.shape[1] - right]
    return np.pad(inside, ((top, bottom), (left, right), (0, 0)), mode="edge")
