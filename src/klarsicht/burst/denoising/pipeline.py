"""Denoising pipeline: read -> noise -> hot pixels -> alignment (-> RGB) -> tiles (weights, filtering, tests). Memory is
bounded; intermediate results are kept in a work folder, from which a stopped run resumes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from klarsicht import __version__
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.data.bayer import PATTERNS
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.data.photograph import ReadSettings
from klarsicht.burst.denoising import banding, bracket, doubling, hot_pixels, work_folder
from klarsicht.burst.denoising.aligned_frames import store_aligned
from klarsicht.burst.denoising.interpolated_frames import align_loaded_frames, interpolate_burst
from klarsicht.burst.files import reading
from klarsicht.burst.files.loading import LoadedBurst, load_frames
from klarsicht.burst.merging import kernel_maps, merge_tile, motion_check, residual_noise, tiles
from klarsicht.burst.merging.filter_choice import check_names, choose_bayer_colour, select_bracket_filter, select_filter
from klarsicht.burst.merging.filters import Filter, NetworkFilter, split_groups
from klarsicht.burst.network.unet import COLOURS
from klarsicht.burst.noise import sources
from klarsicht.burst.noise.sources import KnownNoise
from klarsicht.ground.config import PathText, PublicSettings
from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine import devices
from klarsicht.ground.machine.disk import replace_atomically, translate_read_errors
from klarsicht.ground.machine.memory import resident_bytes
from klarsicht.ground.machine.operating_system import available_cores
from klarsicht.ground.pictures.images import MAX_MEGAPIXELS
from klarsicht.ground.ranges import MEGAPIXELS, MEMORY_GB, STRENGTH, THREADS, WHITE_LEVEL
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SOURCES = {"burst": "from all frames", "mean": "from their mean", "alone": "from the reference frame alone"}
TOO_LOUD = 1.3  # residual over the noise from which the user is warned
# residual over that of noise alone, below which the user is warned: lost detail and what moved only add to it
TOO_QUIET = 0.5
MOST_SAID = 10  # times the noise: beyond it the number means nothing
NOISE_AREA = 1 << 19  # pixels, over all tiles, in which residual noise is measured
LEAST_NOISE_SIDE = 128  # pixels, of the middle of a tile in which it is
DARKEST_MEAN = 1e-6  # light, that noise may have moved below 0
# deviation of the noise over the mean light, up to which interpolated frames are tested where a colour was measured
MOST_NOISE_MEASURED = 0.3
LEAST_AGREEMENT = 0.2  # share of a frame's tiles, below which it shows another scene
LEAST_SHARPNESS = 0.6  # energy of fine detail, noise included, over the reference's, below which a frame only blurs


def _as_noise_text(value: Any) -> Any:
    return f"{float(value.read)!r},{float(value.shot)!r}" if isinstance(value, NoiseLevel) else value


def _as_frame_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class DenoiseSettings(PublicSettings):
    """Settings of a denoising run. checkpoint: a network's file, or the name of a shipped one. noise: READ,SHOT, or a
    NoiseLevel. calibration: a file of noise levels. reference: a frame's name, or its number from 1. memory: limit in
    GB, everything included. linear, white_level, megapixels: of reading (ReadSettings). strength: 0 keeps the
    reference, 1 takes the full result. exact: the network computes in float32. fast: frames are merged by frequency,
    without a network. bayer: how Bayer frames are filtered, planes or rgb; None: as the network needs it, or by their
    noise. keep_hot_pixels: hot or dead pixels stay. dark: dark frames, or folders of them. double: twice the
    resolution."""

    checkpoint: PathText | None = None
    noise: Annotated[str, BeforeValidator(_as_noise_text)] | None = None
    calibration: PathText | None = None
    reference: Annotated[str, BeforeValidator(_as_frame_text)] | None = None
    strength: float = STRENGTH.field(1.0)
    memory: float = MEMORY_GB.field(2.0)
    threads: int | None = THREADS.field(None)
    linear: bool = False
    white_level: int | None = WHITE_LEVEL.field(None)
    megapixels: float = MEGAPIXELS.field(MAX_MEGAPIXELS)
    exact: bool = False
    fast: bool = False
    bayer: str | None = None
    keep_hot_pixels: bool = False
    dark: tuple[PathText, ...] = ()
    double: bool = False

    @property
    def read_settings(self) -> ReadSettings:
        """Settings of reading the files."""
        return ReadSettings(self.linear, self.white_level, self.megapixels)

    @property
    def dark_paths(self) -> list[Path]:
        """Paths of the dark frames."""
        return [Path(one) for one in self.dark]


@dataclass(frozen=True, eq=False)
class DenoiseResult:
    """A denoised picture in its spool, (1, C + 1, H, W), the last plane being the trust in the burst there.
    frame_numbers: the reference first. hot: number of the sensor's pixels that were replaced. bands: number of rows and
    columns of planes whose offset was taken off. residual_levels: the
    residual noise, one level a channel. shares: of the picture, by estimate (merge_tile.ESTIMATES). residual: mean
    square of the difference from the reference, over the variance of the noise. expected_residual: that of drawn noise.
    kernels: of a grid of points. maps: of all points, where requested. observations: of the caller's own observer, one
    a tile. single: where the resolution was doubled, the result before that."""

    burst: LoadedBurst
    spool: FrameStore
    noise: KnownNoise
    frame_numbers: tuple[int, ...]
    placement: Placement
    rejections: tuple[str, ...]
    hot: int
    bands: int
    filter: Filter
    residual_levels: tuple[NoiseLevel, ...]
    shares: Mapping[str, float]
    residual: float
    expected_residual: float
    strength: float
    kernels: tuple[Mapping[str, Any], ...]
    maps: FrameStore | None
    observations: tuple[Mapping[str, Any], ...]
    single: DenoiseResult | None = None
    doubling_line: str = ""

    @property
    def lines(self) -> list[str]:
        """Summary for the user."""
        frames = self.burst.frames
        rest = max(0.0, 1 - sum(self.shares.values()))
        sources = {SOURCES.get(name, name): share for name, share in self.shares.items()} | {"left as shot": rest}
        parts = ", ".join(f"{source} {100 * share:.1f} %" for source, share in sources.items() if share >= 0.0005)
        lines = [
            *self.burst.header.notes,
            f"reference: {frames[self.burst.reference].name}, {self.burst.reference_reason}"
            if len(frames) > 1
            else f"one frame: {frames[0].name}",
            *(f"dropped: {why}" for why in self.rejections),
            self.noise.summary,
            *self._bracket_lines,
            *([f"hot pixels of the sensor: {self.hot} replaced by the median of neighbours"] if self.hot else []),
            *([f"banding: offsets of {self.bands} rows and columns were taken off"] if self.bands else []),
            *self._bayer_lines,
            *self.burst.header.lens.lines(mosaic=self.burst.header.colour == "mosaic"),
            f"filter: {self.filter.name}",
            f"pixels: {parts}",
            *([self.doubling_line] if self.doubling_line else []),
        ]
        return lines + self.warnings

    @property
    def warnings(self) -> list[str]:
        """Warnings that more or less was taken off than noise."""
        lines = [self._excess_warning] if self.residual > TOO_LOUD else []
        if not self.expected_residual > 0:
            lines.append(
                "the noise could not be checked: with this level, every pixel is within its noise of black or white; "
                "check the level, or leave it out to have it found"
            )
        elif self.residual < TOO_QUIET * self.expected_residual:
            times = f"{self.residual / self.expected_residual:.2g}"
            lines.append(
                f"only {times} times the expected noise was found: its level is too high; give a lower --noise"
            )
        if shares := _find_blurred(self.burst, self.frame_numbers):
            first, *names = (self.burst.frames[i].name for i in (self.frame_numbers[0], *sorted(shares)))
            detail = f"less than {100 * LEAST_SHARPNESS:.0f} % of the fine detail of {first}"
            lines.append(f"{detail}: {', '.join(names)}; leave out what is blurred")
        return lines

    @property
    def _bracket_lines(self) -> tuple[str, ...]:
        """The exposures of a bracket's frames, in stops above that of the reference; nothing of another burst."""
        if not self.burst.is_bracket:
            return ()
        gains = [self.burst.frames[i].gain for i in self.frame_numbers]
        stops = ", ".join(f"{np.log2(gains[0] / gain):+.1f}" for gain in gains)
        return (f"bracket: exposures {stops} EV, merged by their exposure, without a network",)

    @property
    def _bayer_lines(self) -> tuple[str, ...]:
        """Lines on the merging of Bayer frames; none of others."""
        header = self.burst.header
        if header.sensor is None or header.sensor.pattern not in PATTERNS:
            return ()
        return (f"Bayer frames: merged as {'RGB, which they became first' if header.cell else 'planes'}",)

    @property
    def _excess_warning(self) -> str:
        """Warning that more was taken off than noise; one frame alone does not tell detail from noise."""
        if len(self.frame_numbers) == 1:
            return "one frame alone does not tell its noise from detail: give --noise READ,SHOT, or more frames"
        times = f"{self.residual:.2g}" if self.residual < MOST_SAID else f"more than {MOST_SAID}"
        causes = "its level is too low, or fine detail or colour fringes went with it"
        return f"{times} times the noise was taken off: {causes}"


