"""The sources of a burst's noise level, in order: typed by the user, the NoiseProfile, a saved calibration (JSON,
{"camera": {"ISO": {"read": sigma_read, "shot": sigma_shot^2, "frames": N}}}), or the frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.cokriging import grey_variance, interpolate_mosaic, white_variance
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.photograph import Header
from klarsicht.burst.files.loading import MOST_DRIFT, LoadedBurst
from klarsicht.burst.noise import estimation
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.machine.disk import require_regular_file, write_atomically
from klarsicht.ground.machine.operating_system import user_folder
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

WINDOWS_A_SIDE, WINDOW_SIDE = 4, 256  # windows along a side, and the side of each in pixels
ESTIMATION_FRAMES = 8  # used for the estimate
SPECTRUM_SIDE = 480  # pixels of drawn noise whose spectrum is measured


@dataclass(frozen=True)
class KnownNoise:
    """A burst's noise. levels: one a plane, at gain 1. source: its origin, as text. doubt: a caveat, or empty."""

    levels: tuple[NoiseLevel, ...]
    source: str
    doubt: str = ""

    @property
    def mean(self) -> NoiseLevel:
        """The mean of the variances over planes."""
        read = float(np.sqrt(np.mean([level.read**2 for level in self.levels])))
        return NoiseLevel(read, float(np.mean([level.shot for level in self.levels])))

    @property
    def summary(self) -> str:
        """One line for the user: the mean level, the source and the caveat."""
        level = self.mean
        numbers = f"read deviation {level.read:.3g}, shot coefficient {level.shot:.3g} (variance at white)"
        return f"noise: {numbers}; {self.source}" + (f"; {self.doubt}" if self.doubt else "")


def find_noise(
    burst: LoadedBurst, text: str | None = None, calibration: Path | None = None, placement: Placement | None = None
) -> KnownNoise:
    """Find the noise of a burst. text: READ,SHOT. calibration: a file instead of the user's own. placement: of the
    burst's frames in its order, if it is known. All sources tell the noise of samples, which is scaled where colours
    are interpolated. Raises UsageError for an invalid text, InputError where no source has a level or the calibration
    is missing."""
    known = _find_noise_of_samples(burst, text, calibration, placement)
    return for_interpolated(known, burst.header) if burst.header.cell else known


def for_interpolated(noise: KnownNoise, header: Header) -> KnownNoise:
    """Convert the noise of the samples behind a mosaic, one level a plane, to white noise that is as strong at low
    frequencies as that of R, G and B after interpolation, because filter and tests take noise to be white."""
    R, *G, B = noise.levels
    green = NoiseLevel(float(np.sqrt(np.mean([g.read**2 for g in G]))), float(np.mean([g.shot for g in G])))
    factor = white_variance(header.cell)
    levels = tuple(level.scale_variance(factor) for level in (R, green, B))
    more = f"variance times {factor:g}, because interpolated colours have coarser noise"
    return replace(noise, levels=levels, source=f"{noise.source}, {more}")


def _find_noise_of_samples(
    burst: LoadedBurst, text: str | None, calibration: Path | None, placement: Placement | None
) -> KnownNoise:
    """Find the noise of a burst's samples, as `find_noise` does."""
    planes, header = burst.spool.shape[1], burst.header
    floor = header.quantisation
    if calibration is not None and not calibration.exists():
        remedy = "Check the path, or make it by klarsicht burst calibrate -o."
        raise InputError(f"no calibration: {calibration}", got="no such file", remedy=remedy)
    if text is not None:
        unused = _describe_unused(calibration, "--noise is given", "leave one of them out")
        return KnownNoise((parse_noise(text),) * planes, "as typed", unused)
    if header.profile:
        source = f"from the NoiseProfile of {header.path.name}"
        unused = _describe_unused(
            calibration, "the file states its noise itself", "give --noise READ,SHOT to overrule it"
        )
        return KnownNoise(_apply_floor(header.profile, floor), source, unused)
    file = calibration or default_file()
    if file and (saved := read_calibration(file, header.camera, header.iso)) is not None:
        return KnownNoise(_apply_floor((saved,) * planes, floor), f"calibrated for {header.camera}, ISO {header.iso}")
    if calibration and not header.camera and len(entries := list_calibrations(calibration)) == 1:
        ((camera, iso, level),) = entries
        return KnownNoise(
            _apply_floor((level,) * planes, floor), f"calibrated for {camera}, ISO {iso}; the frames name no camera"
        )
    estimate = estimate_from_frames(burst, placement)
    doubts = [
        "" if estimate.read_known else "read noise uncertain: no flat part is dark enough, or it is too weak",
        _describe_unused(calibration, _calibration_fault(header), "give --noise READ,SHOT, or calibrate for them"),
    ]
    source = f"estimated from the frames themselves ({estimate.blocks} flat blocks)"
    return KnownNoise(_apply_floor((estimate.noise,) * planes, floor), source, "; ".join(filter(None, doubts)))


