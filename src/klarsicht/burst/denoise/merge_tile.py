"""One tile of a burst from the spool to the result: aligned, weighed, filtered, trusted, mixed, written.

Axes: N frames, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from klarsicht.burst.align.tiled import STEP, Placement
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.denoise import motion_check, sure, tiles
from klarsicht.burst.denoise.filters import Filter, MeanFilter, Weighing, in_groups
from klarsicht.burst.denoise.motion_check import Map
from klarsicht.burst.denoise.residual_noise import sums
from klarsicht.burst.denoise.sure import LightEstimate
from klarsicht.burst.denoise.tiles import Tile, Told
from klarsicht.burst.network.unet import Part
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

ESTIMATES = ("burst", "mean", "alone")
"""What a picture is made of, the best first: the filtered burst, the mean of the frames where they agree, the filtered
reference alone; the rest is the reference as it is. `trust` says which are tried, `risk` how much is taken."""


Observer = Callable[[Tile, Weighing], Told]
"""What it tells (plain JSON values) is kept with the tile."""

Made = tuple[LightEstimate, Planes | None]
"""An estimate, and what its weights leave of noise."""


@dataclass(frozen=True, eq=False)
class Merge:
    """frames: numbers in the spool, the reference first; gains: what each was multiplied by; noise: of a frame of gain
    1, one level a channel. result: (1, C + 1, H, W), the picture and, last, how far the burst was trusted. sampled: the
    tiles through which noise is sent. observe: is shown the weights of each tile (of the first group of frames)."""

    spool: FrameStore
    result: FrameStore
    placement: Placement
    frames: Sequence[int]
    gains: Sequence[float]
    noise: Sequence[NoiseLevel]
    filter: Filter
    limits: motion_check.Limits
    strength: float
    sampled: Sequence[int]
    observe: Observer | None = None

    def __call__(self, tile: Tile) -> Told:
        reference = self.spool.window(self.frames[0], tile.near)
        estimates = Estimates(self, tile, reference)
        verdict = motion_check.judge(reference, estimates.all, self.noise_of(0), self.limits)
        verdict = sure.weighed(verdict, reference, estimates.made, self.noise_of(0), self.limits)
        picture = self._mixed(verdict, estimates.light, reference)
        inside = (slice(None), *tile.own.inside(tile.near))
        trusted = verdict.shares[:2].sum(0, keepdims=True)
        self.result.put_window(0, tile.own, np.concatenate([picture / np.float32(self.gains[0]), trusted])[inside])
        told = self._told(verdict, estimates.light[0], reference, inside) | estimates.observed
        if tile.number not in self.sampled:
            return told
        remains = self._mixed(verdict, estimates.noise, self.noise_alone(tile, 0, picture))
        here = picture[inside] / np.float32(self.gains[0])
        return told | {"noise": sums(remains[inside] / np.float32(self.gains[0]), here).tolist()}

    def noise_of(self, frame: int) -> list[NoiseLevel]:
        return [level.amplified(self.gains[frame]) for level in self.noise]

    def noise_alone(self, tile: Tile, frame: int, light: Planes) -> Planes:
        """Of one frame, as it would have been over some light; the same at each call."""
        z = generator(0, "remaining noise", tile.number, frame).standard_normal(light.shape, np.float32)
        planes = zip(self.noise_of(frame), light, z, strict=True)
        return np.stack([level.deviation(x) * n for level, x, n in planes]).astype(np.float32)

    def _mixed(
        self, verdict: motion_check.MotionCheck, estimates: Sequence[Planes | None], reference: Planes
    ) -> Planes:
        trusted = verdict.mixed(estimates, reference)
        picture: Planes = reference + np.float32(self.strength) * (trusted - reference)
        return picture

    def _told(
        self, verdict: motion_check.MotionCheck, merged: Planes | None, reference: Planes, inside: Any
    ) -> dict[str, Any]:
        assert merged is not None
        r, variance, counted = motion_check.residual(reference, merged, self.noise_of(0), self.limits)
        ratio = (r.square() / variance)[counted]
        shares = [float(share[inside[1:]].mean()) for share in verdict.shares]
        pixels = int(verdict.shares[0][inside[1:]].size)
        return {
            **dict.fromkeys(ESTIMATES, 0.0),
            **dict(zip(ESTIMATES, shares, strict=False)),
            "pixels": pixels,
            "residual": float(ratio.mean()) if len(ratio) else 0.0,
        }


class Estimates:
    """Of one tile, each made when it is asked for, and kept: `made`, in the order of ESTIMATES; `noise`: what the same
    weights leave of noise alone, in sampled tiles."""

    def __init__(self, merge: Merge, tile: Tile, reference: Planes) -> None:
        self.merge, self.tile, self.reference = merge, tile, reference
        self.groups = in_groups(merge.filter, len(merge.frames))
        self.made: list[LightEstimate | None] = [None] * len(ESTIMATES)
        self.noise: list[Planes | None] = [None] * len(ESTIMATES)
        self.observed: dict[str, Any] = {}

    @property
    def light(self) -> list[Planes | None]:
        return [None if estimate is None else estimate.light for estimate in self.made]

    @property
    def all(self) -> tuple[Callable[[Map], Planes], ...]:
        """Of one frame, the first is the last."""
        makers = (self.burst, self.mean, self.single) if len(self.merge.frames) > 1 else (self.burst,)
        return tuple(partial(self._keep, k, make) for k, make in enumerate(makers))

    def _keep(self, k: int, make: Callable[[Map], Made], doubted: Map) -> Planes:
        made, self.noise[k] = make(doubted)
        self.made[k] = made
        return made.light

    def burst(self, everywhere: Map) -> Made:
        return self._merged(self.merge.filter, self.merge.observe)

    def mean(self, doubted: Map) -> Made:
        return self._merged(MeanFilter())

    def single(self, doubted: Map) -> Made:
        """The filtered reference alone, around what is doubted; itself elsewhere."""
        merge, near = self.merge, self.tile.near
        here = around(doubted > 0, near, motion_check.MARGIN + merge.filter.reach)
        window = here.grown(tiles.stepped(merge.filter.halo)).common(self.tile.window)
        frames = merge.spool.window(merge.frames[0], window)[None]
        everywhere, inside = np.ones((1, *window.size), np.float32), here.inside(near)
        weighing = merge.filter.weigh(frames, merge.noise_of(0), everywhere, here.inside(window))
        light, centre = self.reference.copy(), np.ones_like(self.reference[0])
        light[:, *inside], centre[inside] = weighing(), weighing.centre
        if self.tile.number not in merge.sampled:
            return LightEstimate(light, centre, others=False), None
        left = merge.noise_alone(self.tile, 0, light)
        left[:, *inside] = weighing(left[None, :, *inside])
        return LightEstimate(light, centre, others=False), left

    def _merged(self, inner: Filter, observe: Observer | None = None) -> Made:
        """The mean of what each group of frames gives."""
        parts = [self._of_group(group, inner, observe if group is self.groups[0] else None) for group in self.groups]
        sizes = np.array([max(1, len(group) - 1) for group in self.groups], np.float32)
        light, centre, left = (weighted(each, sizes / sizes.sum()) for each in zip(*parts, strict=True))
        assert light is not None and centre is not None
        return LightEstimate(light, centre, others=len(self.merge.frames) > 1), left

    def _of_group(self, group: list[int], inner: Filter, observe: Observer | None) -> tuple[Planes, Map, Planes | None]:
        """Its light, the part of the reference's own pixel, and what is left of noise."""
        merge, (window, part) = self.merge, self._seen_by(inner)
        placed = merge.placement.only(group)
        frames = placed.aligned(merge.spool, [merge.frames[k] for k in group], window)
        weighing = inner.weigh(frames, merge.noise_of(0), placed.agreement(window, merge.spool.size), part)
        del frames
        if observe is not None:
            self.observed |= observe(self.tile, weighing)
        light = weighing()
        return light, weighing.centre, self._left(weighing, placed, group, light)

    def _seen_by(self, inner: Filter) -> tuple[Window, Part]:
        """What must be read for a filter, and which part of it is weighed."""
        window = self.tile.window if inner.halo else self.tile.near
        return window, self.tile.near.inside(window)

    def _left(self, weighing: Weighing, placed: Placement, group: Sequence[int], light: Planes) -> Planes | None:
        """Of noise over that light, as it is when frames were read."""
        if self.tile.number not in self.merge.sampled:
            return None
        noise = (self.merge.noise_alone(self.tile, k, light) for k in group)
        return weighing(np.stack([placed.between(alone, n, self.tile.near) for n, alone in enumerate(noise)]))


def around(where: npt.NDArray[np.bool_], near: Window, margin: int) -> Window:
    """The window around what is marked (h, w) of what is near, with a margin; begins where windows may."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    y0, x0 = (int(marked[0]) - margin for marked in (rows, columns))
    y1, x1 = (int(marked[-1]) + 1 + margin for marked in (rows, columns))
    begun = Window(y0 // STEP * STEP, y1, x0 // STEP * STEP, x1)
    return begun.moved(near.y0, near.x0).common(near)


def weighted(
    parts: Sequence[npt.NDArray[np.float32] | None], shares: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32] | None:
    """Their mean; None where they are none."""
    known = [part * share for part, share in zip(parts, shares, strict=True) if part is not None]
    return sum(known[1:], known[0]) if known else None


def remaining(told: Sequence[Told]) -> list[npt.NDArray[np.float64]]:
    return [np.array(tile["noise"]) for tile in told if "noise" in tile]
