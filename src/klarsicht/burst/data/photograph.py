"""A photograph as it was read: linear light, and the metadata needed to interpret it and to write it back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.lens_corrections import NO_CORRECTIONS, LensCorrections
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.memory import resident_bytes, short_budget
from klarsicht.ground.pictures.images import MAX_MEGAPIXELS, require_megapixels
from klarsicht.ground.pictures.tiff_tags import NO_TAGS, Tags
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.imaging.tone import SLOPE_BELOW, inverse_tone_curve

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]
Planes = npt.NDArray[np.float32]  # C H W

RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)  # sRGB primaries, white D65
MAKE, MODEL, ORIENTATION, ISO, EXPOSURE_TIME, F_NUMBER, FOCAL_LENGTH = 271, 272, 274, 34855, 33434, 33437, 37386
TIME_OF_CAPTURE, TIME_FORM = 36867, "%Y:%m:%d %H:%M:%S"
MOST_BELOW_BLACK = 0.6  # share of pixels; in a frame of pure noise it is half
MOST_ABOVE_WHITE = 0.02  # share of pixels
BRIGHTEST_DARK, DARKEST = 0.02, 1e-3  # a plane is suspect if its DARKEST quantile exceeds this share of white
MAX_PLANE_RATIO = 1.3  # between planes: light has a colour, but an error of the black level is equal in all planes


@dataclass(frozen=True)
class ReadSettings:
    """Settings of reading files. linear: codes of TIFF, PNG, JPEG and HEIC files are linear light. white_level: code of
    white in 16-bit TIFF and PNG files; None: 65535. megapixels: the largest picture. memory: limit in GB while a
    picture is read, everything included; None: no limit."""

    linear: bool = False
    white_level: int | None = None
    megapixels: float = MAX_MEGAPIXELS
    memory: float | None = None

    def require_room(self, width: int, height: int, bytes_a_pixel: int) -> None:
        """Check, before it is decoded, a picture's pixels and memory. Raises ValueError for too many pixels, UsageError
        where memory is too small; both name the option."""
        require_megapixels(width, height, self.megapixels)
        need = resident_bytes() + width * height * bytes_a_pixel
        if self.memory is not None and need > self.memory * 1e9:
            raise short_budget(self.memory * 1e9, need, f"reading a frame of {width} x {height} pixels takes")


AS_WRITTEN = ReadSettings()
"""What nothing else is said of: the sRGB curve, the whole range, and the default bound."""


@dataclass(frozen=True)
class Sensor:
    """Levels of a sensor: light is (count - black) / (white - black). pattern: a Bayer pattern, or the 36 letters of a
    cell of X-Trans. black: for each of R, G, G, B, of X-Trans for R, G, B."""

    pattern: str
    black: tuple[float, ...]
    white: float

    def light(self, counts: Codes) -> Planes:
        """Convert counts (H, W) behind a Bayer pattern to planes (4, H/2, W/2), 0 black and 1 white, not clipped."""
        black = np.array(self.black, np.float32)[:, None, None]
        return (to_planes(counts, self.pattern).astype(np.float32) - black) / (np.float32(self.white) - black)


@dataclass(frozen=True)
class Rendering:
    """White balance and colour matrix of a camera: gains of R, G, B (the least is 1), and a (3, 3) matrix from balanced
    camera colours to linear sRGB."""

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    matrix: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Header:
    """Metadata of a photograph file. colour: mosaic (of Bayer), rgb or grey. size: height and width as stored, before
    it is turned upright by `orientation` (TIFF's values 1 to 8). levels: the highest code (0 for floats). curve: the
    tone curve that was undone, srgb or none. sensor, lens: only of raw files. profile: the noise levels of the
    NoiseProfile tag, one a plane, or empty. notes: assumptions that were made, for the user."""

    path: Path
    colour: str
    size: tuple[int, int]
    levels: int
    curve: str = "none"
    sensor: Sensor | None = None
    rendering: Rendering = Rendering()
    orientation: int = 1
    icc: bytes | None = None
    tags: Tags = field(default=NO_TAGS, repr=False)
    profile: tuple[NoiseLevel, ...] = ()
    lens: LensCorrections = NO_CORRECTIONS
    notes: tuple[str, ...] = ()

    @property
    def is_raw(self) -> bool:
        """Whether light is a sensor's: in the camera's colours, without white balance, and not cut off at black."""
        return self.sensor is not None

    @property
    def cell(self) -> str:
        """The cell of the mosaic whose colours were interpolated, so that noise is not white; empty otherwise."""
        return self.sensor.pattern if self.sensor and self.colour != "mosaic" else ""

    @property
    def camera(self) -> str:
        """The make and model of the camera, or an empty text."""
        make, model = self.tags.words(MAKE), self.tags.words(MODEL)
        return model if model.startswith(make) else f"{make} {model}".strip()

    @property
    def iso(self) -> int | None:
        iso = self.tags.number(ISO)
        return int(iso) if iso else None

    @property
    def exposure(self) -> float | None:
        """The exposure: seconds times ISO over the square of the f-number, as far as known; None without a time."""
        seconds, iso = self.tags.number(EXPOSURE_TIME), self.tags.number(ISO)
        return seconds * (iso or 100) / (self.tags.number(F_NUMBER) or 1) ** 2 if seconds else None

    @property
    def quantisation(self) -> float:
        """The standard deviation of rounding to codes, in units of white: under the sRGB curve that of the darkest
        codes, which is the smallest; 0 of floats."""
        span = self.sensor.white - min(self.sensor.black) if self.sensor else self.levels
        steepest = 1.0 if self.curve == "none" else SLOPE_BELOW
        return 1 / np.sqrt(12) / span / steepest if span else 0.0


@dataclass(frozen=True, eq=False)
class Photograph:
    """Linear light (C, H, W) with its header; of a mosaic its four half-resolution planes."""

    light: Planes
    header: Header


def from_counts(counts: npt.NDArray[np.uint16], header: Header) -> Photograph:
    """Convert the counts of a sensor to a photograph. Raises InputError for implausible levels."""
    sensor = header.sensor
    assert sensor is not None
    check_counts(counts, header)
    light = sensor.light(counts)
    return Photograph(light, replace(header, notes=(*header.notes, *black_level_warnings(light))))


def black_level_warnings(light: Planes) -> tuple[str, ...]:
    """Return a warning if no pixel is dark and the darkest values are alike in all planes."""
    darkest = np.quantile(light[:, ::4, ::4].reshape(len(light), -1), DARKEST, axis=1)
    if darkest.min() < BRIGHTEST_DARK or darkest.max() > MAX_PLANE_RATIO * darkest.min():
        return ()
    return (f"nothing is darker than {darkest.min():.1%} of white, in any colour: the black level may be too low",)


def check_counts(counts: Codes, header: Header, has_white: bool = True) -> None:
    """Raise InputError if black is not below white, or if too many counts lie below black or above white. has_white:
    whether none can be brighter, as of a sensor; what gains of a lens lift may be."""
    sensor, path = header.sensor, header.path
    assert sensor is not None
    black, white = max(sensor.black), sensor.white
    remedy = "Correct the file's tags, or leave it out."
    if not 0 <= black < white:
        got = f"black {black:g}, white {white:g}"
        raise InputError(f"{path.name} has impossible levels", got=got, rule="black must be below white", remedy=remedy)
    below, above = float(np.mean(counts < min(sensor.black))), float(np.mean(counts > white))
    if below > MOST_BELOW_BLACK:
        got = f"{below:.0%} of the pixels below it ({min(sensor.black):g})"
        raise InputError(f"{path.name} has a wrong black level", got=got, rule="at most half can be", remedy=remedy)
    if has_white and above > MOST_ABOVE_WHITE:
        got = f"{above:.0%} of the pixels above it ({white:g})"
        raise InputError(f"{path.name} has a wrong white level", got=got, rule="hardly any can be", remedy=remedy)


def from_codes(codes: Codes, header: Header) -> Photograph:
    """Convert a picture (H, W) or (H, W, C), 8 or 16 bit under the header's tone curve or linear floats; codes above
    white are clipped. Raises InputError for values that are not finite, and where many codes lie above white."""
    planes = np.moveaxis(codes[..., None] if codes.ndim == 2 else codes, -1, 0)
    if codes.dtype.kind == "f":
        finite = np.isfinite(planes)
        if not finite.all():
            got, remedy = f"{np.count_nonzero(~finite)} values", "Repair them, or leave the file out."
            raise InputError(f"{header.path.name} has pixels that are no numbers", got=got, remedy=remedy)
        return Photograph(np.ascontiguousarray(planes, np.float32), header)
    if header.levels < 2 ** (8 * codes.dtype.itemsize) - 1:
        above = float(np.mean(planes > header.levels))
        if above > MOST_ABOVE_WHITE:
            got = f"{above:.0%} of the codes above it ({header.levels})"
            raise InputError(f"{header.path.name} has a higher white level", got=got, remedy="Correct --white-level.")
        planes = np.minimum(planes, planes.dtype.type(header.levels))
    return Photograph(response_curve(header)[planes], header)


def response_curve(header: Header) -> Planes:
    """Return the linear light (levels + 1,) of each code: the inverse of the tone curve that the header names."""
    share = np.arange(header.levels + 1) / header.levels
    light = inverse_tone_curve(share) if header.curve == "srgb" else share
    return light.astype(np.float32)