def _describe_unused(calibration: Path | None, why: str, remedy: str) -> str:
    """Say that a calibration which the user named has no part in the result; empty without one."""
    return f"{calibration.name} was not used, as {why}: {remedy}" if calibration else ""


def _calibration_fault(header: Header) -> str:
    """Say why no entry of a calibration is that of the frames."""
    if not header.camera or not header.iso:
        return f"the frames name no {'ISO' if header.camera else 'camera'}"
    return f"it has no entry for {header.camera}, ISO {header.iso}"


def parse_noise(text: str) -> NoiseLevel:
    """Parse READ,SHOT: a standard deviation and a variance coefficient. Raises UsageError."""
    try:
        read, shot = (float(part) for part in text.split(","))
        NoiseLevel(read, shot)
    except (ValueError, UsageError) as error:
        raise UsageError(
            "--noise is no level", got=text,
            rule="READ,SHOT: deviation of the read noise, and variance of the shot noise at white, neither below 0",
            remedy="Write two numbers with a comma between them, such as 0.002,0.0004.",
        ) from error  # fmt: skip
    if not read and not shot:
        remedy = "Leave --noise out to have it found."
        raise UsageError("--noise is zero", got=text, rule="one of READ,SHOT is more than 0", remedy=remedy)
    return NoiseLevel(read, shot)


def _apply_floor(levels: Sequence[NoiseLevel], floor: float) -> tuple[NoiseLevel, ...]:
    """Raise read noise to at least `floor`, the deviation of rounding."""
    return tuple(NoiseLevel(max(level.read, floor, 1e-6), level.shot) for level in levels)


def estimate_from_frames(burst: LoadedBurst, placement: Placement | None = None) -> estimation.NoiseEstimate:
    """Estimate the noise of samples from windows spread over the burst. placement: of turned frames, in the burst's
    order, whose blocks are compared where it has them; None: windows are aligned by shifts."""
    header, windows = burst.header, sample_windows(burst.spool.size)
    numbers = sample_frames(burst)
    gain = np.float32(burst.frames[burst.reference].gain)
    places, starts = None, np.zeros((len(windows), len(numbers), 2), np.int64)
    if placement is not None:
        own = placement.select([burst.order.index(i) for i in numbers])
        pairs = [place_blocks(own, window) for window in windows]
        places, starts = [one for one, _ in pairs], np.stack([start for _, start in pairs])
    frames = [
        np.stack([burst.spool.read_window(i, w.translate(*d.tolist())) for i, d in zip(numbers, start, strict=True)])
        / gain
        for w, start in zip(windows, starts, strict=True)
    ]
    if not header.cell:
        return estimation.estimate(frames, places=places)
    white = generator(0, "noise of an interpolated mosaic").standard_normal((SPECTRUM_SIDE,) * 2, np.float32)
    noise = interpolate_mosaic(white, header.cell, header.rendering.gains)
    spectrum = estimation.NoiseSpectrum.measure(noise, grey_variance(header.cell))
    return estimation.estimate(frames, spectrum, places)