@contextmanager
def denoise_frames(
    frames: Sequence[Path],
    out: Path,
    settings: DenoiseSettings,
    maps: bool = False,
    observe: merge_tile.Observer | None = None,
) -> Iterator[DenoiseResult]:
    """Denoise files into the work folder of `out`, which is removed when the block is left without an error. maps:
    whether maps of the weights are computed, too (kernel_maps.MapWriter). observe: a further observer of tiles, whose
    records are the result's observations.

    Raises InputError, UsageError, ModelError, StoreError, DiskFull, RunLocked, MissingExtra.
    """
    check_names(settings.checkpoint, settings.bayer, settings.fast)
    if settings.double:
        doubling.check_settings(settings.bayer, settings.strength)
    fingerprint = fingerprint_settings(settings) | {
        "version": __version__,
        "frames": [work_folder.fingerprint(path) for path in frames],
        "maps": maps,
        "observed": observe is not None,
    }
    count = settings.threads or available_cores()
    with work_folder.open_work_folder(out, fingerprint) as folder, devices.torch_threads(count):
        yield _denoise_in_folder(frames, folder, settings, maps, observe)


def _denoise_in_folder(
    frames: Sequence[Path], folder: Path, settings: DenoiseSettings, maps: bool, observe: merge_tile.Observer | None
) -> DenoiseResult:
    read_settings = replace(settings.read_settings, memory=settings.memory)
    burst = load_frames(frames, folder, settings.reference, read_settings, settings.dark_paths)
    check_network(burst, settings)
    if settings.double:
        doubling.check_burst(burst)
    calibration = Path(settings.calibration) if settings.calibration else None
    noise = sources.find_noise(burst, settings.noise, calibration)
    corrected_burst, hot = (
        (burst, 0) if settings.keep_hot_pixels else hot_pixels.replace_hot_pixels(burst, noise.levels, folder)
    )
    placement, order = _place_frames(corrected_burst, noise, folder)
    offsets = banding.find_offsets(corrected_burst, placement, order, noise.levels)
    if offsets is not None:
        burst, corrected_burst = (banding.remove_offsets(one, offsets) for one in (burst, corrected_burst))
    if offsets is not None or placement.is_turned:
        noise = sources.find_noise(burst, settings.noise, calibration, placement if placement.is_turned else None)
    if burst.is_bracket:
        factors = bracket.measure_exposures(corrected_burst, placement, order)
        burst, corrected_burst = (bracket.scale_frames(one, factors) for one in (burst, corrected_burst))
    mosaic = corrected_burst
    if is_filtered_as_rgb(burst, noise, settings):
        burst = corrected_burst = interpolate_burst(corrected_burst)
        noise = sources.for_interpolated(noise, burst.header)
        placement = placement.double_resolution(burst.spool.size)
    denoiser = (
        select_bracket_filter(settings.checkpoint, len(burst.order))
        if burst.is_bracket
        else select_filter(settings.checkpoint, burst.header, settings.exact, settings.fast)
    )
    reasons = _refuse_frames(burst, placement, order)
    used = [k for k in range(len(order)) if k not in reasons]
    dropped = [f.rejection for f in burst.frames if f.rejection] + list(reasons.values())
    C, H, W = burst.spool.shape[1:]
    numbers, placement = [order[k] for k in used], placement.select(used).snap_to_pixels()
    aligned_frames = store_aligned(corrected_burst.spool, placement, numbers, folder)
    result = FrameStore(folder / "result.f32", (1, C + 1, H, W))
    result.allocate()
    margin = motion_check.CHECK_MARGIN + denoiser.reach
    need = estimate_tile_memory(denoiser, C, len(used), resident_bytes())
    fits = tiles.choose_grid(
        (H, W), denoiser.halo + motion_check.CHECK_MARGIN, margin, need, settings.memory * 1e9, SAFETY
    )
    grid = tiles.restore_grid(fits, folder, settings.memory)
    clip_masks = bracket.find_clipped(corrected_burst) if burst.is_bracket else None
    map_store = allocate_maps(folder, denoiser, len(used), (H, W)) if maps else None
    merge = merge_tile.TileMerger(
        spool=aligned_frames,
        result=result,
        placement=placement,
        frames=numbers,
        gains=[burst.frames[i].gain for i in numbers],
        noise=noise.levels,
        filter=denoiser,
        limits=clipping_limits(burst),
        strength=settings.strength,
        noise_side=choose_noise_side(len(grid)),
        observe=make_observer((H, W), map_store, observe),
        clipping=clip_masks,
        interpolated=InterpolatedNoise.of(burst.header),
        only_measured=bool(burst.header.cell) and noise_over_light(burst, noise) <= MOST_NOISE_MEASURED,
    )
    records = tiles.process_tiles(grid, folder, merge, "denoising")
    pixels = np.array([tile["pixels"] for tile in records], float)
    moments = [np.array(tile["noise"]) for tile in records if "noise" in tile]

    def mean(name: str) -> float:
        return float(np.average([tile[name] for tile in records], weights=pixels))

    single = DenoiseResult(
        burst=burst,
        spool=result,
        noise=noise,
        frame_numbers=tuple(merge.frames),
        placement=merge.placement,
        rejections=tuple(dropped),
        hot=hot,
        bands=sum(int(np.count_nonzero(one)) for one in offsets or ()),
        filter=denoiser,
        residual_levels=residual_noise.fit_noise_levels(moments, noise.levels),
        shares={name: mean(name) for name in merge_tile.ESTIMATES},
        residual=mean("residual"),
        expected_residual=float(np.mean([tile["expected"] for tile in records if "expected" in tile])),
        strength=settings.strength,
        kernels=tuple(point for tile in records for point in tile.get("kernels", ())),
        maps=map_store,
        observations=tuple(tile[OBSERVED] for tile in records if OBSERVED in tile),
    )
    return double_result(single, mosaic, folder) if settings.double else single


