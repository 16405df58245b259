"""Locate an artifact in the activations of each image, and fill its window from its surroundings, without training.

An artifact whose place varies has no direction that could be erased at every position. So each window of the input of a
layer gets a score

    s = sum over the window of K (a - z)

by a linear discriminant K = S^-1 (mean with the artifact - mean of clean windows). Windows above a threshold that
hardly any clean image reaches are filled by normalised convolution (Knutsson and Westin 1993): every position becomes
the mean of its known neighbours, from the edge of the window inwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, pad

from klarsicht.audit.cleaning.corrections.clarc import change_activations
from klarsicht.audit.explanation.networks.hooks import arrange_in_grid
from klarsicht.ground.arrays import Bools, Floats, Ints
from klarsicht.ground.errors import InputError

CHANGED: Final = 0.1  # of the largest change in an image, above which a position belongs to the artifact
MOST_OF_GRID: Final = 0.5  # of the positions that a window may cover
SMALL_WINDOW: Final = 3  # positions a side of the window for artifacts without one shape
FALSE_ALARMS: Final = 0.01  # share of clean images in which a window may be located
WINDOWS_PER_IMAGE: Final = 4  # clean windows, and windows of an artifact without one shape, to fit on
FULL_COVARIANCE: Final = 600  # numbers in a window up to which they have a covariance of their own
MOST_NUMBERS: Final = 8192  # in a window: beyond, a score at every position is slow
COVERED: Final = 0.25  # share of the artifact's positions that must be located
RIDGE_SHARE: Final = 1e-3  # of the mean variance added to every variance
MOST_ACTIVATIONS: Final = 40_000_000  # held at once, clean and with the artifact each
MOST_FITTED: Final = 400  # images to fit on
FEWEST_LOCATED: Final = 0.5  # of the members: where it is located in fewer, most of the effect stays
FEWEST_FITTED: Final = 8


@dataclass(frozen=True)
class FeatureInpainting:
    """Correction that fills located windows of the input of one layer, or of a sum (models.residual_sums). kernel: K,
    float32 (C, h, w). threshold: score above which a window is located. reference: z, float32 (C,), mean of clean
    positions. channels: axis of the channels of an input of four axes, 1 or -1. aspect: height over width of the image,
    by which tokens are arranged in a grid."""

    layer: str
    kernel: NDArray[np.float32]
    threshold: float
    reference: NDArray[np.float32]
    channels: int = 1
    aspect: float = 1.0

    @property
    def parts(self) -> dict[str, Any]:
        """The arrays by their names."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def of_parts(cls, parts: Mapping[str, Any]) -> FeatureInpainting:
        """Make a correction of its arrays."""
        facts = str(parts["layer"]), parts["kernel"], float(parts["threshold"]), parts["reference"]
        return cls(*facts, int(parts["channels"]), float(parts["aspect"]))

    def __call__(self, a: Tensor) -> Tensor:
        """Fill located windows of activations (B, C, H, W), (B, H, W, C) or tokens (B, T, C). Raises InputError: the
        activations have no grid of positions, or other channels."""
        grid = arrange_in_grid(a, self.channels, self.aspect)
        if grid.ndim != 4 or grid.shape[1] != len(self.reference):
            raise InputError(
                "activations that do not fit the correction", got=f"{tuple(a.shape)}",
                rule=f"a grid of positions with {len(self.reference)} channels",
            )  # fmt: skip
        return inpaint_windows(a, *self._arrays(a), self.threshold, self.channels, self.aspect)

    def locate(self, a: Tensor) -> Bools:
        """Find the images in which any window is located, bool (B,), from activations as they are filled."""
        scores = window_scores(arrange_in_grid(a, self.channels, self.aspect), *self._arrays(a))
        return np.asarray((scores.flatten(1).amax(1) > self.threshold).cpu().numpy())

    def _arrays(self, a: Tensor) -> tuple[Tensor, Tensor]:
        kernel, reference = (torch.as_tensor(v, dtype=a.dtype, device=a.device) for v in (self.kernel, self.reference))
        return kernel, reference

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Correct the module inside the context only; its weights do not change."""
        with change_activations(module, self.layer, self):
            yield module


class InpaintingModule(nn.Module):
    """Module that fills located windows, with the arrays of a correction as buffers of device and type of `like`."""

    kernel: Tensor
    reference: Tensor

    def __init__(self, correction: FeatureInpainting, like: Tensor) -> None:
        super().__init__()
        self.threshold, self.channels, self.aspect = correction.threshold, correction.channels, correction.aspect
        for name in ("kernel", "reference"):
            self.register_buffer(name, torch.as_tensor(getattr(correction, name)).to(like.device, like.dtype))

    def forward(self, a: Tensor) -> Tensor:
        """Fill located windows of activations, see FeatureInpainting."""
        return inpaint_windows(a, self.kernel, self.reference, self.threshold, self.channels, self.aspect)


def inpaint_windows(
    a: Tensor, kernel: Tensor, reference: Tensor, threshold: float, channels: int, aspect: float
) -> Tensor:
    """Fill located windows of activations; arguments are those of FeatureInpainting."""
    grid = arrange_in_grid(a, channels, aspect)
    mask = window_mask(window_scores(grid.detach(), kernel, reference) > threshold, kernel.shape[-2:])
    filled = fill_masked(grid, mask, reference, max(kernel.shape[-2:]))
    if a.ndim == 4:
        return filled if channels == 1 else filled.movedim(1, -1)
    before = a.shape[1] - grid.shape[2] * grid.shape[3]
    tokens = filled.flatten(2).movedim(1, 2)
    return torch.cat([a[:, :before], tokens], 1) if before else tokens


def window_scores(grid: Tensor, kernel: Tensor, reference: Tensor) -> Tensor:
    """Compute the score of every window of a grid (B, C, H, W), also of those cut by its edge: (B, 1, H', W')."""
    h, w = kernel.shape[-2:]
    return conv2d(grid - reference[:, None, None], kernel[None], padding=(h // 2, w // 2))


def window_mask(located: Tensor, extent: Sequence[int]) -> Tensor:
    """Return the positions, bool (B, 1, H, W), inside any located window, from located windows (B, 1, H', W')."""
    h, w = extent
    whole = torch.ones(1, 1, h, w, dtype=torch.float32, device=located.device)
    return conv_transpose2d(located.float(), whole, padding=(h // 2, w // 2)) > 0.5


def fill_masked(grid: Tensor, mask: Tensor, reference: Tensor, steps: int) -> Tensor:
    """Fill positions of a mask (B, 1, H, W) in a grid (B, C, H, W), from their surroundings inwards: in each step a
    position that touches known ones becomes the mean of those among its eight neighbours; the rest becomes the
    reference (C,). Positions outside the mask keep their values to the bit."""
    known = (~mask).to(grid.dtype)
    filled = grid * known
    for _ in range(steps):
        around = avg_pool2d(known, 3, 1, 1)
        reached = (around > 0) & (known == 0)
        mean = avg_pool2d(filled, 3, 1, 1) / around.clamp_min(1e-6)
        filled = torch.where(reached, mean, filled)
        known = torch.where(reached, torch.ones_like(known), known)
    filled = torch.where(known == 0, reference[:, None, None], filled)
    return torch.where(mask, filled, grid)


def fit_inpainting(
    layer: str, clean: Tensor, pasted: Tensor, channels: int, aspect: float, rng: np.random.Generator
) -> FeatureInpainting:
    """Fit the locator from the input of a layer on n images without the artifact and with it, (n, C, H, W), (n, H, W,
    C) or tokens (n, T, C). The discriminant is fitted on half of the images. On the others the threshold is set, and of
    two windows the one chosen that covers more of the artifact: the box that it changes, or a small one anywhere on it.
    Raises InputError: the input has no grid, or the artifact is nowhere, nearly everywhere, or cannot be located
    there."""
    plain, under = (arrange_in_grid(a, channels, aspect) for a in (clean, pasted))
    if plain.ndim != 4 or min(plain.shape[2:]) < SMALL_WINDOW or len(plain) < FEWEST_FITTED:
        raise InputError(
            "no grid of positions to locate the artifact in", got=f"{tuple(clean.shape)}",
            rule=f"{SMALL_WINDOW} positions a side, and {FEWEST_FITTED} images", remedy="Choose an earlier --layer.",
        )  # fmt: skip
    changed = changed_positions(plain, under)
    kept = torch.from_numpy(changed.any((1, 2)))
    plain, under, changed = plain[kept], under[kept], changed[kept.numpy()]
    grid = plain.shape[2:]
    if len(plain) < FEWEST_FITTED:
        raise InputError("the artifact changes nothing at this layer", remedy="Choose another --layer.")
    boxes = bounding_boxes(changed)
    extent = np.median(boxes[:, 1] - boxes[:, 0], axis=0).astype(int)
    if extent.prod() > MOST_OF_GRID * grid[0] * grid[1]:
        raise InputError(
            "the artifact is nearly everywhere at this layer",
            got=f"{extent[0]} x {extent[1]} of {grid[0]} x {grid[1]}",
            rule="it must leave surroundings to fill from", remedy="Choose an earlier --layer.",
        )  # fmt: skip
    half = len(plain) // 2
    reference = plain.mean((0, 2, 3))
    corners = np.rint(boxes.mean(1) - extent / 2).astype(int)
    like_most = (np.abs(boxes[:, 1] - boxes[:, 0] - extent) <= 1).all(1)[:half]
    aligned = np.flatnonzero(like_most) if like_most.sum() >= FEWEST_FITTED else np.arange(half)
    small = np.minimum(extent, SMALL_WINDOW)
    inside, at = draw_positions(changed[:half], rng)
    tried = [(extent, aligned, corners[aligned]), (small, inside, at - small // 2)]
    found, best = None, COVERED
    for size, rows, places in tried:
        if plain.shape[1] * size.prod() > MOST_NUMBERS:
            continue
        negative = np.repeat(np.arange(half), WINDOWS_PER_IMAGE)
        anywhere = rng.integers(0, np.maximum(np.array(grid) - size, 0) + 1, (len(negative), 2))
        own = crop_grid(under, rows, places, size, reference)
        other = crop_grid(plain, negative, anywhere, size, reference)
        kernel = torch.from_numpy(window_discriminant(own.numpy(), other.numpy())).to(plain)
        scores = [window_scores(some[half:], kernel, reference) for some in (plain, under)]
        threshold = separating_threshold(*(s.flatten(1).amax(1).numpy() for s in scores))
        mask = window_mask(scores[1] > threshold, kernel.shape[-2:])[:, 0].numpy()
        covered = float((mask & changed[half:]).sum() / changed[half:].sum())
        if covered > best:
            best = covered
            found = FeatureInpainting(layer, kernel.numpy(), threshold, reference.numpy(), channels, aspect)
    if found is None:
        raise InputError(
            "the artifact cannot be located at this layer", rule="windows that hardly any clean image shows",
            remedy="Choose another --layer, or another --method.",
        )  # fmt: skip
    return found


def check_located(correction: FeatureInpainting, members: Tensor) -> None:
    """Check that a locator finds the artifact in members, whose activations (n, ...) are given: the pasted artifact may
    be another thing. Raises InputError: it is located in fewer than FEWEST_LOCATED of them."""
    located = correction.locate(members)
    if located.mean() < FEWEST_LOCATED:
        raise InputError(
            "at this layer, most images with the artifact are not recognised", got=f"{located.sum()} of {len(located)}",
            rule=f"located in {FEWEST_LOCATED:.0%} of them: the others would keep it",
            remedy="Choose another --layer, or another --method; or mark its place by --mask.",
        )  # fmt: skip


def changed_positions(plain: Tensor, under: Tensor) -> Bools:
    """Find the positions that an artifact changes by more than CHANGED of the largest change in the image, bool (n, H,
    W), from grids (n, C, H, W) without and with it."""
    change = (under - plain).abs().sum(1)
    largest = change.amax((1, 2), keepdim=True)
    return np.asarray(((change > CHANGED * largest) & (largest > 1e-6)).numpy())


def bounding_boxes(masks: Bools) -> Ints:
    """Compute first and last + 1 row and column of masks (n, H, W) that are not empty: int (n, 2, 2)."""
    found = [[(side.start, side.stop) for side in find_objects(mask.astype(int))[0]] for mask in masks]
    return np.array(found).transpose(0, 2, 1)


def draw_positions(masks: Bools, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw at most WINDOWS_PER_IMAGE positions of each mask (n, H, W): numbers (m,) of the masks, positions (m, 2)."""
    rows, at = [], []
    for i, mask in enumerate(masks):
        here = np.argwhere(mask)
        chosen = here[rng.permutation(len(here))[:WINDOWS_PER_IMAGE]]
        rows += [i] * len(chosen)
        at.append(chosen)
    return np.array(rows), np.concatenate(at)