def place_blocks(placement: Placement, window: Window) -> tuple[estimation.BlockPlaces, npt.NDArray[np.int64]]:
    """Compute where the frames of a placement show the blocks of a window, from windows that are translated by whole
    pixels (N, 2), which are returned as well."""
    side = estimation.BLOCK_SIDE
    y, x = (
        first + side * np.arange(length // side) + (side - 1) / 2
        for first, length in zip((window.y0, window.x0), window.size, strict=True)
    )
    r, q = (np.rint((centre + 0.5) / STEP).astype(np.int64) for centre in (y, x))
    off = np.stack(np.broadcast_arrays((y - STEP * r + 0.5)[:, None], x - STEP * q + 0.5), -1)
    tiles = (slice(None), r[:, None], q)
    offsets = placement.fine[tiles] + np.einsum("nyxij,yxj->nyxi", placement.turns[tiles], off)
    starts = np.rint(np.median(offsets, (1, 2))).astype(np.int64)
    places = (offsets - starts[:, None, None]).astype(np.float32)
    return estimation.BlockPlaces(places, placement.agrees[tiles]), starts


def sample_frames(burst: LoadedBurst) -> list[int]:
    """Choose the usable frames exposed as the reference of which the noise is estimated."""
    gain = burst.frames[burst.reference].gain
    alike = [i for i in burst.order if 1 / MOST_DRIFT <= burst.frames[i].gain / gain <= MOST_DRIFT]
    return (alike if burst.is_bracket else burst.order)[:ESTIMATION_FRAMES]


def sample_windows(size: tuple[int, int]) -> list[Window]:
    """Choose windows on a grid over a picture, or all of a small one."""
    H, W = size
    h, w = min(WINDOW_SIDE, H), min(WINDOW_SIDE, W)
    if H * W <= WINDOWS_A_SIDE**2 * WINDOW_SIDE**2 / 2:
        return [Window(0, H, 0, W)]
    tops, lefts = (sorted({int(p) for p in np.linspace(0, side - s, WINDOWS_A_SIDE)}) for side, s in ((H, h), (W, w)))
    return [Window(y, y + h, x, x + w) for y in tops for x in lefts]


# Calibrations


def default_file() -> Path | None:
    """Return the path of noise.json in the user's configuration folder; None for a user without a home folder."""
    folder = user_folder("XDG_CONFIG_HOME", ".config")
    return None if folder is None else folder / "klarsicht" / "noise.json"


def read_calibration(file: Path, camera: str, iso: int | None) -> NoiseLevel | None:
    """Read the calibrated level of a camera and ISO, or None. Raises InputError for a file that is no calibration."""
    entry = _read(file).get(camera, {}).get(str(iso)) if camera and iso else None
    return None if entry is None else NoiseLevel(float(entry["read"]), float(entry["shot"]))


def list_calibrations(file: Path) -> list[tuple[str, str, NoiseLevel]]:
    """List camera, ISO and level of all entries of a file. Raises InputError for a file that is no calibration."""
    return [
        (camera, iso, NoiseLevel(float(entry["read"]), float(entry["shot"])))
        for camera, of_camera in _read(file).items()
        for iso, entry in of_camera.items()
    ]


def write_calibration(file: Path, camera: str, iso: int, noise: NoiseLevel, frames: int) -> None:
    """Add or replace one camera and ISO in the file, which keeps the others."""
    known = _read(file)
    entry = {"read": noise.read, "shot": noise.shot, "frames": frames}
    known.setdefault(camera, {})[str(iso)] = entry
    write_atomically(file, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())


def _read(file: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Read all calibrations of a file, none without one. Raises InputError for a file that is no calibration."""
    require_regular_file(file)
    if not file.exists():
        return {}
    try:
        record = json.loads(file.read_text("utf-8"))
        for isos in record.values():
            for entry in isos.values():
                NoiseLevel(float(entry["read"]), float(entry["shot"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise InputError(
            f"{file} is no calibration", got=error, rule='JSON, as `klarsicht burst calibrate` writes it',
            remedy="Name another file: --calibration, or -o of `klarsicht burst calibrate`.",
        ) from error  # fmt: skip
    return dict(record)