def double_result(single: DenoiseResult, mosaic: LoadedBurst, folder: Path) -> DenoiseResult:
    """Double the resolution of a result in RGB. mosaic: the burst before its colours were interpolated."""
    picture = doubling.double_picture(
        single.spool,
        mosaic,
        single.placement,
        single.frame_numbers,
        single.noise.levels,
        single.residual_levels,
        folder,
    )
    return replace(
        single,
        burst=doubling.double_burst(single.burst),
        spool=picture.spool,
        residual_levels=picture.noise,
        single=single,
        doubling_line=picture.line,
    )


def fingerprint_settings(settings: DenoiseSettings) -> dict[str, Any]:
    """Return what a result depends on of its settings, with the hashes of the network's and the calibration's file."""
    told = settings.model_dump(mode="json", exclude={"memory", "threads"})
    dark = reading.list_frames(settings.dark_paths) if settings.dark else ()
    return {
        "settings": told,
        "checkpoint": _digest(settings.checkpoint),
        "calibration": _digest(None if settings.noise else settings.calibration or sources.default_file()),
        "dark": [work_folder.fingerprint(path) for path in dark],
    }


def check_network(burst: LoadedBurst, settings: DenoiseSettings) -> None:
    """Check that the network of the settings can filter a burst, before it is aligned; that of Bayer frames is checked
    when their colours are chosen. Raises UsageError, ModelError."""
    if burst.is_bracket:
        select_bracket_filter(settings.checkpoint, len(burst.order))
    elif settings.checkpoint is not None and burst.header.colour != "mosaic":
        select_filter(settings.checkpoint, burst.header, settings.exact, settings.fast)


