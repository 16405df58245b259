"""A burst of files made into a clean picture: read -> noise -> hot pixels -> alignment -> tiles (weigh, filter, trust).

All of it in bounded memory, kept in a work folder, and gone on with where it was stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from klarsicht import __version__
from klarsicht.burst.align import tiled
from klarsicht.burst.align.tiled import Placement
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.denoise import (
    hot_pixels,
    kernel_maps,
    merge_tile,
    motion_check,
    residual_noise,
    tiles,
    work_folder,
)
from klarsicht.burst.denoise.filters import Filter, MeanFilter, NetworkFilter, check_colour, in_groups
from klarsicht.burst.files.loading import LoadedBurst, load_frames
from klarsicht.burst.network import checkpoints, pretrained
from klarsicht.burst.network.unet import COLOURS
from klarsicht.burst.noise import sources
from klarsicht.burst.noise.sources import KnownNoise
from klarsicht.ground import devices
from klarsicht.ground.config import Settings
from klarsicht.ground.disk import replacing
from klarsicht.ground.memory import resident
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

TOO_LOUD = 1.3  # times the noise, in what was taken off
SAMPLED = 6  # tiles through which noise is sent
LEAST_AGREEMENT = 0.2  # of the tiles of a frame, else it shows something else


class DenoiseSettings(Settings):
    """checkpoint: a network's file, or the name of one that comes along. noise: READ,SHOT. calibration: a file of them.
    reference: a frame's name or number. memory: in GB, everything included. linear: codes of TIFF, PNG and JPEG are
    light. strength: 0 leaves the reference, 1 is all that is known.
    """

    checkpoint: str | None = None
    noise: str | None = None
    calibration: str | None = None
    reference: str | None = None
    strength: float = Field(default=1.0, ge=0, le=1)
    memory: float = Field(default=2.0, gt=0)
    threads: int | None = Field(default=None, ge=1)
    linear: bool = False


@dataclass(frozen=True, eq=False)
class Denoised:
    """A finished picture in its spool, (1, C + 1, H, W), the last plane how far the burst was trusted there.

    used: the frames, the reference first. hot: pixels of the sensor that were replaced in all of them. remaining: the
    noise that is left, one level a channel. shares: of the picture, by what it is made of (merging.ESTIMATES).
    residual: mean square of what was taken off, over the variance of the noise. kernels: those of a grid of points
    (explanation.KernelGrid). maps: of all points, where asked for.
    """

    roll: LoadedBurst
    spool: FrameStore
    noise: KnownNoise
    used: tuple[int, ...]
    placement: Placement
    dropped: tuple[str, ...]
    hot: int
    filter: Filter
    remaining: tuple[NoiseLevel, ...]
    shares: Mapping[str, float]
    residual: float
    kernels: tuple[Mapping[str, Any], ...]
    maps: FrameStore | None

    @property
    def lines(self) -> list[str]:
        """For people."""
        frames = self.roll.frames
        rest = max(0.0, 1 - sum(self.shares.values()))
        parts = ", ".join(f"{name} {share:.1%}" for name, share in {**self.shares, "reference as it is": rest}.items())
        lines = [
            *self.roll.header.notes,
            f"reference: {frames[self.roll.reference].name}, the sharpest of {len(frames)}"
            if len(frames) > 1
            else f"one frame: {frames[0].name}",
            *(f"dropped: {why}" for why in self.dropped),
            self.noise.told,
            *([f"hot pixels: {self.hot} of the sensor were replaced by their neighbours"] if self.hot else []),
            f"filter: {self.filter.name}",
            f"made of: {parts}",
        ]
        if self.residual > TOO_LOUD:
            told = f"{self.residual:.2g} times the noise was taken off: its level may be too low"
            lines.append(told)
        return lines


@contextmanager
def denoised(frames: Sequence[Path], out: Path, settings: DenoiseSettings, maps: bool = False) -> Iterator[Denoised]:
    """Denoises files into the work folder of `out`, which is removed when the block is left without an error.

    maps: of the weights, too (explanation.Mapper).

    Raises InputError, UsageError, ModelError, StoreError, DiskFull, RunLocked, MissingExtra.
    """
    wanted = {
        "version": __version__,
        "settings": settings.model_dump(mode="json", exclude={"memory", "threads"}),
        "frames": [work_folder.fingerprint(path) for path in frames],
        "checkpoint": _digest(settings.checkpoint),
        "maps": maps,
    }
    count = settings.threads or devices.available()
    with work_folder.folder(out, wanted) as folder, devices.threads(count):
        yield _made(frames, folder, settings, maps)


def _made(frames: Sequence[Path], folder: Path, settings: DenoiseSettings, maps: bool) -> Denoised:
    wound = load_frames(frames, folder, settings.reference, settings.linear)
    calibration = Path(settings.calibration) if settings.calibration else None
    noise = sources.find(wound, settings.noise, calibration)
    inner = chosen_filter(settings.checkpoint, wound.header.colour)
    mended, hot = hot_pixels.mended(wound, noise.levels, folder)
    placement, order = _placed(mended, noise, folder)
    used = [k for k in range(len(order)) if k == 0 or placement.share(k) >= LEAST_AGREEMENT]
    dropped = [f.refused for f in wound.frames if f.refused]
    dropped += [f"{wound.frames[i].name} shows something else" for k, i in enumerate(order) if k not in used]
    C, H, W = wound.spool.shape[1:]
    result = FrameStore(folder / "result.f32", (1, C + 1, H, W))
    result.allocate()
    close = motion_check.MARGIN + inner.reach
    need = tile_bytes(inner, C, len(used), resident())
    fits = tiles.fitting((H, W), inner.halo + motion_check.MARGIN, close, need, settings.memory * 1e9 * SAFETY)
    grid = tiles.kept(fits, folder, settings.memory)
    drawn = map_spool(folder, inner, len(used), (H, W)) if maps else None
    merge = merge_tile.Merge(
        spool=mended.spool,
        result=result,
        placement=placement.only(used),
        frames=[order[k] for k in used],
        gains=[wound.frames[order[k]].gain for k in used],
        noise=noise.levels,
        filter=inner,
        limits=limits(wound),
        strength=settings.strength,
        sampled=tiles.evenly(len(grid), SAMPLED),
        observe=observer((H, W), drawn),
    )
    told = tiles.run(grid, folder, merge, "denoising")
    pixels = np.array([tile["pixels"] for tile in told], float)

    def mean(name: str) -> float:
        return float(np.average([tile[name] for tile in told], weights=pixels))

    return Denoised(
        roll=wound,
        spool=result,
        noise=noise,
        used=tuple(merge.frames),
        placement=merge.placement,
        dropped=tuple(dropped),
        hot=hot,
        filter=inner,
        remaining=residual_noise.levels(merge_tile.remaining(told), noise.levels),
        shares={name: mean(name) for name in merge_tile.ESTIMATES},
        residual=mean("residual"),
        kernels=tuple(point for tile in told for point in tile.get("kernels", ())),
        maps=drawn,
    )


def map_spool(folder: Path, inner: Filter, used: int, size: tuple[int, int]) -> FrameStore:
    """Room for explanation.Mapper's maps."""
    sizes = len(inner.network.preset.spec.sizes) if isinstance(inner, NetworkFilter) else 1
    frames = len(in_groups(inner, used)[0])
    height, width = (-(-side // kernel_maps.EVERY) for side in size)
    spool = FrameStore(folder / "maps.f32", (1, frames + 2 + sizes, height, width))
    spool.allocate()
    return spool


def observer(size: tuple[int, int], maps: FrameStore | None) -> merge_tile.Observer:
    """Keeps the kernels of a grid of points, and draws maps where asked for."""
    grid = kernel_maps.KernelGrid(size)
    if maps is None:
        return grid
    draw = kernel_maps.Mapper(maps)
    return lambda tile, weighing: {**draw(tile, weighing), **grid(tile, weighing)}


SAFETY = 0.85  # of the memory allowed: allocators keep some, and compilers and libraries take theirs on the first tile


def tile_bytes(inner: Filter, channels: int, frames: int, fixed: float) -> tiles.Need:
    """Of memory, about, beside what is `fixed`: while a filter looks at a window, or while weights lie on what is
    near."""
    plane, count = 4 * channels, min(frames, inner.frames)
    if not isinstance(inner, NetworkFilter):
        return lambda near, window: fixed + plane * (4 * count + 12) * near
    network = inner.network
    seen = network.settings.frames + network.preset.mean_frame
    taps = seen * network.preset.spec.taps
    body = 4 * network.body.alive / network.preset.entry**2
    shown = 4 * max(channels, COLOURS[network.settings.colour])
    looking, lying = shown * (count + 3.2 * seen) + body, taps + plane * (count + 3 * seen)
    return lambda near, window: fixed + max(looking * window, plane * seen * window + lying * near)


def _placed(wound: LoadedBurst, noise: KnownNoise, folder: Path) -> tuple[Placement, list[int]]:
    """Kept in the folder, too: aligning takes a while."""
    order, kept = wound.order, folder / "placed.npz"
    if kept.exists():
        with np.load(kept) as arrays:
            return Placement(**arrays), order
    levels = [noise.mean.amplified(frame.gain) for frame in wound.frames]
    placement = tiled.place(wound.spool, levels, order)
    with replacing(kept) as file:
        np.savez(file, **vars(placement))
    return placement, order


def limits(wound: LoadedBurst) -> motion_check.Limits:
    """Where the reference is clipped; floats are not."""
    header, gain = wound.header, wound.frames[wound.reference].gain
    if not header.levels:
        return motion_check.Limits()
    return motion_check.Limits(0.0 if header.sensor is None else -np.inf, gain * (1 - 1e-6))


def chosen_filter(checkpoint: str | None, colour: str) -> Filter:
    """The network of a file, or the one that ships for such frames, or none. Raises ModelError, UsageError."""
    file = Path(checkpoint) if checkpoint else pretrained.serving(colour)
    if file is None:
        return MeanFilter()
    network = checkpoints.load_network(file)
    if checkpoint:
        check_colour(network, colour)
    return NetworkFilter(network.to(devices.device()), name=f"network {file.name} ({network.settings.preset})")


def _digest(checkpoint: str | None) -> str | None:
    if checkpoint is None or not Path(checkpoint).is_file():
        return checkpoint
    return hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
