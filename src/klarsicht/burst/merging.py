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

from klarsicht.burst import risk, trust
from klarsicht.burst.filters import Filter, MeanFilter, Weighing, in_groups
from klarsicht.burst.negatives import Planes
from klarsicht.burst.placing import Placement
from klarsicht.burst.remaining import sums
from klarsicht.burst.risk import Estimate
from klarsicht.burst.spool import Spool
from klarsicht.burst.tiles import Tile, Told
from klarsicht.ground.seeding import generator
from klarsicht.numerics.noise import NoiseLevel

ESTIMATES = ("burst", "mean", "alone")
"""What a picture is made of, the best first: the filtered burst, the mean of the frames where they agree, the filtered
reference alone; the rest is the reference as it is. `trust` says which are tried, `risk` how much is taken."""


Observer = Callable[[Tile, Weighing], Told]
"""What it tells (plain JSON values) is kept with the tile."""


@dataclass(frozen=True, eq=False)
class Merge:
    """frames: numbers in the spool, the reference first; gains: what each was multiplied by; noise: of a frame of gain
    1, one level a channel. result: (1, C + 1, H, W), the picture and, last, how far the burst was trusted. sampled: the
    tiles through which noise is sent. observe: is shown the weights of each tile (of the first group of frames)."""

    spool: Spool
    result: Spool
    placement: Placement
    frames: Sequence[int]
    gains: Sequence[float]
    noise: Sequence[NoiseLevel]
    filter: Filter
    limits: trust.Limits
    strength: float
    sampled: Sequence[int]
    observe: Observer | None = None

    def __call__(self, tile: Tile) -> Told:
        reference = self.spool.window(self.frames[0], tile.window)
        estimates = Estimates(self, tile, reference)
        verdict = trust.judge(reference, estimates.all, self.noise_of(0), self.limits)
        verdict = risk.weighed(verdict, reference, estimates.made, self.noise_of(0), self.limits)
        picture = self._mixed(verdict, estimates.light, reference)
        inside = (slice(None), *tile.own.inside(tile.window))
        trusted = verdict.shares[:2].sum(0, keepdims=True)
        self.result.put_window(0, tile.own, np.concatenate([picture / np.float32(self.gains[0]), trusted])[inside])
        told = self._told(verdict, estimates.light[0], reference, inside) | estimates.observed
        if tile.number not in self.sampled:
            return told
        left = estimates.of_noise(verdict.made, picture)
        remains = self._mixed(verdict, left, self.noise_alone(tile, 0, picture))
        here = picture[inside] / np.float32(self.gains[0])
        return told | {"noise": sums(remains[inside] / np.float32(self.gains[0]), here).tolist()}

    def noise_of(self, frame: int) -> list[NoiseLevel]:
        return [level.amplified(self.gains[frame]) for level in self.noise]

    def noise_alone(self, tile: Tile, frame: int, light: Planes) -> Planes:
        """Of one frame, as it would have been over some light; the same at each call."""
        z = generator(0, "remaining noise", tile.number, frame).standard_normal(light.shape, np.float32)
        planes = zip(self.noise_of(frame), light, z, strict=True)
        return np.stack([level.deviation(x) * n for level, x, n in planes]).astype(np.float32)

    def _mixed(self, verdict: trust.Verdict, estimates: Sequence[Planes | None], reference: Planes) -> Planes:
        trusted = verdict.mixed(estimates, reference)
        picture: Planes = reference + np.float32(self.strength) * (trusted - reference)
        return picture

    def _told(self, verdict: trust.Verdict, merged: Planes | None, reference: Planes, inside: Any) -> dict[str, Any]:
        assert merged is not None
        r, variance, counted = trust.residual(reference, merged, self.noise_of(0), self.limits)
        ratio = (r.square() / variance)[counted]
        shares = {name: float(share[inside[1:]].mean()) for name, share in zip(ESTIMATES, verdict.shares, strict=True)}
        pixels = int(verdict.shares[0][inside[1:]].size)
        return {**shares, "pixels": pixels, "residual": float(ratio.mean()) if len(ratio) else 0.0}


class Estimates:
    """Of one tile, each made when it is asked for, and kept: `made`, in the order of ESTIMATES."""

    def __init__(self, merge: Merge, tile: Tile, reference: Planes) -> None:
        self.merge, self.tile, self.reference = merge, tile, reference
        self.groups = in_groups(merge.filter, len(merge.frames))
        self.made: list[Estimate | None] = [None] * len(ESTIMATES)
        self.alone: Weighing | None = None
        self.observed: dict[str, Any] = {}

    @property
    def light(self) -> list[Planes | None]:
        return [None if estimate is None else estimate.light for estimate in self.made]

    @property
    def all(self) -> tuple[Callable[[], Planes], ...]:
        return tuple(partial(self._keep, k, make) for k, make in enumerate((self.burst, self.mean, self.single)))

    def _keep(self, k: int, make: Callable[[], Estimate]) -> Planes:
        made = self.made[k] = make()
        return made.light

    def burst(self) -> Estimate:
        return self._merged(self.merge.filter, observe=self.merge.observe)

    def mean(self) -> Estimate:
        return self._merged(MeanFilter())

    def single(self) -> Estimate:
        everywhere = np.ones((1, *self.reference.shape[1:]), np.float32)
        self.alone = self.merge.filter.weigh(self.reference[None], self.merge.noise_of(0), everywhere)
        return Estimate(self.alone(self.reference[None]), self.alone.centre)

    def of_noise(self, wanted: Sequence[int], light: Planes) -> list[Planes | None]:
        """The same weights on noise alone."""
        left: list[Planes | None] = [None] * len(ESTIMATES)
        for k in wanted:
            if k == 2:
                assert self.alone is not None
                left[k] = self.alone(self.merge.noise_alone(self.tile, 0, light)[None])
            else:
                left[k] = self._merged(MeanFilter() if k else self.merge.filter, light).light
        return left

    def _merged(self, inner: Filter, noise_on: Planes | None = None, observe: Observer | None = None) -> Estimate:
        """The mean of what each group of frames gives, or their noise over some light."""
        merge, window = self.merge, self.tile.window
        total, others = np.zeros_like(self.reference), max(1, len(merge.frames) - 1)
        centre = np.zeros_like(self.reference[0])
        for group in self.groups:
            placed = merge.placement.only(group)
            frames = placed.aligned(merge.spool, [merge.frames[k] for k in group], window)
            weighing = inner.weigh(frames, merge.noise_of(0), placed.agreement(window, merge.spool.size))
            if observe is not None and group is self.groups[0]:
                self.observed |= observe(self.tile, weighing)
            if noise_on is not None:
                noise = (merge.noise_alone(self.tile, k, noise_on) for k in group)
                frames = np.stack([placed.between(alone, n, window) for n, alone in enumerate(noise)])
            part = np.float32(max(1, len(group) - 1) / others)
            total += part * weighing(frames)
            centre += part * weighing.centre
        return Estimate(total, centre)


def remaining(told: Sequence[Told]) -> list[npt.NDArray[np.float64]]:
    return [np.array(tile["noise"]) for tile in told if "noise" in tile]
