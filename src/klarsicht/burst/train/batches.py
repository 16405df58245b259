"""Batches for training by their number: synthetic bursts drawn, aligned by the real aligner, and turned.

Alignment costs more than a step of a small network, so each batch serves several steps, not in a row, and is turned
another way each time. Nothing but the seed, the step and the rank decides what is in a batch.
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

from klarsicht.burst.align.alignment import align
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.burst.synthesis.synthesis import Recipe, draw_batch
from klarsicht.ground.seeding import generator

Library = tuple[Light, ...]

POOL = 16  # batches between two uses of the same
TURNS = 8


class Aligned(NamedTuple):
    """A batch as the network takes it; B bursts, N frames, C channels, H W pixels."""

    frames: Tensor  # B N C H W, on the reference
    agreement: Tensor  # B N H W
    truth: Tensor  # B C H W
    exposure: Tensor  # B
    read: Tensor
    shot: Tensor
    valid: Tensor  # B N

    def turned(self, turn: int) -> Aligned:
        """One of the eight ways to turn and mirror square frames."""
        frames, agreement, truth = (_turned(x, turn) for x in (self.frames, self.agreement, self.truth))
        return self._replace(frames=frames, agreement=agreement, truth=truth)


class BatchStream:
    """recipes: one is drawn for each batch of `size`. uses: steps that a batch serves. turns: 8, or 1 where frames may
    not be turned (a mosaic's planes would be those of another filter)."""

    def __init__(
        self, library: Library, recipes: tuple[Recipe, ...], size: int, seed: int, uses: int, turns: int = TURNS
    ) -> None:
        self.library, self.recipes, self.size = library, recipes, size
        self.seed, self.uses, self.turns = seed, uses, turns
        self._kept = lru_cache(2 * POOL)(lambda index, rank: Once(lambda: self.drawn(index, rank)))

    def batch(self, step: int, rank: int) -> Aligned:
        turn = int(generator(self.seed, "turns", step, rank).integers(self.turns))
        return self._kept(number(step, self.uses), rank).value().turned(turn)

    def drawn(self, index: int, rank: int) -> Aligned:
        """The batch of that number, as it is drawn and aligned."""
        rng = generator(self.seed, "data", index, rank)
        return aligned(self.library, self.recipes[rng.integers(len(self.recipes))], rng, self.size)


class Once:
    """A value that the first thread makes and the others wait for."""

    def __init__(self, make: Callable[[], Aligned]) -> None:
        self._make, self._lock, self._made = make, threading.Lock(), list[Aligned]()

    def value(self) -> Aligned:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
        return self._made[0]


def number(step: int, uses: int) -> int:
    """Which batch a step gets: POOL new ones, then the same again until each was used `uses` times."""
    cycle, within = divmod(step, POOL * uses)
    return cycle * POOL + within % POOL


def typical(uses: int, batches: int = 4) -> list[int]:
    """Steps that make new batches as seldom as a long run does: all those of a few batches."""
    return [batch + POOL * use for batch in range(batches) for use in range(uses)]


def aligned(library: Library, recipe: Recipe, rng: np.random.Generator, size: int) -> Aligned:
    drawn = draw_batch(library, recipe, rng, size)
    frames, read, shot, valid = (torch.from_numpy(x) for x in (drawn.frames, drawn.read, drawn.shot, drawn.valid))
    alignment = align(frames, read, shot, valid)
    truth, exposure = torch.from_numpy(drawn.truth), torch.from_numpy(drawn.exposure)
    return Aligned(alignment.apply(frames), alignment.agreement(), truth, exposure, read, shot, valid)


def variety(recipe: Recipe, motions: tuple[str, ...]) -> tuple[Recipe, ...]:
    """The recipe in every motion, once with all frames and once with any number of them."""
    moving = [replace(recipe, motion=MOTIONS[name]) for name in motions]
    return tuple(replace(r, fewest=fewest) for r in moving for fewest in (recipe.frames, 1))


def _turned(x: Tensor, turn: int) -> Tensor:
    axes = [axis for axis, bit in ((-2, 1), (-1, 2)) if turn & bit]
    x = x.flip(axes) if axes else x
    return (x.transpose(-1, -2) if turn & 4 else x).contiguous()
