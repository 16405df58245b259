"""Held-out test of a burst's filter without ground truth: filter all frames but one, and compare with that one.

Y is filtered from the other frames, X_j is held out. If Y is right and the noise model holds, X_j - Y is white, of the
variance of X_j's noise plus that left in Y. Y is shifted to X_j, since interpolation would colour X_j's noise. Only
pixels count where X_j agrees with the reference and Y would be trusted; of interpolated colours, each in that of X_j's
sample, which is as measured. Files that are cut off at black have a mean that is too bright and too little variance
there; both are modelled (`clipped_noise`), and what is cut off by half does not count.

Where the picture is flat, the difference is noise alone, whatever the filter does to detail: so a difference that is
not as modelled there is put down to the noise, another one to the filter or to the alignment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import shift, uniform_filter

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.cokriging import pixel_variance, take_samples, white_variance
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.denoising import banding, hot_pixels
from klarsicht.burst.denoising.interpolated_frames import align_loaded_frames, interpolate_burst
from klarsicht.burst.denoising.pipeline import DenoiseSettings, check_network, clipping_limits, is_filtered_as_rgb
from klarsicht.burst.files import loading, reading
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.burst.merging import motion_check
from klarsicht.burst.merging.filter_choice import check_names, select_filter
from klarsicht.burst.merging.filters import Filter
from klarsicht.burst.merging.residual_noise import accumulate_moments, fit_noise_levels
from klarsicht.burst.noise import clipped_noise, sources
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine import devices
from klarsicht.ground.machine.disk import translate_write_errors
from klarsicht.ground.machine.operating_system import available_cores
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

TESTED_SIDE = 8 * STEP  # of a tested window
WINDOWS = 3  # along each side of the picture
LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
BINS = 6  # of brightness, with equal numbers of pixels
VARIANCE_TOLERANCE, CORRELATION_TOLERANCE = 0.1, 0.05  # tolerances around 1 and around 0
SURE = 0.999  # least agreement of a pixel that is used
FEW = 0.01  # share of the picture that is not reported
BLOCK = 8  # pixels: side of a block in which noise is measured
CLEAR_OF_CLIPPING = 4  # deviations from the clipping limit
LEAST_SHARE_LEFT = 0.5  # of its variance that a pixel beside black must keep: below, the noise of Y tells in its model
FLAT_SHARE, SMOOTH_SIDE = 0.15, 5  # of the pixels used: those that count as flat; window of means around a pixel
SHIFTED_SIDE = 16  # pixels: side of the tiles of which a shift is fitted
MOST_SHIFTED = 0.5  # share of what goes beyond noise: more is a matter of alignment
FEWEST_FRAMES = 3
LEAST_COVERAGE = 0.05  # of the picture: about half of one window of nine, which stands for one place and not for all


@dataclass(frozen=True, eq=False)
class Residuals:
    """Residuals of one window: normalised (C, H, W), nan where a pixel is not used, and the light; of interpolated
    colours (1, H, W). untrusted: (H, W), where the frames agree, but the burst is not trusted. slopes: (2, C, H, W), of
    the filtered picture down and across, in deviations a pixel. elsewhere, unlike, at_limit: shares of pixels that
    are not surely aligned by the usual shift, that are and show something else, and that are near black or white."""

    normalised: Planes
    light: Planes
    untrusted: npt.NDArray[np.bool_]
    slopes: npt.NDArray[np.float32]
    elsewhere: float = 0.0
    unlike: float = 0.0
    at_limit: float = 0.0

    @property
    def steepness(self) -> Planes:
        """Mean square of the slopes around each pixel (C, H, W)."""
        around = (0, SMOOTH_SIDE, SMOOTH_SIDE)
        steepness: Planes = uniform_filter(np.square(self.slopes).sum(0), around, mode="nearest")
        return steepness

    @property
    def explained_by_shifts(self) -> float:
        """Sum of squared residuals that shifts of tiles explain, each fitted by least squares, beyond what they explain
        of noise."""
        finite = np.isfinite(self.normalised)
        r, (down, across) = np.where(finite, self.normalised, 0), np.where(finite, self.slopes, 0)
        yy, yx, xx, yr, xr = (_tile_sums(a * b) for a, b in (
            (down, down), (down, across), (across, across), (down, r), (across, r),
        ))  # fmt: skip
        determinant = yy * xx - yx**2
        is_definite = determinant > 1e-6 * (yy + xx) ** 2
        gain = (xx * yr**2 - 2 * yx * yr * xr + yy * xr**2)[is_definite] / determinant[is_definite]
        return float((gain - 2).sum())


@dataclass(frozen=True)
class HeldOutResult:
    """Result of the test. variance: mean of (X_j - Y)^2 over the modelled, 1 if all is right; by_light: (brightness,
    variance). correlation: by lag (y, x), 0 if white. coverage: share of the windows that is used. untrusted: share
    where the frames agree, but the burst is not trusted. flat_variance, flat_correlation: where the picture is
    flattest, the largest correlation. shifted: share of what goes beyond noise that shifts of tiles explain. elsewhere,
    unlike, at_limit: shares of the windows that are not used, as in Residuals."""

    held_out: str
    variance: float
    by_light: tuple[tuple[float, float], ...]
    correlation: dict[tuple[int, int], float]
    coverage: float
    untrusted: float
    flat_variance: float = 1.0
    flat_correlation: float = 0.0
    shifted: float = 0.0
    elsewhere: float = 0.0
    unlike: float = 0.0
    at_limit: float = 0.0

    @property
    def passes(self) -> bool:
        """Whether enough was seen, and the variance and all correlations are within tolerance."""
        white = all(abs(value) <= CORRELATION_TOLERANCE for value in self.correlation.values())
        return self.coverage >= LEAST_COVERAGE and abs(self.variance - 1) <= VARIANCE_TOLERANCE and white

    @property
    def lines(self) -> Iterator[str]:
        """Summary for the user."""
        looked = f"looked at: {self.coverage:.0%} of the picture, where it shows the same and the burst is trusted"
        yield f"held out: {self.held_out}; {looked} (not trusted: {self.untrusted:.0%})"
        if self.coverage < LEAST_COVERAGE:
            yield (
                f"not looked at: {self.elsewhere:.0%} is not surely aligned by the shift of most of its frame, "
                f"{self.unlike:.0%} differs from them by more than noise, "
                f"{self.at_limit:.0%} is too near black or white"
            )
        yield f"variance of the difference over the modelled: {self.variance:.3f} (1 if all is right)"
        yield "by light: " + ", ".join(f"{light:.3g}: {variance:.3f}" for light, variance in self.by_light)
        lags = ", ".join(f"({y}, {x}) {value:+.3f}" for (y, x), value in self.correlation.items() if np.isfinite(value))
        yield f"correlation between neighbours, 0 if the difference is white: {lags or 'too few pixels'}"
        yield f"verdict: {self.conclusion}"

    @property
    def conclusion(self) -> str:
        """Interpretation of the variance and the correlations in words."""
        if self.passes:
            rest = f", but for the {self.untrusted:.0%} where the burst is not trusted" if self.untrusted > FEW else ""
            return f"the difference is noise as modelled{rest}"
        if self.coverage < LEAST_COVERAGE:
            return f"too little of the picture can be judged (at least {LEAST_COVERAGE:.0%}): try another --hold-out"
        if self.variance < 1 - VARIANCE_TOLERANCE:  # lost detail, and frames that lie apart, only add to it
            return f"the noise level is too high: its variance is {1 / max(self.variance, 1e-3):.2g} times the real one"
        if abs(self.flat_correlation) > CORRELATION_TOLERANCE:
            told = (
                f"the noise is coloured: neighbours correlate by {self.flat_correlation:+.2f} where the picture is flat"
            )
            return f"{told}, as in files that were smoothed"
        if self.flat_variance > 1 + VARIANCE_TOLERANCE:
            return f"the noise level is too low: its variance is {1 / self.flat_variance:.2g} times the real one"
        if self.shifted > MOST_SHIFTED:
            return "the frames do not lie on one another: shifts explain most of what goes beyond noise"
        return "detail was lost: the difference is noise where the picture is flat, and more than that elsewhere"


def check_held_out(
    frames: Sequence[Path], settings: DenoiseSettings, work: Path, hold_out: str | None = None
) -> tuple[list[str], HeldOutResult]:
    """Run the held-out test; return messages on noise and filter, and the result. work: a folder for the frames. Raises
    InputError for fewer than three frames, or where nothing agrees; UsageError; ModelError."""
    check_names(settings.checkpoint, settings.bayer, settings.fast)
    files = reading.list_frames(frames)
    _require_frames(len(files))
    with translate_write_errors(work), devices.torch_threads(settings.threads or available_cores()):
        work.mkdir(parents=True, exist_ok=True)
        burst = loading.load_frames(files, work, settings.reference, settings.read_settings, settings.dark_paths)
        if burst.is_bracket:
            rule = "a frame is held out against others of the same exposure"
            raise InputError("a bracket cannot be checked", rule=rule, remedy="Give frames of one exposure.")
        check_network(burst, settings)
        named = None if hold_out is None else find_frame(burst, hold_out)
        _require_frames(len({*burst.order, named} - {None}), burst)
        calibration = Path(settings.calibration) if settings.calibration else None
        noise = sources.find_noise(burst, settings.noise, calibration)
        if not settings.keep_hot_pixels:
            burst, _ = hot_pixels.replace_hot_pixels(burst, noise.levels, work)
        order = burst.order if named is None or named in burst.order else [*burst.order, named]
        placement = align_loaded_frames(burst, noise.mean, [frame.gain for frame in burst.frames], order)
        if (offsets := banding.find_offsets(burst, placement, order, noise.levels)) is not None:
            burst = banding.remove_offsets(burst, offsets)
        if offsets is not None or placement.is_turned:
            own = placement.select(range(len(burst.order))) if placement.is_turned else None
            noise = sources.find_noise(burst, settings.noise, calibration, own)
        if is_filtered_as_rgb(burst, noise, settings):
            burst = interpolate_burst(burst)
            noise = sources.for_interpolated(noise, burst.header)
            placement = placement.double_resolution(burst.spool.size)
        held = choose_frame(placement) if named is None else order.index(named)
        kept = [*(k for k in range(len(order)) if k != held), held]
        order, placement = [order[k] for k in kept], placement.select(kept)
        held = order[-1]
        denoiser = select_filter(settings.checkpoint, burst.header, settings.exact, settings.fast)
        windows = choose_windows(burst.spool.size)
        parts = [
            compute_residuals(burst, placement, order, noise.levels, denoiser, window)
            for window in track(windows, len(windows), "parts of the picture")
        ]
    reference = f"reference: {burst.frames[burst.reference].name}, {burst.reference_reason}"
    dropped = [f"dropped: {frame.rejection}" for frame in burst.frames if frame.rejection]
    notes = [reference, *dropped, noise.summary, f"filter: {denoiser.name}", *burst.header.notes]
    return notes, summarise_residuals(burst.frames[held].name, parts)


def _require_frames(count: int, burst: LoadedBurst | None = None) -> None:
    """Raise InputError for fewer than three frames: files, or the frames of a burst that were not dropped."""
    if count < FEWEST_FRAMES:
        dropped = [] if burst is None else [frame.rejection for frame in burst.frames if frame.rejection]
        raise InputError(
            "too few frames", got="; ".join([str(count), *dropped]),
            rule="a frame is held out, and two at least are filtered", remedy="Give three frames or more of one scene.",
        )  # fmt: skip


def choose_frame(placement: Placement) -> int:
    """Choose the frame of a placement to hold out: the last, least sharp one that can be compared in at least half as
    many tiles as the best. A tile can be where it agrees and is shifted as most of its frame."""
    usual = (placement.shifts == np.median(placement.shifts, (1, 2), keepdims=True)).all(-1)
    usable = (placement.agrees & usual & ~placement.turns.any((-2, -1)))[1:].mean((1, 2))
    return 1 + int(np.flatnonzero(usable >= usable.max() / 2)[-1])


def find_frame(burst: LoadedBurst, name: str) -> int:
    """Return the index of the frame of that name, or of that number from 1. Raises UsageError for an unknown frame, and
    InputError for the reference."""
    index = loading.find_named_frame([frame.name for frame in burst.frames], name, "--hold-out")
    if index == burst.reference:
        raise InputError(
            "the frame to hold out is the reference", got=burst.frames[index].name,
            rule="it is compared with the result, which has the view of the reference",
            remedy="Name another by --hold-out, or another --reference.",
        )  # fmt: skip
    return index


def choose_windows(size: tuple[int, int]) -> list[Window]:
    """Choose windows across a picture, which begin at multiples of STEP."""
    corners = [
        sorted({int(p) // STEP * STEP for p in np.linspace(0, max(0, side - TESTED_SIDE), WINDOWS)}) for side in size
    ]
    return [Window(y, y + TESTED_SIDE, x, x + TESTED_SIDE).clip_to(size) for y in corners[0] for x in corners[1]]


def compute_residuals(
    burst: LoadedBurst,
    placement: Placement,
    order: Sequence[int],
    noise: Sequence[NoiseLevel],
    denoiser: Filter,
    own: Window,
) -> Residuals:
    """Compute the residuals of one window. The last frame of the order is held out; of the others, as many are filtered
    as the filter takes at once."""
    margin = -(-(denoiser.halo + 4) // STEP) * STEP
    window = own.grow(margin).clip_to(burst.spool.size)
    selection = placement.select([*range(min(len(order) - 1, denoiser.frames)), len(order) - 1])
    numbers = [*order[: len(selection.rest) - 1], order[-1]]
    frames = selection.read_aligned(burst.spool, numbers[:-1], window)
    held = selection.read_whole_pixels(burst.spool, order[-1], len(numbers) - 1, window)
    agreement = selection.agreement(window, burst.spool.size)
    own_levels, theirs = ([level.scale_by_gain(burst.frames[i].gain) for level in noise] for i in (order[0], order[-1]))
    weighing = denoiser.compute_weights(frames, own_levels, agreement[:-1])
    filtered = weighing()
    mosaic = InterpolatedNoise.of(burst.header)
    of_sample = 1.0 if mosaic is None else 1 / white_variance(mosaic.cell)
    sample_levels, draw_levels = (scale_noise(levels, of_sample) for levels in (theirs, own_levels))
    low = clipping_limits(burst).low
    noise_draws = simulate_noise(filtered, len(frames), draw_levels, low)
    if mosaic is not None:
        noise_draws = np.stack([mosaic.interpolate_samples(one) for one in noise_draws])
    noise_there = [selection.interpolate_noise(alone, k, window) for k, alone in enumerate(noise_draws)]
    residual_levels = fit_noise_levels([accumulate_moments(weighing(np.stack(noise_there)), filtered)], own_levels)
    merged = shift(filtered, (0, *selection.rest[-1]), order=3, mode="nearest")
    there = (agreement[-1] >= SURE) & find_uniform_shift(selection.shifts[-1], window)
    # a pixel's own noise must neither choose it nor say how much of its variance is left
    light = merged if np.isneginf(low) else uniform_filter(merged, (0, SMOOTH_SIDE, SMOOTH_SIDE), mode="nearest")
    cut = [cut_off_noise(Y, level, low) for level, Y in zip(sample_levels, light, strict=True)]
    variance = np.stack([one.variance + b.variance(Y) for one, b, Y in zip(cut, residual_levels, merged, strict=True)])
    clear = merged + CLEAR_OF_CLIPPING * np.sqrt(variance) < clipping_limits(burst).high
    clear &= np.stack([one.share_left >= LEAST_SHARE_LEFT for one in cut])
    finer = 1.0 if mosaic is None else pixel_variance(mosaic.cell) / white_variance(mosaic.cell)
    same, trusted = find_comparable_pixels(
        frames[0], held, filtered, (own_levels, theirs), clipping_limits(burst), finer
    )
    lies = there
    there, within_limits = lies & same, clear.all(0)
    normalised = np.where(there & trusted & clear, (held - merged) / np.sqrt(variance), np.nan)
    down, across = (slope / np.sqrt(variance) for slope in np.gradient(merged, axis=(1, 2)))
    if mosaic is not None:
        first = window.translate(*np.median(selection.shifts[-1], (0, 1)).astype(np.int64).tolist())
        normalised, merged, down, across = (
            take_samples(x, mosaic.cell, first.y0, first.x0)[None] for x in (normalised, merged, down, across)
        )
    inside = (slice(None), *own.slices_in(window))
    return Residuals(
        normalised[inside].astype(np.float32),
        merged[inside],
        (there & ~trusted)[inside[1:]],
        np.stack([down[inside], across[inside]]).astype(np.float32),
        elsewhere=float(np.mean(~lies[inside[1:]])),
        unlike=float(np.mean((lies & ~same)[inside[1:]])),
        at_limit=float(np.mean((there & trusted & ~within_limits)[inside[1:]])),
    )


class CutOffNoise(NamedTuple):
    """Noise that is cut off at black, (H, W). light: before that. variance: what is left of it, and its share."""

    light: npt.NDArray[Any]
    variance: npt.NDArray[Any]
    share_left: npt.NDArray[Any]


def cut_off_noise(merged: npt.NDArray[np.float32], level: NoiseLevel, low: float) -> CutOffNoise:
    """Compute the noise of a frame at light whose mean, cut off at `low`, is that of a plane (H, W); -inf: it is not
    cut off."""
    if np.isneginf(low):
        return CutOffNoise(merged, level.variance(merged), np.ones_like(merged))
    found = clipped_noise.unclip(merged.ravel().astype(np.float64) - low, level.variance)
    light, share = (x.reshape(merged.shape) for x in (found.mean + low, found.variance_left))
    return CutOffNoise(light, level.variance(light) * share, share)


def find_comparable_pixels(
    reference: Planes,
    held_frame: Planes,
    merged_frame: Planes,
    noise: tuple[Sequence[NoiseLevel], Sequence[NoiseLevel]],
    limits: motion_check.ClippingLimits,
    finer: float = 1.0,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Find the pixels (H, W) where two frames agree, and those where the filtered picture would be trusted, by the
    noise of the frames themselves: the level under test must not decide where it is tested. finer: variance of a
    pixel's noise over that of the level."""
    pair = [NoiseLevel(float(np.hypot(a.read, b.read)), a.shot + b.shot) for a, b in zip(*noise, strict=True)]
    loudness = _noise_ratio(held_frame - reference, merged_frame, pair) / finer
    of_pair, of_reference = (
        motion_check.Reference(reference, scale_noise(levels, loudness), limits) for levels in (pair, noise[0])
    )
    differs = motion_check.find_failing_pixels(of_pair, held_frame)
    return ~differs, ~motion_check.find_failing_pixels(of_reference, merged_frame)