def crop_grid(grid: Tensor, rows: Ints, corners: Ints, extent: Ints, reference: Tensor) -> Tensor:
    """Cut windows (m, C, h, w) out of a grid (n, C, H, W), less the reference (C,), with zeros beyond the edge: at
    upper left corners (m, 2) of the images `rows` (m,)."""
    h, w = (int(side) for side in extent)
    wide = pad(grid - reference[:, None, None], (w, w, h, h))
    return torch.stack(
        [wide[i, :, a + h : a + 2 * h, b + w : b + 2 * w] for i, (a, b) in zip(rows, corners, strict=True)]
    )


def window_discriminant(own: Floats, other: Floats) -> NDArray[np.float32]:
    """Compute the linear discriminant K (C, h, w) of windows (m, C, h, w) with the artifact and without, by the shrunk
    covariance within groups (Ledoit and Wolf 2004); windows of more than FULL_COVARIANCE numbers have that of the
    channels at every position (Hariharan et al. 2012), which needs few windows."""
    shape = own.shape[1:]
    difference = own.mean(0) - other.mean(0)
    rest = [side - side.mean(0) for side in (own, other)]
    if np.prod(shape) <= FULL_COVARIANCE:
        S = np.mean([ledoit_wolf(side.reshape(len(side), -1).astype(np.float64))[0] for side in rest], axis=0)
        return np.asarray(_solve(S, difference.ravel()).reshape(shape), np.float32)
    by_channel = [side.transpose(0, 2, 3, 1).reshape(-1, shape[0]).astype(np.float64) for side in rest]
    S = np.mean([ledoit_wolf(side)[0] for side in by_channel], axis=0)
    return np.asarray(_solve(S, difference.reshape(shape[0], -1)).reshape(shape), np.float32)


def _solve(S: Floats, difference: Floats) -> Any:
    ridge = RIDGE_SHARE * max(float(np.trace(S)) / len(S), 1e-12)
    return np.linalg.solve(S + ridge * np.eye(len(S)), difference)


def separating_threshold(clean: Floats, carrying: Floats) -> float:
    """Return the threshold of largest scores of images (n,): exceeded by at most FALSE_ALARMS of the clean ones, and
    midway to the images with the artifact where both are apart."""
    edge = float(np.quantile(clean, 1 - FALSE_ALARMS))
    low = float(np.quantile(carrying, FALSE_ALARMS))
    return max(edge, (edge + low) / 2)
