"""Where the noise numbers of a burst come from: typed, the files' NoiseProfile, a saved calibration, or the frames.

A calibration is a JSON file, {"camera": {"ISO": {"read": sigma_read, "shot": sigma_shot^2, "frames": N}}}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.burst.noise import estimation
from klarsicht.ground.disk import write_atomically
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

WINDOWS, WINDOW = 4, 256  # along a side, and pixels of each
MOST_FRAMES = 8  # that are looked at


@dataclass(frozen=True)
class KnownNoise:
    """levels: one a plane, of a frame of gain 1. source: in words. doubt: what to beware of, or nothing."""

    levels: tuple[NoiseLevel, ...]
    source: str
    doubt: str = ""

    @property
    def mean(self) -> NoiseLevel:
        """Over planes, of variances."""
        read = float(np.sqrt(np.mean([level.read**2 for level in self.levels])))
        return NoiseLevel(read, float(np.mean([level.shot for level in self.levels])))

    @property
    def told(self) -> str:
        level = self.mean
        numbers = f"read deviation {level.read:.3g}, shot coefficient {level.shot:.3g} (variance at white)"
        return f"noise: {numbers}; {self.source}" + (f"; {self.doubt}" if self.doubt else "")


def find(roll: LoadedBurst, typed: str | None = None, calibration: Path | None = None) -> KnownNoise:
    """Raises UsageError for a typed level that is none, InputError where nothing can be found."""
    planes, header = roll.spool.shape[1], roll.header
    floor = header.quantisation
    if typed is not None:
        return KnownNoise((parsed(typed),) * planes, "as typed")
    if header.profile:
        return KnownNoise(_floored(header.profile, floor), f"from the NoiseProfile of {header.path.name}")
    file = calibration or default_file()
    if (saved := look_up(file, header.camera, header.iso)) is not None:
        return KnownNoise(_floored((saved,) * planes, floor), f"calibrated for {header.camera}, ISO {header.iso}")
    found = blind(roll)
    doubt = "" if found.read_known else "read noise not identifiable, as nothing is dark"
    source = f"estimated from the frames themselves ({found.blocks} flat blocks)"
    return KnownNoise(_floored((found.noise,) * planes, floor), source, doubt)


def parsed(typed: str) -> NoiseLevel:
    """READ,SHOT: a deviation and a variance coefficient."""
    try:
        read, shot = (float(part) for part in typed.split(","))
    except ValueError as error:
        rule = "READ,SHOT: deviation of the read noise, and variance of the shot noise at white"
        raise UsageError("noise", got=typed, rule=rule, remedy="For instance 0.002,0.0004.") from error
    if not read and not shot:
        raise UsageError("noise", got=typed, rule="one of them must be more than 0")
    return NoiseLevel(read, shot)


def _floored(levels: Sequence[NoiseLevel], floor: float) -> tuple[NoiseLevel, ...]:
    """No sensor is quieter than its rounding."""
    return tuple(NoiseLevel(max(level.read, floor, 1e-6), level.shot) for level in levels)


def blind(roll: LoadedBurst) -> estimation.NoiseEstimate:
    """From windows spread over the burst."""
    return estimation.estimate(sample(roll))


def sample(roll: LoadedBurst) -> list[Frames]:
    """Windows (N, C, h, w) of the frames that can serve, on a grid over the picture."""
    frames = roll.order[:MOST_FRAMES]
    H, W = roll.spool.size
    h, w = min(WINDOW, H), min(WINDOW, W)
    tops, lefts = (sorted({int(p) for p in np.linspace(0, side - s, WINDOWS)}) for side, s in ((H, h), (W, w)))
    if H * W <= WINDOWS**2 * WINDOW**2 / 2:
        return [roll.spool.windows(frames, Window(0, H, 0, W))]
    return [roll.spool.windows(frames, Window(y, y + h, x, x + w)) for y in tops for x in lefts]


# Calibrations


def default_file() -> Path:
    """noise.json in the user's folder of settings."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "klarsicht" / "noise.json"


def look_up(file: Path, camera: str, iso: int | None) -> NoiseLevel | None:
    """Raises InputError for a file that is no calibration."""
    entry = _read(file).get(camera, {}).get(str(iso)) if camera and iso else None
    return None if entry is None else NoiseLevel(float(entry["read"]), float(entry["shot"]))


def remember(file: Path, camera: str, iso: int, noise: NoiseLevel, frames: int) -> None:
    """Adds or replaces one camera and ISO in the file, which keeps the others."""
    known = _read(file)
    entry = {"read": noise.read, "shot": noise.shot, "frames": frames}
    known.setdefault(camera, {})[str(iso)] = entry
    write_atomically(file, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())


def _read(file: Path) -> dict[str, dict[str, dict[str, float]]]:
    if not file.exists():
        return {}
    try:
        known = json.loads(file.read_text("utf-8"))
        for isos in known.values():
            for entry in isos.values():
                NoiseLevel(float(entry["read"]), float(entry["shot"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        remedy = "Move it away and calibrate again."
        raise InputError(
            f"{file} is no calibration", got=error, rule='{"camera": {"ISO": ...}}', remedy=remedy
        ) from error
    return dict(known)
