"""A photograph as it was read: linear light, and what is needed to understand it and to write it back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.tiff_tags import NONE, Tags
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.imaging.tone import inverse_tone_curve

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]
Planes = npt.NDArray[np.float32]  # C H W

MAKE, MODEL, ORIENTATION, ISO, EXPOSURE_TIME, F_NUMBER = 271, 272, 274, 34855, 33434, 33437
MOST_BELOW_BLACK = 0.6  # of all pixels: a frame of nothing but noise has half of them there
MOST_ABOVE_WHITE = 0.02
VEIL, DARKEST = 0.02, 1e-3  # of white, that the darkest share of each plane should go below
ALIKE = 1.3  # times: light has a colour, but what a black level lacks is the same in all planes


@dataclass(frozen=True)
class Sensor:
    """How counts of a sensor become light: (count - black) / (white - black); black: one for each of R, G, G, B."""

    pattern: str
    black: tuple[float, ...]
    white: float

    def light(self, counts: Codes) -> Planes:
        """(H, W) counts to planes (4, H/2, W/2), 0 black, 1 white; not clipped."""
        black = np.array(self.black, np.float32)[:, None, None]
        planes: Planes = (to_planes(counts, self.pattern).astype(np.float32) - black) / (np.float32(self.white) - black)
        return planes


@dataclass(frozen=True)
class Rendering:
    """How a sensor's colours become a picture: gains of R, G, B (the least is 1), and (3, 3) from there to linear
    sRGB."""

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    matrix: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Header:
    """What a file says, but for its pixels.

    colour: mosaic, rgb or grey. sensor: of a mosaic. curve: the tone curve that was undone, srgb or none. levels: what
    codes reach (0 for floats). profile: noise by its NoiseProfile, one level a plane, or none. notes: what was assumed,
    for people. size: height and width as stored, before it is turned upright by `orientation` (TIFF's numbers).
    """

    path: Path
    colour: str
    size: tuple[int, int]
    levels: int
    curve: str = "none"
    sensor: Sensor | None = None
    rendering: Rendering = Rendering()
    orientation: int = 1
    icc: bytes | None = None
    tags: Tags = field(default=NONE, repr=False)
    profile: tuple[NoiseLevel, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def camera(self) -> str:
        """Make and model, or nothing."""
        make, model = self.tags.words(MAKE), self.tags.words(MODEL)
        return model if model.startswith(make) else f"{make} {model}".strip()

    @property
    def iso(self) -> int | None:
        iso = self.tags.number(ISO)
        return int(iso) if iso else None

    @property
    def exposure(self) -> float | None:
        """Relative to others of the camera: seconds times ISO over the square of the f-number, as far as known."""
        seconds, iso = self.tags.number(EXPOSURE_TIME), self.tags.number(ISO)
        return seconds * (iso or 100) / (self.tags.number(F_NUMBER) or 1) ** 2 if seconds else None

    @property
    def quantisation(self) -> float:
        """The deviation that rounding to codes adds, in units of white (of linear codes)."""
        span = self.sensor.white - min(self.sensor.black) if self.sensor else self.levels
        return 1 / np.sqrt(12) / span if span and self.curve == "none" else 0.0


@dataclass(frozen=True, eq=False)
class Photograph:
    """light: (C, H, W), linear; of a mosaic its four half-resolution planes."""

    light: Planes
    header: Header


def from_counts(counts: npt.NDArray[np.uint16], header: Header) -> Photograph:
    """Of a sensor. Raises InputError where black or white level cannot be right."""
    sensor = header.sensor
    assert sensor is not None
    _check_levels(counts, sensor, header.path)
    light = sensor.light(counts)
    return Photograph(light, replace(header, notes=(*header.notes, *veil(light))))


def veil(light: Planes) -> tuple[str, ...]:
    """A word where nothing is dark, and in all planes alike: as with a black level that is too low."""
    darkest = np.quantile(light[:, ::4, ::4].reshape(len(light), -1), DARKEST, axis=1)
    if darkest.min() < VEIL or darkest.max() > ALIKE * darkest.min():
        return ()
    return (f"nothing is darker than {darkest.min():.1%} of white, in any colour: the black level may be too low",)


def _check_levels(counts: npt.NDArray[np.uint16], sensor: Sensor, path: Path) -> None:
    black, white = max(sensor.black), sensor.white
    remedy = "Correct the file's tags, or leave it out."
    if not 0 <= black < white:
        got = f"black {black:g}, white {white:g}"
        raise InputError(f"{path.name} has impossible levels", got=got, rule="black must be below white", remedy=remedy)
    below, above = float(np.mean(counts < min(sensor.black))), float(np.mean(counts > white))
    if below > MOST_BELOW_BLACK:
        got = f"{below:.0%} of the pixels below it ({min(sensor.black):g})"
        raise InputError(f"{path.name} has a wrong black level", got=got, rule="at most half can be", remedy=remedy)
    if above > MOST_ABOVE_WHITE:
        got = f"{above:.0%} of the pixels above it ({white:g})"
        raise InputError(f"{path.name} has a wrong white level", got=got, rule="hardly any can be", remedy=remedy)


def from_codes(codes: Codes, header: Header) -> Photograph:
    """Of a picture (H, W) or (H, W, C), 8 or 16 bit under the tone curve that the header names, or linear floats.

    Raises InputError for values that are not finite.
    """
    planes = np.moveaxis(codes[..., None] if codes.ndim == 2 else codes, -1, 0)
    if codes.dtype.kind == "f":
        finite = np.isfinite(planes)
        if not finite.all():
            got, remedy = f"{np.count_nonzero(~finite)} values", "Repair them, or leave the file out."
            raise InputError(f"{header.path.name} has pixels that are no numbers", got=got, remedy=remedy)
        return Photograph(np.ascontiguousarray(planes, np.float32), header)
    return Photograph(response(header)[planes], header)


def response(header: Header) -> Planes:
    """(levels + 1,): the light of each code."""
    share = np.arange(header.levels + 1) / header.levels
    light = inverse_tone_curve(share) if header.curve == "srgb" else share
    return light.astype(np.float32)
