"""Processing of one tile of a burst: alignment, weights, filtering, tests, mixing and writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.burst import REFERENCE, Frames
from klarsicht.burst.data.cokriging import Mask, Pattern, measured_mask, sample_weights, white_variance
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.merging import motion_check, sure, tiles
from klarsicht.burst.merging.coinciding_frames import mix_with_mean
from klarsicht.burst.merging.exposure_weights import weigh_by_exposure
from klarsicht.burst.merging.filters import Agreement, Filter, MeanFilter, PixelWeights, split_groups
from klarsicht.burst.merging.motion_check import Map
from klarsicht.burst.merging.residual_noise import accumulate_moments
from klarsicht.burst.merging.sure import LightEstimate
from klarsicht.burst.merging.tiles import Tile, TileRecord
from klarsicht.burst.merging.unmeasured_colours import UnmeasuredColours
from klarsicht.burst.noise import clipped_noise
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

ESTIMATES = ("burst", "mean", "alone")
"""Estimates that a picture is mixed of, the best first: the filtered burst, the mean of the frames where they agree,
the filtered reference alone; the rest is the reference unchanged. `motion_check` decides which are tried, `sure` how
much of each is taken."""


HALO_STEP = 16  # pixels: halos around windows are multiples, as networks' windows begin at multiples of their stride

Observer = Callable[[Tile, PixelWeights], TileRecord]
"""Function of a tile and its weights, whose result (plain JSON values) is stored with the tile."""


@dataclass(frozen=True, eq=False)
class TileMerger:
    """Merges the frames of a burst, tile by tile.

    spool: the aligned frames, the reference first. frames: their numbers in the burst. gains: the factor on each frame.
    noise: of a frame of gain 1, one level a channel. result: (1, C + 1, H, W), the picture and, last, the trust in the
    burst. noise_side: of the middle of a tile in which residual noise is measured, in pixels. observe: receives the
    weights of each tile (of the first group of frames). clipping: masks of the clipped pixels of a bracket, whose
    frames are weighed by their exposures; None for other bursts. interpolated: the noise of interpolated colours; None:
    it is white. only_measured: whether they are tested, and mixed by Stein's estimate, where a colour was measured.
    """

    spool: FrameStore
    result: FrameStore
    placement: Placement
    frames: Sequence[int]
    gains: Sequence[float]
    noise: Sequence[NoiseLevel]
    filter: Filter
    limits: motion_check.ClippingLimits
    strength: float
    noise_side: int
    observe: Observer | None = None
    clipping: FrameStore | None = None
    interpolated: InterpolatedNoise | None = None
    only_measured: bool = False

    def __call__(self, tile: Tile) -> TileRecord:
        reference = self.spool.read_window(REFERENCE, tile.context)
        estimates = Estimates(self, tile, reference)
        risk = sure.Risk(reference, self.measured_noise, self.limits, self.measured_mask(tile))
        verdict = motion_check.check_estimates(risk, estimates.makers)
        verdict = sure.apply_risk_shares(verdict, risk, estimates.estimates)
        unmeasured = None
        if self.tested_interpolation is not None:
            unmeasured = UnmeasuredColours.fit(self.tested_interpolation, tile.context, risk, estimates.estimates)
        mix = verdict.mix if unmeasured is None else partial(unmeasured.mix, verdict)
        picture = self._apply_strength(mix(estimates.light, reference), reference)
        inside = (slice(None), *tile.core.slices_in(tile.context))
        trusted = verdict.shares_of_picture[:2].sum(0, keepdims=True)
        self.result.write_window(0, tile.core, np.concatenate([picture / np.float32(self.gains[0]), trusted])[inside])
        burst = estimates.light[0]
        assert burst is not None
        record = self._statistics(verdict, risk, burst, inside) | estimates.observations
        if not self.noise_side:
            return record
        part = self.noise_window(tile).slices_in(tile.context)
        cropped = verdict.crop(part)
        mix = cropped.mix if unmeasured is None else partial(unmeasured.crop(part).mix, cropped)
        tested = risk.crop(part), burst[:, *part]
        return record | self._measure_noise(tile, picture[:, *part], mix, estimates.noise, tested)

    def _measure_noise(
        self,
        tile: Tile,
        picture: Planes,
        mix: Callable[[Sequence[Planes | None], Planes], Planes],
        noise: Sequence[Planes | None],
        tested: tuple[motion_check.Reference, Planes],
    ) -> dict[str, Any]:
        """Measure the noise that is left in the middle of a tile, and the residual that noise alone leaves. The arrays
        are of the tile's noise_window; noise: what each estimate leaves. tested: the reference and the burst."""
        there = self.middle(tile).slices_in(self.noise_window(tile))
        middle = (slice(None), *there)
        before, gain = self.simulate_noise(tile, 0, picture), np.float32(self.gains[0])
        assert noise[0] is not None
        expected = motion_check.mean_residual(tested[0].crop(there), tested[1][middle], (before - noise[0])[middle])
        after = self._apply_strength(mix(noise, before), before)[middle]
        moments = accumulate_moments(after / gain, picture[middle] / gain)
        return {"expected": expected, "noise": moments.tolist()}

    def middle(self, tile: Tile) -> Window:
        """Return the middle of a tile's core in which residual noise is measured."""
        ends = []
        for first, last in ((tile.core.y0, tile.core.y1), (tile.core.x0, tile.core.x1)):
            begin = first + max(0, last - first - self.noise_side) // 2 // STEP * STEP
            ends += [begin, min(last, begin + self.noise_side)]
        return Window(*ends)

    def noise_window(self, tile: Tile) -> Window:
        """Return that middle with a margin, which covers what weights, interpolation and mixture read."""
        return self.middle(tile).grow(STEP).intersect(tile.context)

    def frame_noise(self, frame: int) -> list[NoiseLevel]:
        """Compute the noise of a frame, one level for each channel."""
        return [level.scale_by_gain(self.gains[frame]) for level in self.noise]

    @property
    def tested_interpolation(self) -> InterpolatedNoise | None:
        """The interpolation of frames that are tested where a colour was measured; None of others."""
        return self.interpolated if self.only_measured else None

    @property
    def measured_noise(self) -> list[NoiseLevel]:
        """The noise of the reference where it is tested: of measured colours that of samples, else as told."""
        if self.tested_interpolation is None:
            return self.frame_noise(0)
        factor = 1 / white_variance(self.tested_interpolation.cell)
        return [level.scale_variance(factor) for level in self.frame_noise(0)]

    def measured_mask(self, tile: Tile) -> Mask | None:
        """Mark the colours (3, h, w) of a tile's context that the sensor measured; None where all count."""
        if self.tested_interpolation is None:
            return None
        near = tile.context
        return measured_mask(self.tested_interpolation.cell, near.size, near.y0, near.x0)

    @property
    def sample_weights(self) -> Pattern | None:
        """Weights of a sample in the interpolated light around it; None where it counts as a pixel."""
        return None if self.tested_interpolation is None else sample_weights(self.tested_interpolation.cell)

    def white(self, frame: int) -> float:
        """Compute the value at which a frame is clipped."""
        return self.limits.high * self.gains[frame] / self.gains[0]

    def simulate_noise(self, tile: Tile, frame: int, light: Planes) -> Planes:
        """Draw the noise of one frame at a given brightness in a tile's noise_window; the same at each call. Of
        interpolated frames it is that of samples where a colour was measured: tiles do not begin where a cell of
        X-Trans does."""
        z = generator(0, "remaining noise", tile.number, frame).standard_normal(light.shape, np.float32)
        planes = zip(self.frame_noise(frame), light, z, strict=True)
        white = np.stack([level.deviation(x) * n for level, x, n in planes]).astype(np.float32)
        if self.interpolated is None:
            return white
        there = self.noise_window(tile)
        return self.interpolated(white, there.y0, there.x0)

    def _apply_strength(self, picture: Planes, reference: Planes) -> Planes:
        return reference + np.float32(self.strength) * (picture - reference)

    def _statistics(
        self, verdict: motion_check.MotionCheck, reference: motion_check.Reference, burst: Planes, inside: Any
    ) -> dict[str, Any]:
        shares = [float(share[inside[1:]].mean()) for share in verdict.shares_of_picture]
        pixels = int(verdict.shares[0][inside[1:]].size)
        return {
            **dict.fromkeys(ESTIMATES, 0.0),
            **dict(zip(ESTIMATES, shares, strict=False)),
            "pixels": pixels,
            "residual": motion_check.mean_residual(
                reference.crop(inside[1:]), burst[inside], (reference.light - burst)[inside]
            ),
        }