def _noise_ratio(difference: Planes, light: Planes, noise: Sequence[NoiseLevel]) -> float:
    """Estimate the variance of a difference over its modelled variance, by the median of blocks' mean squares."""
    variance = np.stack([level.variance(x) for level, x in zip(noise, light, strict=True)])
    C, Y, X = (len(light), *(side // BLOCK for side in light.shape[1:]))
    squares = (np.square(difference) / variance)[:, : Y * BLOCK, : X * BLOCK]
    loudness = np.median(squares.reshape(C, Y, BLOCK, X, BLOCK).mean((0, 2, 4)))
    return float(loudness)


def scale_noise(noise: Sequence[NoiseLevel], variance: float) -> list[NoiseLevel]:
    """Scale the variance of each noise level by a factor."""
    return [level.scale_variance(variance) for level in noise]


def simulate_noise(
    light: Planes, count: int, noise: Sequence[NoiseLevel], low: float = -np.inf
) -> npt.NDArray[np.float32]:
    """Draw the noise of frames that show a picture, (count, C, H, W), cut off at `low`, as the picture's mean is."""
    z = generator(0, "held out").standard_normal((count, *light.shape), np.float32)
    before = np.stack([cut_off_noise(x, level, low).light for level, x in zip(noise, light, strict=True)])
    deviation = np.stack([level.deviation(x) for level, x in zip(noise, before, strict=True)])
    return np.asarray(np.maximum(before + z * deviation, low) - light, np.float32)


def find_uniform_shift(shifts: npt.NDArray[np.int64], window: Window) -> npt.NDArray[np.bool_]:
    """Find the pixels (H, W) where the frame's tile and those beside it have the median shift of the frame."""
    y, x = window.y0 // STEP, window.x0 // STEP
    own = (shifts == np.median(shifts, (0, 1))).all(-1)[y:, x:]
    four = own[:-1, :-1] & own[1:, :-1] & own[:-1, 1:] & own[1:, 1:]
    return four.repeat(STEP, 0).repeat(STEP, 1)[: window.size[0], : window.size[1]]


def summarise_residuals(name: str, parts: Sequence[Residuals]) -> HeldOutResult:
    """Summarise the residuals of all windows. Raises InputError where no pixel agrees."""
    r = np.concatenate([part.normalised.ravel() for part in parts])
    finite = np.isfinite(r)
    light = np.concatenate([part.light.ravel() for part in parts])[finite]
    r = r[finite]
    if not len(r):
        rule = "the frame held out agrees with the others nowhere"
        raise InputError("nothing to compare", got=name, rule=rule, remedy="Hold out another.")
    order = np.array_split(np.argsort(light, kind="stable"), BINS)
    by_light = tuple((float(light[k].mean()), float(np.square(r[k]).mean())) for k in order if len(k))
    correlation = {lag: autocorrelation([part.normalised for part in parts], lag) for lag in LAGS}
    flat = select_flattest(parts)
    flat_variance = float(np.mean(np.square(np.concatenate([x[np.isfinite(x)] for x in flat]))))
    flat_correlation = max((autocorrelation(flat, lag) for lag in LAGS), key=lambda value: abs(np.nan_to_num(value)))
    beyond = float((np.square(r) - 1).sum())
    by_shifts = sum(part.explained_by_shifts for part in parts) / max(beyond, 1e-9)
    doubt_share = float(np.concatenate([part.untrusted.ravel() for part in parts]).mean())
    return HeldOutResult(
        name,
        float(np.square(r).mean()),
        by_light,
        correlation,
        float(finite.mean()),
        doubt_share,
        flat_variance,
        flat_correlation,
        by_shifts,
        *(float(np.mean([getattr(part, name) for part in parts])) for name in ("elsewhere", "unlike", "at_limit")),
    )


def select_flattest(parts: Sequence[Residuals]) -> list[Planes]:
    """Return the normalised residuals of each window where the picture is among the flattest, nan elsewhere."""
    steepness = [np.where(np.isfinite(part.normalised), part.steepness, np.nan) for part in parts]
    limit = np.nanquantile(np.concatenate([x.ravel() for x in steepness]), FLAT_SHARE)
    return [
        np.where(steep <= limit, part.normalised, np.float32(np.nan))
        for steep, part in zip(steepness, parts, strict=True)
    ]


def _tile_sums(values: Planes) -> npt.NDArray[np.float64]:
    """Sum values (C, H, W) over channels and whole tiles, (Y, X)."""
    Y, X = (side // SHIFTED_SIDE for side in values.shape[1:])
    inside = values[:, : Y * SHIFTED_SIDE, : X * SHIFTED_SIDE]
    return inside.reshape(-1, Y, SHIFTED_SIDE, X, SHIFTED_SIDE).sum((0, 2, 4), np.float64)


def autocorrelation(parts: Sequence[Planes], lag: tuple[int, int]) -> float:
    """Compute the mean product of values at a lag, over their mean square; nan where no pair is finite."""
    y, x = lag
    products, squares = [], []
    for r in parts:
        H, W = r.shape[1:]
        a, b = r[:, : H - y, : W - x], r[:, y:, x:]
        both = np.isfinite(a) & np.isfinite(b)
        products.append((a * b)[both])
        squares.append((np.square(a) + np.square(b))[both] / 2)
    if not any(len(product) for product in products):
        return float("nan")
    return float(np.concatenate(products).mean() / max(float(np.concatenate(squares).mean()), 1e-12))
