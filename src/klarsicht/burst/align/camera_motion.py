"""Motion of a camera between the frames of a burst as one smooth field a frame: shift, turn, zoom and tilt.

A camera that turns by small angles, or zooms, moves the content at (y, x), in coordinates from the middle, by

    d_y = a_0 + a_1 y + a_2 x + y (g y + h x),    d_x = b_0 + b_1 y + b_2 x + x (g y + h x)

(Longuet-Higgins and Prazdny 1980). The eight numbers are fitted by Gauss-Newton steps towards the mean of the other
frames (Lucas and Kanade 1981), coarse to fine, with less weight where the difference is large. Where a field
gains little over a shift alone, the shift stays. Frames are filtered by `matched_filter`.
Places and shifts (..., 2) are (y, x) in pixels of the whole frames; K = 8 numbers, p pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

from klarsicht.burst.align.matched_filter import apply_matched_filter, estimate_spectrum
from klarsicht.burst.data.burst import REFERENCE

REDUCTIONS = (8, 4, 2, 1)  # sizes at which frames are fitted, coarse first: one pixel of so many
LEAST_SIDE = 24  # pixels of a level
FINEST_PIXELS = 1 << 16  # of the finest level at most, so that the cost does not grow with the picture
MOST_STEPS, CONVERGED = 6, 0.03  # steps at a level at most; a step in its pixels that is the last
FIELD_PRIOR = (0.0, 3e-3, 3e-3, 0.0, 3e-3, 3e-3, 0.03, 0.03)  # of the mean information of a number, that it is 0
DAMPING = 1e-3  # of a number's information
SHIFT, FIELD = [0, 3], [1, 2, 4, 5, 6, 7]  # numbers of the shift, and those beside it
DIFFERENCE_BOX = 9  # side of a window
TOLERANCE = 3.0  # medians: its squared difference at which its weight is a half
LEAST_GAIN = 15.0  # of log-likelihood by the six numbers that a field has beside its shift
NUMBERS = 8


@dataclass(frozen=True)
class CameraMotion:
    """Fields of frames of that size (H, W). numbers: (N, 8), a_0, a_1, a_2, b_0, b_1, b_2, g, h in units of half the
    longer side. Aligned frames show at p what the frame shows at p + shifts(p)."""

    numbers: Tensor
    size: tuple[int, int]

    @classmethod
    def from_shifts(cls, whole: Tensor, size: tuple[int, int]) -> CameraMotion:
        """Build the motion of frames that are shifted by (N, 2) pixels."""
        numbers = torch.zeros(len(whole), NUMBERS, dtype=torch.float64, device=whole.device)
        numbers[:, 0], numbers[:, 3] = whole.double().T / (max(size) / 2)
        return cls(numbers, size)

    @property
    def unit(self) -> float:
        """Half the longer side, in pixels."""
        return max(self.size) / 2

    @property
    def is_shift(self) -> Tensor:
        """Whether each field (N,) is a shift and no more."""
        return (self.numbers[:, FIELD] == 0).all(1)

    def shifts(self, places: Tensor) -> Tensor:
        """Compute the shifts (N, ..., 2) at places (..., 2)."""
        return self.unit * torch.einsum("...dk,nk->n...d", self.design(places), self.numbers)

    def turns(self, places: Tensor) -> Tensor:
        """Compute the derivatives (N, ..., 2, 2) of the shifts (first axis) by the place (second)."""
        y, x = self._scale_places(places).unbind(-1)
        _, a1, a2, _, b1, b2, g, h = (one.reshape(-1, *[1] * y.ndim) for one in self.numbers.unbind(1))
        down = torch.stack((a1 + 2 * g * y + h * x, a2 + h * y), -1)
        across = torch.stack((b1 + g * x, b2 + g * y + 2 * h * x), -1)
        return torch.stack((down, across), -2)

    def design(self, places: Tensor) -> Tensor:
        """Compute the regressors (..., 2, 8) of both components at places (..., 2)."""
        y, x = self._scale_places(places).unbind(-1)
        one, no = torch.ones_like(y), torch.zeros_like(y)
        down = torch.stack((one, y, x, no, no, no, y * y, y * x), -1)
        return torch.stack((down, torch.stack((no, no, no, one, y, x, x * y, x * x), -1)), -2)

    def _scale_places(self, places: Tensor) -> Tensor:
        middle = (torch.tensor(self.size, dtype=places.dtype, device=places.device) - 1) / 2
        return (places - middle) / self.unit


def fit_camera_motion(small: Tensor, whole: Tensor, factor: int, size: tuple[int, int]) -> CameraMotion:
    """Fit the motion of frames of a size (H, W) to guides (N, h, w), means of factor x factor pixels with noise of
    deviation 1. whole: shifts (N, 2) in pixels of the whole frames, from which the fit starts, and which a frame keeps
    to the bit where a field is not clearly better: whole pixels stay whole, and nothing is read between them."""
    start = motion = CameraMotion.from_shifts(whole, size)
    h, w = small.shape[-2:]
    levels = [level for level in REDUCTIONS if min(h, w) >= LEAST_SIDE * level and h * w <= FINEST_PIXELS * level**2]
    if not levels:
        return start
    for level in levels:
        pyramid = Level.reduce(small, level, factor, motion)
        for step in range(MOST_STEPS):
            motion, change = pyramid.improve(motion, reference_only=level == levels[0] and step == 0)
            if change < CONVERGED:
                break
    return choose(motion, start, pyramid.field_gains(motion) > LEAST_GAIN)


def choose(one: CameraMotion, other: CameraMotion, where: Tensor) -> CameraMotion:
    """Return the fields of one motion for the marked frames (N,), and of another for the rest."""
    return replace(one, numbers=torch.where(where[:, None], one.numbers, other.numbers))


@dataclass(frozen=True, eq=False)
class Level:
    """Reduced, filtered frames (N, h, w), places (h, w, 2) of their pixels in whole ones, regressors (h w, 2, K)."""

    frames: Tensor
    factor: int
    places: Tensor
    design: Tensor

    @classmethod
    def reduce(cls, small: Tensor, level: int, factor: int, motion: CameraMotion) -> Level:
        """Reduce guides (N, h, w) of noise 1 by a further factor, which keeps their noise, and filter them."""
        light, N = avg_pool2d(small[None], level) * level, len(small)
        spectrum = estimate_spectrum(light, torch.ones(1, N, dtype=torch.bool, device=light.device))
        seen = apply_matched_filter(light, spectrum, torch.tensor([1 / max(1, N - 1)], device=light.device))[0]
        y, x = (torch.arange(n, dtype=torch.float64, device=light.device) for n in light.shape[-2:])
        places = (torch.stack(torch.meshgrid(y, x, indexing="ij"), -1) + 0.5) * (factor * level) - 0.5
        return cls(seen, factor * level, places, motion.design(places).float().flatten(0, 1))

    def improve(self, motion: CameraMotion, reference_only: bool = False) -> tuple[CameraMotion, float]:
        """Take one Gauss-Newton step; return how far it moved a pixel at most, in pixels of the level. reference_only:
        compare with the reference, not with the mean of all other frames."""
        trial, N = motion.numbers.clone(), len(self.frames)
        own_share = 1.0 if reference_only else 1 - 1 / N  # the rest of a difference is the error of the others' mean
        for k, (information, right, _) in enumerate(self._normal_equations(motion, reference_only)):
            if reference_only and k == REFERENCE:
                continue
            own = information.diagonal()
            prior = own.mean() * torch.tensor(FIELD_PRIOR, dtype=torch.float64)
            right = right - prior * motion.numbers[k] * motion.unit
            step = torch.linalg.solve(information + torch.diag(DAMPING * own + prior + 1e-9), right)
            trial[k] += own_share * step / motion.unit
        trial = trial - trial[REFERENCE]
        corners = self.places[:: len(self.places) - 1, :: self.places.shape[1] - 1]
        moved = replace(motion, numbers=trial - motion.numbers).shifts(corners)
        return replace(motion, numbers=trial), float(moved.abs().max()) / self.factor

    def field_gains(self, motion: CameraMotion) -> Tensor:
        """Compute by how much each frame's log-likelihood (N,) is higher with the six numbers of its field: half their
        square in units of their covariance, whatever the shift (Wald 1943)."""
        gains = torch.zeros(len(self.frames), dtype=torch.float64)
        for k, (_, _, information) in enumerate(self._normal_equations(motion, reference_only=False)):
            own, cross = information[FIELD][:, FIELD], information[SHIFT][:, FIELD]
            of_shift = information[SHIFT][:, SHIFT] + 1e-9 * torch.eye(len(SHIFT), dtype=torch.float64)
            field = motion.numbers[k, FIELD]
            gains[k] = motion.unit**2 * field @ (own - cross.T @ torch.linalg.solve(of_shift, cross)) @ field / 2
        return gains

    def _normal_equations(self, motion: CameraMotion, reference_only: bool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield information (K, K) and right side (K,) of the change of each frame's numbers, in pixels of the whole
        frames, where its difference from the others has noise of variance 1; and the information without that of the
        noise in the slopes, which the slopes of the difference tell."""
        image, inside = self.warp(motion)
        weights = torch.full((len(image), 1, 1), 1e-3 if reference_only else 1.0)
        weights[REFERENCE] = 1
        for k, one in enumerate(image):
            mean, known = mean_of_others(image, inside * weights, k)
            difference = mean - one
            square = pad(difference.square()[None, None], [DIFFERENCE_BOX // 2] * 4, mode="reflect")
            square = avg_pool2d(avg_pool2d(square, (DIFFERENCE_BOX, 1), 1), (1, DIFFERENCE_BOX), 1)[0, 0]
            weight = inside[k] * known / (1 + (square / (TOLERANCE * square.median().clamp(min=1e-12))).square())
            J, other = self._slopes((mean + one) / 2), self._slopes(difference / 2)
            weighted_rows = J * weight.reshape(-1, 1)
            information = (weighted_rows.T @ J).double() / self.factor**2
            of_noise = ((other * weight.reshape(-1, 1)).T @ other).double() / self.factor**2
            right = (weighted_rows.T @ difference.reshape(-1)).double() / self.factor
            yield information, right, information - of_noise

    def _slopes(self, picture: Tensor) -> Tensor:
        """Compute the derivatives (p, K) of a picture by the numbers, in pixels of the level."""
        slope = gradient(picture).flatten(0, 1)
        return slope[:, :1] * self.design[:, 0] + slope[:, 1:] * self.design[:, 1]

    def warp(self, motion: CameraMotion) -> tuple[Tensor, Tensor]:
        """Warp the frames by cubic convolution; and where they show something, (N, h, w)."""
        h, w = self.frames.shape[-2:]
        ends = torch.tensor((h - 1, w - 1), dtype=torch.float64, device=self.frames.device)
        there = (self.places + motion.shifts(self.places) + 0.5) / self.factor - 0.5
        grid = (2 * there / ends - 1).flip(-1).to(self.frames.dtype)
        warped = grid_sample(self.frames[:, None], grid, "bicubic", "border", align_corners=True)[:, 0]
        return warped, ((there >= 0) & (there <= ends)).all(-1).to(self.frames.dtype)


def mean_of_others(frames: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Compute the weighted mean (h, w) of all frames but one, and whether any is there."""
    total, sum_ = (frames * weights).sum(0) - frames[k] * weights[k], weights.sum(0) - weights[k]
    return total / sum_.clamp(min=1e-6), (sum_ > 1e-4).to(frames.dtype)


def gradient(picture: Tensor) -> Tensor:
    """Compute central differences (h, w, 2) down and across; 0 at the border."""
    down = pad((picture[2:] - picture[:-2]) / 2, (0, 0, 1, 1))
    return torch.stack((down, pad((picture[:, 2:] - picture[:, :-2]) / 2, (1, 1))), -1)
