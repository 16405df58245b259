"""Is a burst's filter right, without any truth? Hold a frame out, filter the others, and look at the difference.

Y comes of the other frames, X_j is the one held out. If Y is right and the noise is as it is said to be, X_j - Y is
white, with the variance of X_j's noise and of what is left in Y. Y is brought to where X_j lies, not X_j to Y, since
interpolation would colour the noise; what a fraction of a pixel blurs counts against Y. Only where X_j shows what the
reference shows, by these two frames alone, and where Y would be trusted.

Axes: C channels, H W pixels, L bins of light.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import shift

from klarsicht.burst.align import tiled
from klarsicht.burst.align.tiled import STEP, Placement
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.denoise import hot_pixels, motion_check
from klarsicht.burst.denoise.filters import Filter
from klarsicht.burst.denoise.pipeline import DenoiseSettings, chosen_filter, limits
from klarsicht.burst.denoise.residual_noise import levels, sums
from klarsicht.burst.files import loading, reading
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.burst.noise import sources
from klarsicht.ground import devices
from klarsicht.ground.disk import writing
from klarsicht.ground.errors import InputError
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIDE = 8 * STEP  # of a window that is looked at
WINDOWS = 3  # along each side of the picture
LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
BINS = 6  # of light, each with as many pixels
VARIANCE, WHITE = 0.1, 0.05  # how far from 1 and from 0 is still right
SURE = 0.999  # of agreement
FEW = 0.01  # of the picture, not worth a word
BLOCK = 8  # pixels: side of a block in which loudness is measured
CLEAR = 4  # deviations from where frames are clipped


@dataclass(frozen=True, eq=False)
class Residuals:
    """Of one window: normalised (C, H, W), nan where nothing can be said, and the light they lie on. doubted: (H, W),
    where the frames show the same, and the burst is not trusted."""

    normalised: Planes
    light: Planes
    doubted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOutResult:
    """variance: mean of (X_j - Y)^2 over what is modelled, 1 if all is right; by light: (light, variance) of bins.
    correlation: by lag (y, x), 0 if white. looked_at: share of the windows where something can be said. doubted: share
    of them where frames show the same, and the burst is not trusted."""

    held_out: str
    variance: float
    by_light: tuple[tuple[float, float], ...]
    correlation: dict[tuple[int, int], float]
    looked_at: float
    doubted: float

    @property
    def right(self) -> bool:
        white = all(abs(value) <= WHITE for value in self.correlation.values())
        return abs(self.variance - 1) <= VARIANCE and white

    @property
    def lines(self) -> Iterator[str]:
        looked = f"looked at: {self.looked_at:.0%} of the picture, where it shows the same and the burst is trusted"
        yield f"held out: {self.held_out}; {looked} (not trusted: {self.doubted:.0%})"
        yield f"variance of the difference over the modelled: {self.variance:.3f} (1 if all is right)"
        yield "by light: " + ", ".join(f"{light:.3g}: {variance:.3f}" for light, variance in self.by_light)
        lags = ", ".join(f"({y}, {x}) {value:+.3f}" for (y, x), value in self.correlation.items())
        yield f"correlation between neighbours, 0 if the difference is white: {lags}"
        yield f"verdict: {self.explained}"

    @property
    def explained(self) -> str:
        if self.right:
            rest = f", but for the {self.doubted:.0%} where the burst is not trusted" if self.doubted > FEW else ""
            return f"the difference is noise as modelled{rest}"
        loudest, quietest = max(self.correlation.values(), key=abs), min(variance for _, variance in self.by_light)
        if abs(loudest) <= WHITE and self.variance > 1 and quietest <= 1 + VARIANCE:
            return "white, and as modelled in some light only: elsewhere detail was lost, or the noise grows faster"
        if abs(loudest) <= WHITE:
            return "white, but the noise level is too " + ("low" if self.variance > 1 else "high")
        return (
            "the difference is not white: detail was lost, frames do not lie on one another, or the noise is coloured"
        )


def check(
    frames: Sequence[Path], settings: DenoiseSettings, work: Path, hold_out: str | None = None
) -> tuple[list[str], HeldOutResult]:
    """What was found out about the noise, and the verdict; `work` is a folder for the frames.

    Raises InputError for fewer than three frames, or where nothing agrees; UsageError; ModelError.
    """
    files = reading.frames(frames)
    if len(files) < 3:
        rule = "a frame is held out, and two at least are filtered"
        raise InputError("too few frames", got=len(files), rule=rule)
    with writing(work), devices.threads(settings.threads or devices.available()):
        work.mkdir(parents=True, exist_ok=True)
        wound = loading.load_frames(files, work, settings.reference, settings.linear)
        noise = sources.find(wound, settings.noise, Path(settings.calibration) if settings.calibration else None)
        wound, _ = hot_pixels.mended(wound, noise.levels, work)
        held = chosen_frame(wound, hold_out)
        order = [*(i for i in wound.order if i != held), held]
        of_frames = [noise.mean.amplified(frame.gain) for frame in wound.frames]
        placement = tiled.place(wound.spool, of_frames, order)
        inner = chosen_filter(settings.checkpoint, wound.header.colour)
        parts = [
            residuals(wound, placement, order, noise.levels, inner, window) for window in windows(wound.spool.size)
        ]
    return [noise.told, f"filter: {inner.name}"], verdict(wound.frames[held].name, parts)


def chosen_frame(wound: LoadedBurst, name: str | None) -> int:
    """The one that is named, or the least sharp that can serve. Raises InputError for the reference."""
    if name is None:
        return wound.order[-1]
    names = [frame.name for frame in wound.frames]
    if name not in names or names.index(name) == wound.reference:
        remedy = "Name another, or another --reference."
        raise InputError("frame to hold out", got=name, rule="one of the frames, and not the reference", remedy=remedy)
    return names.index(name)


def windows(size: tuple[int, int]) -> list[Window]:
    """Parts of a picture, that begin at multiples of STEP."""
    corners = [sorted({int(p) // STEP * STEP for p in np.linspace(0, max(0, side - SIDE), WINDOWS)}) for side in size]
    return [Window(y, y + SIDE, x, x + SIDE).within(size) for y in corners[0] for x in corners[1]]


def residuals(
    wound: LoadedBurst,
    placement: Placement,
    order: Sequence[int],
    noise: Sequence[NoiseLevel],
    inner: Filter,
    own: Window,
) -> Residuals:
    """The last frame of the order is held out; of the others, as many are filtered as the filter takes at once."""
    margin = -(-(inner.halo + 4) // STEP) * STEP
    window = own.grown(margin).within(wound.spool.size)
    placed = placement.only([*range(min(len(order) - 1, inner.frames)), len(order) - 1])
    numbers = [*order[: len(placed.rest) - 1], order[-1]]
    frames = placed.aligned(wound.spool, numbers[:-1], window)
    held = placed.copied(wound.spool, order[-1], len(numbers) - 1, window)
    agreement = placed.agreement(window, wound.spool.size)
    given, theirs = ([level.amplified(wound.frames[i].gain) for level in noise] for i in (order[0], order[-1]))
    weighing = inner.weigh(frames, given, agreement[:-1])
    filtered = weighing()
    noise_there = [placed.between(alone, k, window) for k, alone in enumerate(noise_over(filtered, len(frames), given))]
    left = levels([sums(weighing(np.stack(noise_there)), filtered)], given)
    merged = moved(filtered, placed.rest[-1])
    there = (agreement[-1] >= SURE) & together(placed.shifts[-1], window)
    variance = np.stack([a.variance(Y) + b.variance(Y) for a, b, Y in zip(theirs, left, merged, strict=True)])
    clear = merged + CLEAR * np.sqrt(variance) < limits(wound).high
    same, trusted = comparable(frames[0], held, filtered, (given, theirs), limits(wound))
    there &= same
    normalised = np.where(there & trusted & clear, (held - merged) / np.sqrt(variance), np.nan)
    inside = (slice(None), *own.inside(window))
    return Residuals(normalised[inside].astype(np.float32), merged[inside], (there & ~trusted)[inside[1:]])


def comparable(
    reference: Planes,
    held: Planes,
    filtered: Planes,
    noise: tuple[Sequence[NoiseLevel], Sequence[NoiseLevel]],
    limits: motion_check.Limits,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(H, W): where two frames show the same, and where the filtered picture would be trusted. How loud their noise is,
    they say themselves: the level in question must not decide where it is looked at."""
    pair = [NoiseLevel(float(np.hypot(a.read, b.read)), a.shot + b.shot) for a, b in zip(*noise, strict=True)]
    loudness = _loudness(held - reference, filtered, pair)
    differs = motion_check.doubtful(reference, held, scaled(pair, loudness), limits)
    return ~differs, ~motion_check.doubtful(reference, filtered, scaled(noise[0], loudness), limits)