def is_filtered_as_rgb(burst: LoadedBurst, noise: KnownNoise, settings: DenoiseSettings) -> bool:
    """Whether a Bayer burst is interpolated before it is filtered: by default not if its file prescribes corrections of
    the mosaic that are not applied here. Raises UsageError for a bracket that shall be."""
    if burst.header.colour != "mosaic":
        return False
    if burst.is_bracket:
        if settings.bayer not in (None, "planes"):
            rule = "frames of different exposures are merged as planes"
            raise UsageError("Bayer frames", got=settings.bayer, rule=rule, remedy="Leave --bayer out.")
        return False
    if settings.double:
        return True
    if burst.header.lens.obstacle and settings.bayer is None and settings.checkpoint is None:
        return False
    return choose_bayer_colour(settings.bayer, settings.checkpoint, noise_over_light(burst, noise)) == "rgb"


def noise_over_light(burst: LoadedBurst, noise: KnownNoise) -> float:
    """Compute the deviation of the noise at the mean light of the reference, over that light."""
    level = noise.mean.scale_by_gain(burst.frames[burst.reference].gain)
    light = max(burst.spool.mean(burst.reference), DARKEST_MEAN)
    return float(level.deviation(light)) / light


def choose_noise_side(count: int) -> int:
    """Choose the side of the middle of each of some tiles in which residual noise is measured, a multiple of STEP."""
    return max(LEAST_NOISE_SIDE, tiles.round_up_to_step(math.isqrt(NOISE_AREA // count))) if NOISE_AREA else 0


def allocate_maps(folder: Path, denoiser: Filter, count: int, size: tuple[int, int]) -> FrameStore:
    """Allocate the file of the maps of kernel_maps.MapWriter."""
    sizes = len(denoiser.network.preset.spec.sizes) if isinstance(denoiser, NetworkFilter) else 1
    frames = len(split_groups(denoiser, count)[0])
    height, width = (-(-side // kernel_maps.MAP_STEP) for side in size)
    spool = FrameStore(folder / "maps.f32", (1, frames + 2 + sizes, height, width))
    spool.allocate()
    return spool


OBSERVED = "observed"  # key of a tile's record, of the caller's own observer


def make_observer(
    size: tuple[int, int], maps: FrameStore | None, observe: merge_tile.Observer | None = None
) -> merge_tile.Observer:
    """Build the observer of tiles: it keeps the kernels of a grid of points, writes maps where requested, and keeps
    what the caller's own observer returns."""
    observers: list[merge_tile.Observer] = [kernel_maps.KernelGrid(size)]
    if maps is not None:
        observers.append(kernel_maps.MapWriter(maps))
    if observe is not None:
        observers.append(lambda tile, weights: {OBSERVED: observe(tile, weights)})
    return lambda tile, weights: reduce(or_, (dict(one(tile, weights)) for one in observers))


# share of the allowed memory: allocators keep freed pieces, and compilers and libraries take theirs on the first tile
SAFETY = 0.68


def estimate_tile_memory(denoiser: Filter, channels: int, frames: int, fixed: float) -> tiles.MemoryNeed:
    """Estimate the bytes of a tile beside `fixed`: the larger of computing weights and of applying them."""
    plane, count = 4 * channels, min(frames, denoiser.frames)
    if not isinstance(denoiser, NetworkFilter):
        return lambda context, window: fixed + plane * (4 * count + 12) * context
    network, value = denoiser.network, denoiser.value_bytes
    preset, body, N = network.preset, network.body, network.settings.frames + network.preset.mean_frame
    window_bytes = plane * count + 8 * N  # frames, their agreement and their trust
    largest = max(2 * body.inputs, body.peak_values_per_pixel) / preset.unshuffle**2  # parts of the input, and all
    input_plane = 4 * max(channels, COLOURS[network.settings.colour])
    input_bytes = window_bytes + 3 * input_plane + value * largest
    filter_bytes = value * N * preset.spec.taps / preset.spec.upscale**2 + plane * (2 * N + 6)
    return lambda context, window: fixed + max(input_bytes * window, window_bytes * window + filter_bytes * context)


def _refuse_frames(burst: LoadedBurst, placement: Placement, order: Sequence[int]) -> dict[int, str]:
    """Return the reasons not to merge frames, by their place in the order: they show another scene, or are blurred.
    None is refused as blurred if less than half, or one frame, were left: the reference may be noisier instead."""
    others = {k: burst.frames[i].name for k, i in enumerate(order) if placement.agreement_share(k) < LEAST_AGREEMENT}
    reasons = {k: f"{name} shows something else" for k, name in others.items() if k > 0}
    rest = [k for k in range(len(order)) if k not in reasons]
    shares = _find_blurred(burst, [order[k] for k in rest])
    if max(2, len(rest) / 2) <= len(rest) - len(shares):
        detail = f"of the fine detail of {burst.frames[order[0]].name}"
        for k in rest:
            if order[k] in shares:
                name, share = burst.frames[order[k]].name, shares[order[k]]
                reasons[k] = f"{name} is blurred: it has {100 * share:.0f} % {detail}"
    return reasons


def _find_blurred(burst: LoadedBurst, numbers: Sequence[int]) -> dict[int, float]:
    """Find the frames with less than LEAST_SHARPNESS of the first one's fine detail, and return their shares of it.
    None of a bracket: the noise of its frames differs, which counts as detail."""
    first = burst.frames[numbers[0]].detail
    if burst.is_bracket or first <= 0:
        return {}
    shares = {i: burst.frames[i].detail / first for i in numbers}
    return {i: share for i, share in shares.items() if share < LEAST_SHARPNESS}


def _place_frames(burst: LoadedBurst, noise: KnownNoise, folder: Path) -> tuple[Placement, list[int]]:
    """Align the frames. The result is cached in the folder, as alignment takes long."""
    order, cache_file = burst.order, folder / "placement.npz"
    if cache_file.exists():
        with translate_read_errors(cache_file), np.load(cache_file) as arrays:
            return Placement(**arrays), order
    if burst.is_bracket:
        placement = bracket.align_by_pairs(burst, noise.mean)
    else:
        placement = align_loaded_frames(burst, noise.mean, [frame.gain for frame in burst.frames], order)
    with replace_atomically(cache_file) as file:
        np.savez(file, **vars(placement))
    return placement, order


def clipping_limits(burst: LoadedBurst) -> motion_check.ClippingLimits:
    """Compute the values at which the reference is clipped; floating-point files are not clipped. Codes of colours
    whose black is 0 are cut off there."""
    header, gain = burst.header, burst.frames[burst.reference].gain
    if not header.levels:
        return motion_check.ClippingLimits()
    cut_at_black = header.sensor is None or (not header.sensor.pattern and not max(header.sensor.black))
    return motion_check.ClippingLimits(0.0 if cut_at_black else -np.inf, gain * (1 - 1e-6))


def _digest(file: str | Path | None) -> str | None:
    if file is None or not Path(file).is_file():
        return None if file is None else str(file)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
