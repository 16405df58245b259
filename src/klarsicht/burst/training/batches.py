"""Training batches by their number: synthetic bursts, aligned by the production aligner, flipped and rotated.

Alignment costs more than a step of a small network, so each batch serves several steps, not in a row, in another
orientation each time. Its content depends only on the seed, the step and the rank.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from klarsicht.burst.align.interpolated import align_by_colour_filter
from klarsicht.burst.synthesis.motion import TRAINING_MOTIONS
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.burst.synthesis.synthesis import Recipe, draw_batch
from klarsicht.ground.seeding import generator

Library = tuple[Light, ...]

POOL = 16  # batches between two uses of the same one
TURNS = 8  # rotations and reflections of a square


class TrainingBatch(NamedTuple):
    """A batch of aligned bursts as the network takes it."""

    frames: Tensor  # B N C H W, on the reference
    agreement: Tensor  # B N H W
    truth: Tensor  # B C H W
    exposure: Tensor  # B
    read: Tensor
    shot: Tensor
    valid: Tensor  # B N

    def transform(self, turn: int) -> TrainingBatch:
        """Apply one of the eight rotations and reflections of square frames."""
        frames, agreement, truth = (_transform(x, turn) for x in (self.frames, self.agreement, self.truth))
        return self._replace(frames=frames, agreement=agreement, truth=truth)


class BatchStream:
    """Deterministic source of batches. recipes: one is drawn for each batch of `size`. uses: steps that a batch serves.
    turns: 8, or 1 where frames may not be rotated (planes would be those of another colour filter)."""

    def __init__(
        self, library: Library, recipes: tuple[Recipe, ...], size: int, seed: int, uses: int, turns: int = TURNS
    ) -> None:
        self.library, self.recipes, self.size = library, recipes, size
        self.seed, self.uses, self.turns = seed, uses, turns
        self._kept = lru_cache(2 * POOL)(lambda index, rank: SharedBatch(lambda: self.draw(index, rank)))

    def batch(self, step: int, rank: int) -> TrainingBatch:
        turn = int(generator(self.seed, "turns", step, rank).integers(self.turns))
        return self._kept(batch_number(step, self.uses), rank).value().transform(turn)

    def draw(self, index: int, rank: int) -> TrainingBatch:
        """Draw and align the batch of that number."""
        rng = generator(self.seed, "data", index, rank)
        return draw_aligned_batch(self.library, self.recipes[rng.integers(len(self.recipes))], rng, self.size)


class SharedBatch:
    """Batch that the first thread computes while the others wait for it."""

    def __init__(self, make: Callable[[], TrainingBatch]) -> None:
        self._make, self._lock, self._made = make, threading.Lock(), list[TrainingBatch]()

    def value(self) -> TrainingBatch:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
        return self._made[0]


def batch_number(step: int, uses: int) -> int:
    """Compute the batch number of a step: POOL new ones, then the same again until each was used `uses` times."""
    cycle, within = divmod(step, POOL * uses)
    return cycle * POOL + within % POOL


def typical_steps(uses: int) -> list[int]:
    """List steps with as few new batches as a long run has: all those of four batches."""
    return [batch + POOL * use for batch in range(4) for use in range(uses)]


def draw_aligned_batch(library: Library, recipe: Recipe, rng: np.random.Generator, size: int) -> TrainingBatch:
    """Draw a batch of synthetic bursts, and align it."""
    drawn = map(torch.from_numpy, draw_batch(library, recipe, rng, size))
    frames, truth, exposure, read, shot, valid = drawn
    alignment = align_by_colour_filter(frames, read, shot, valid, recipe.mosaic)
    return TrainingBatch(alignment.apply(frames), alignment.agreement(), truth, exposure, read, shot, valid)


def vary_recipe(recipe: Recipe, motions: tuple[str, ...]) -> tuple[Recipe, ...]:
    """Combine the recipe with every motion, once with all frames and once with any number of them."""
    moving = [replace(recipe, motion=TRAINING_MOTIONS[name]) for name in motions]
    return tuple(replace(r, min_frames=fewest) for r in moving for fewest in (recipe.frames, 1))


def _transform(x: Tensor, turn: int) -> Tensor:
    axes = [axis for axis, bit in ((-2, 1), (-1, 2)) if turn & bit]
    x = x.flip(axes) if axes else x
    return (x.transpose(-1, -2) if turn & 4 else x).contiguous()