def _loudness(difference: Planes, light: Planes, noise: Sequence[NoiseLevel]) -> float:
    """Of a difference over its noise as modelled: the median over blocks of mean squares, so that most decide."""
    variance = np.stack([level.variance(x) for level, x in zip(noise, light, strict=True)])
    C, Y, X = (len(light), *(side // BLOCK for side in light.shape[1:]))
    squares = (np.square(difference) / variance)[:, : Y * BLOCK, : X * BLOCK]
    loudness = np.median(squares.reshape(C, Y, BLOCK, X, BLOCK).mean((0, 2, 4)))
    return float(loudness)


def scaled(noise: Sequence[NoiseLevel], variance: float) -> list[NoiseLevel]:
    return [NoiseLevel(level.read * variance**0.5, level.shot * variance) for level in noise]


def noise_over(light: Planes, count: int, noise: Sequence[NoiseLevel]) -> npt.NDArray[np.float32]:
    """(count, C, H, W): of frames that show the light."""
    z = generator(0, "held out").standard_normal((count, *light.shape), np.float32)
    deviation = np.stack([level.deviation(x) for level, x in zip(noise, light, strict=True)])
    noisy: npt.NDArray[np.float32] = (z * deviation).astype(np.float32)
    return noisy


def moved(light: Planes, by: npt.NDArray[np.float64]) -> Planes:
    """(C, H, W) as it lies a fraction of a pixel on, by cubic splines."""
    there: Planes = shift(light, (0, *by), order=3, mode="nearest")
    return there


def together(shifts: npt.NDArray[np.int64], window: Window) -> npt.NDArray[np.bool_]:
    """(H, W): where the frame's tiles, and those beside them, were moved as the whole frame was."""
    y, x = window.y0 // STEP, window.x0 // STEP
    own = (shifts == np.median(shifts, (0, 1))).all(-1)[y:, x:]
    four = own[:-1, :-1] & own[1:, :-1] & own[:-1, 1:] & own[1:, 1:]
    wide: npt.NDArray[np.bool_] = four.repeat(STEP, 0).repeat(STEP, 1)[: window.size[0], : window.size[1]]
    return wide


def verdict(name: str, parts: Sequence[Residuals]) -> HeldOutResult:
    """Raises InputError where no pixel agrees."""
    r = np.concatenate([part.normalised.ravel() for part in parts])
    known = np.isfinite(r)
    light = np.concatenate([part.light.ravel() for part in parts])[known]
    r = r[known]
    if not len(r):
        rule = "the frame held out agrees with the others nowhere"
        raise InputError("nothing to compare", got=name, rule=rule, remedy="Hold out another.")
    order = np.array_split(np.argsort(light, kind="stable"), BINS)
    by_light = tuple((float(light[k].mean()), float(np.square(r[k]).mean())) for k in order if len(k))
    correlation = {lag: correlated([part.normalised for part in parts], lag) for lag in LAGS}
    doubted = float(np.concatenate([part.doubted.ravel() for part in parts]).mean())
    return HeldOutResult(name, float(np.square(r).mean()), by_light, correlation, float(known.mean()), doubted)


def correlated(parts: Sequence[Planes], lag: tuple[int, int]) -> float:
    """Of values that far apart, over their mean square."""
    y, x = lag
    products, squares = [], []
    for r in parts:
        H, W = r.shape[1:]
        a, b = r[:, : H - y, : W - x], r[:, y:, x:]
        both = np.isfinite(a) & np.isfinite(b)
        products.append((a * b)[both])
        squares.append((np.square(a) + np.square(b))[both] / 2)
    return float(np.concatenate(products).mean() / max(float(np.concatenate(squares).mean()), 1e-12))