GroupEstimate = tuple[Planes, Map, Planes | None]
"""Estimate of one group of frames: picture, weight of the reference's own pixel, and residual noise."""


class Estimates:
    """Estimates of one tile, in the order of ESTIMATES, each computed when it is requested, and kept."""

    def __init__(self, merge: TileMerger, tile: Tile, reference: Planes) -> None:
        self.merge, self.tile, self.reference = merge, tile, reference
        self.groups = split_groups(merge.filter, len(merge.frames))
        self.estimates: list[LightEstimate | None] = [None] * len(ESTIMATES)
        self.mean: LightEstimate | None = None
        self.observations: dict[str, Any] = {}

    @property
    def light(self) -> list[Planes | None]:
        """Pictures of the estimates; None where one was not computed."""
        return [one and one.light for one in self.estimates]

    @property
    def noise(self) -> list[Planes | None]:
        """The noise that they leave."""
        return [one and one.noise for one in self.estimates]

    @property
    def makers(self) -> tuple[Callable[[Map], Planes], ...]:
        """Functions that compute the estimates, the best first. With a single frame only the first estimate exists."""
        makers = (self.merge_burst, self.merge_mean, self.filter_reference)[: 3 if len(self.merge.frames) > 1 else 1]
        return tuple(partial(self._store, k, make) for k, make in enumerate(makers))

    def _store(self, k: int, make: Callable[[Map], LightEstimate], doubt: Map) -> Planes:
        estimate = self.estimates[k] = make(doubt)
        return estimate.light

    def merge_burst(self, everywhere: Map) -> LightEstimate:
        """Filter the frames of the burst, and average them while they are there."""
        groups = [self._merge_group(group) for group in self.groups]
        sizes = np.array([max(1, len(group) - 1) for group in self.groups], np.float32)
        burst, self.mean = (self._average(parts, sizes / sizes.sum()) for parts in zip(*groups, strict=True))
        return burst

    def merge_mean(self, doubt: Map) -> LightEstimate:
        """Return the mean of the frames where they agree, which `merge_burst` computed."""
        assert self.mean is not None
        return self.mean

    def filter_reference(self, doubt: Map) -> LightEstimate:
        """Filter the reference alone around pixels in doubt; elsewhere it is unchanged."""
        merge, near = self.merge, self.tile.context
        halo = -(-merge.filter.halo // HALO_STEP) * HALO_STEP
        light, centre = self.reference.copy(), np.ones_like(self.reference[0])
        there = merge.noise_window(self.tile)
        left = merge.simulate_noise(self.tile, 0, light[:, *there.slices_in(near)]) if merge.noise_side else None
        draw = None if left is None else left.copy()
        margin, whole = motion_check.CHECK_MARGIN + merge.filter.reach, self.tile.window.translate(-near.y0, -near.x0)
        for inner in tiles.cover_marked(doubt > 0, margin, halo, whole):
            here = inner.translate(near.y0, near.x0).intersect(near)
            window, inside = here.grow(halo).intersect(self.tile.window), here.slices_in(near)
            frames = merge.spool.read_window(REFERENCE, window)[None]
            everywhere, part = np.ones((1, *window.size), np.float32), here.slices_in(window)
            weighing = merge.filter.compute_weights(frames, merge.frame_noise(0), everywhere, part)
            light[:, *inside], centre[inside] = self._before_clipping(
                weighing(), weighing.centre_weights([0], merge.sample_weights)[0]
            )
            shared = here.intersect(there)
            if left is not None and draw is not None and min(shared.size) > 0:
                at = shared.slices_in(there)
                left[:, *at] = weighing.crop(shared.slices_in(here))(draw[None, :, *at])
        return LightEstimate(light, centre, False, left)

    def _average(self, parts: Sequence[GroupEstimate], shares: Agreement) -> LightEstimate:
        """Average one estimate over the groups of frames."""
        light, centre, left = (weighted_mean(each, shares) for each in zip(*parts, strict=True))
        assert light is not None and centre is not None
        light, centre = self._before_clipping(light, centre)
        return LightEstimate(light, centre, len(self.merge.frames) > 1, left)

    def _before_clipping(self, light: Planes, centre: Map) -> tuple[Planes, Map]:
        """Correct a weighted mean of pixels that are clipped at black, too bright in the darks, and the weight of the
        reference's own pixel, by the correction's derivative. The mean of a bracket is not corrected: its frames are
        cut off at different numbers of deviations."""
        low = self.merge.limits.low
        if np.isneginf(low) or self.merge.clipping is not None:
            return light, centre
        planes = zip(self.merge.frame_noise(0), light, strict=True)
        unclipped = [clipped_noise.unclip(plane.ravel() - low, level.variance) for level, plane in planes]
        whole = np.stack([np.maximum(one.mean, 0) + low for one in unclipped]).reshape(light.shape)
        slope = np.mean([np.where(one.mean > 0, one.slope, 0) for one in unclipped], 0).reshape(centre.shape)
        return whole.astype(np.float32), (centre * slope).astype(np.float32)

    def _merge_group(self, group: list[int]) -> tuple[GroupEstimate, GroupEstimate]:
        """Filter one group of frames, and average it."""
        merge, denoiser = self.merge, self.merge.filter
        window = self.tile.window if denoiser.halo else self.tile.context
        part = self.tile.context.slices_in(window)
        selection = merge.placement.select(group)
        frames = merge.spool.read_windows(group, window)
        agreement = selection.agreement(window, merge.spool.size)
        if merge.clipping is not None:
            levels, whites = [merge.frame_noise(k) for k in group], [merge.white(k) for k in group]
            clipped = selection.read_aligned(merge.clipping, [merge.frames[k] for k in group], window)
            agreement = weigh_by_exposure(frames, agreement, levels, whites, clipped)
        mean = MeanFilter().compute_weights(frames, merge.noise, agreement, part)
        weighing: PixelWeights = denoiser.compute_weights(frames, merge.frame_noise(0), agreement, part)
        if merge.observe is not None and group is self.groups[0]:
            self.observations |= merge.observe(self.tile, weighing)
        if len(group) > 1 and selection.coincides and not isinstance(denoiser, MeanFilter):
            whole = selection.coincidence(window, merge.spool.size)[:, *part]
            weighing = mix_with_mean(weighing, frames[:, :, *part], whole, merge.frame_noise(0), merge.limits)
        del frames
        light, average = weighing(), mean()
        draws = self._draw_noise(selection, group, light) if merge.noise_side else None
        return self._estimate(weighing, light, draws), self._estimate(mean, average, draws)

    def _estimate(self, weights: PixelWeights, light: Planes, draws: Frames | None) -> GroupEstimate:
        """Return what weights make of one group of frames, light, and of the noise in its noise_window."""
        centre = weights.centre_weights([0], self.merge.sample_weights)[0]
        part = self.merge.noise_window(self.tile).slices_in(self.tile.context)
        return light, centre, None if draws is None else weights.crop(part)(draws)

    def _draw_noise(self, placement: Placement, group: Sequence[int], light: Planes) -> Frames:
        """Draw the noise (n, C, h, w) of frames at that brightness, interpolated as frames are when they are read."""
        there = self.merge.noise_window(self.tile)
        part = there.slices_in(self.tile.context)
        noise = (self.merge.simulate_noise(self.tile, k, light[:, *part]) for k in group)
        return np.stack([placement.interpolate_noise(alone, n, there) for n, alone in enumerate(noise)])


def weighted_mean(
    parts: Sequence[npt.NDArray[np.float32] | None], shares: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32] | None:
    """Compute the weighted mean; None where there are no parts."""
    known = [part * share for part, share in zip(parts, shares, strict=True) if part is not None]
    return sum(known[1:], known[0]) if known else None
