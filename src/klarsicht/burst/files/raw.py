"""Reader of DNG and camera raw files by LibRaw (rawpy), as sensor counts; the tags are read by `tiff_tags`."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.burst.data import photograph
from klarsicht.burst.data.bayer import PATTERNS
from klarsicht.burst.data.cokriging import CELL, colour_numbers, interpolate_mosaic, is_x_trans
from klarsicht.burst.data.lens_corrections import read_corrections
from klarsicht.burst.data.photograph import (
    AS_WRITTEN,
    EXPOSURE_TIME,
    F_NUMBER,
    FOCAL_LENGTH,
    ISO,
    RGB_TO_XYZ,
    TIME_FORM,
    TIME_OF_CAPTURE,
    Header,
    Photograph,
    ReadSettings,
)
from klarsicht.burst.files import linear_dng
from klarsicht.burst.files.developed import parse_exif, require_own_ending
from klarsicht.burst.files.linear_dng import NOISE_PROFILE
from klarsicht.ground.errors import InputError, KlarsichtError
from klarsicht.ground.optional import load
from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.tiff_tags import NO_TAGS, Tags
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

RAW_ENDINGS = (
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw"),
    *(".sr2", ".raf", ".rw2", ".orf", ".pef", ".srw", ".raw"),
)
CFA_PLANE_COLOURS = 50710
FLIPS = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}  # LibRaw's flip to TIFF's orientation
MIN_SIDE = 32  # pixels
MOST_SECONDS = 4000  # of exposure, which a rational of millionths can hold
UNKNOWN_YEAR = 1970  # of LibRaw's time where the file says none
RAF_MAGIC, RAF_HEAD, RAF_PREVIEW = b"FUJIFILMCCD-RAW ", 92, 84
JPEG_WITH_EXIF = b"\xff\xd8\xff\xe1"  # start of image, and the application segment of EXIF
MOST_PREVIEW_HEAD = 1 << 17  # bytes: more than a segment can hold
BYTES_A_PIXEL = 12  # while counts become light: counts twice, and light twice
BYTES_A_PIXEL_RGB = 24  # the same of light that is interpolated


def read(path: Path, settings: ReadSettings = AS_WRITTEN) -> Photograph:
    """Read a raw file: a Bayer mosaic as its planes, an X-Trans mosaic interpolated to RGB in the camera's colours, and
    a linear DNG as it is.
    Raises InputError for damaged files, sensors with another pattern, implausible levels and more pixels than the
    settings allow; MissingExtra."""
    rawpy = load("rawpy", "raw")
    require_own_ending(path)
    tags = read_tags(path)  # before LibRaw, whose message for a truncated file is not helpful
    try:
        if path.suffix.lower() == ".dng" and tags.pages:
            tiff_tags.require_strips(tags.image, tags.length)
        if linear_dng.is_linear(tags):
            return linear_dng.read(path, tags, settings)
        with rawpy.imread(str(path)) as raw:
            width, height = raw.sizes.raw_width, raw.sizes.raw_height
            _require_header(path, width * height)
            settings.require_room(width, height, BYTES_A_PIXEL)
            if raw.raw_type != rawpy.RawType.Flat:
                raise _no_mosaic(path, "colours in layers")
            pattern = mosaic_pattern(raw, path)
            if pattern not in PATTERNS:
                settings.require_room(width, height, BYTES_A_PIXEL_RGB)
            counts = np.array(raw.raw_image_visible)
            header = _header(raw, path, tags, pattern)
    except (KlarsichtError, MemoryError):
        raise
    except Exception as error:  # LibRaw, and what is computed from tags that a damaged file holds
        told = error.args[0] if error.args else ""
        reason = told.decode(errors="replace") if isinstance(told, bytes) else str(error) or type(error).__name__
        remedy = "Copy the file again from the camera, or leave it out."
        raise InputError(
            f"cannot read {path.name}", got=reason, rule="DNG and camera raw files", remedy=remedy
        ) from error
    height, width = header.size
    if min(height, width) < MIN_SIDE:
        raise InputError(f"{path.name} is too small", got=f"{header.size}", rule=f"sides of {MIN_SIDE} at least")
    light_of = photograph.from_counts if header.colour == "mosaic" else _interpolate_x_trans
    return light_of(counts[:height, :width], header)


def _require_header(path: Path, samples: int) -> None:
    """Raise InputError for a file that holds samples of 8, 10, 12, 14 or 16 bits and nothing else: LibRaw guesses the
    size, the colours and white of such a file from its length."""
    length = path.stat().st_size
    if any(8 * length == bits * samples for bits in (8, 10, 12, 14, 16)):
        raise InputError(
            f"{path.name} has no header",
            got=f"{length} bytes of samples",
            rule="the file says its size, its colours and its white level",
            remedy="Save it as DNG, or interpolate the colours and save it as 16-bit TIFF; see --white-level.",
        )


def read_tags(path: Path) -> Tags:
    """Read the tags of a raw file; of Fujifilm's RAF, which is no TIFF, those in the EXIF of its JPEG preview, whose
    place the file's head tells; of other formats that are none (CR3, ORF, RW2), those that LibRaw knows. Raises
    InputError for damaged tags; MissingExtra."""
    with path.open("rb") as file:
        head = file.read(RAF_HEAD)
        if not head.startswith(RAF_MAGIC) or len(head) < RAF_HEAD:
            tags = tiff_tags.read(path)
            return tags if tags.pages else _tags_by_libraw(path)
        offset, length = struct.unpack_from(">2I", head, RAF_PREVIEW)
        file.seek(offset)
        preview = file.read(min(length, MOST_PREVIEW_HEAD))
    if preview[:4] != JPEG_WITH_EXIF:
        return NO_TAGS
    (size,) = struct.unpack_from(">H", preview, 4)
    return parse_exif(preview[6 : 4 + size])


def _tags_by_libraw(path: Path) -> Tags:
    """Return time of capture and exposure as LibRaw reads them; empty where it cannot read the file."""
    rawpy = load("rawpy", "raw")
    try:
        with rawpy.imread(str(path)) as raw:
            other = raw.other
    except (rawpy.LibRawError, ValueError, OverflowError):
        return NO_TAGS
    known = {EXPOSURE_TIME: other.shutter_speed, F_NUMBER: other.aperture, FOCAL_LENGTH: other.focal_length}
    exif = {tag: tiff_tags.rationals(value) for tag, value in known.items() if 0 < value < MOST_SECONDS}
    if other.iso_speed > 0:
        exif[ISO] = tiff_tags.numbers(tiff_tags.LONG, round(other.iso_speed))
    if other.timestamp.year > UNKNOWN_YEAR:
        exif[TIME_OF_CAPTURE] = tiff_tags.text(other.timestamp.strftime(TIME_FORM))
    return Tags({}, exif, {})


def mosaic_pattern(raw: Any, path: Path) -> str:
    """Return the visible sensor's Bayer pattern, or the 36 letters of X-Trans. Raises InputError for others."""
    wide = raw.raw_colors_visible[: 2 * CELL, : 2 * CELL]
    names = raw.color_desc.decode()
    for side in (2, CELL):
        cell = wide[:side, :side]
        pattern = "".join(names[c] for c in cell.ravel())
        repeats = np.array_equal(wide, np.tile(cell, (2 * CELL // side, 2 * CELL // side)))
        if repeats and (pattern in PATTERNS or is_x_trans(pattern)):
            return pattern
    raise _no_mosaic(path, "".join(names[c] for c in wide[:2, :2].ravel()) + "...")


def _no_mosaic(path: Path, got: str) -> InputError:
    rule = f"sensors behind one of {', '.join(PATTERNS)}, or X-Trans"
    remedy = "Develop the frames to linear 16-bit TIFF, without noise reduction, and denoise those with --linear."
    return InputError(f"{path.name} has no Bayer or X-Trans mosaic", got=got, rule=rule, remedy=remedy)


def _interpolate_x_trans(counts: photograph.Codes, header: Header) -> Photograph:
    """Convert X-Trans counts (H, W) to RGB in the camera's colours. Raises InputError for implausible levels."""
    sensor = header.sensor
    assert sensor is not None
    photograph.check_counts(counts, header)
    black = np.array(sensor.black, np.float32)[colour_numbers(sensor.pattern)]
    mosaic = counts.astype(np.float32)
    for y, x in np.ndindex(CELL, CELL):
        samples = mosaic[y::CELL, x::CELL]
        samples -= black[y, x]
        samples /= np.float32(sensor.white) - black[y, x]
    light = interpolate_mosaic(mosaic, sensor.pattern, header.rendering.gains, white=1.0)
    return Photograph(light, replace(header, notes=(*header.notes, *photograph.black_level_warnings(light))))


def _header(raw: Any, path: Path, tags: Tags, pattern: str) -> Header:
    """Build the header; black levels, by colour in LibRaw, are put in the order R, G, G, B or R, G, B."""
    height, width = raw.raw_image_visible.shape
    if bayer := pattern in PATTERNS:
        rows, columns = zip(*PATTERNS[pattern], strict=True)
        colours = raw.raw_colors_visible[list(rows), list(columns)]
    else:
        colours = [raw.color_desc.decode().index(letter) for letter in "RGB"]
    black = tuple(float(raw.black_level_per_channel[c]) for c in colours)
    levels = noise_profile(tags, path)
    return Header(
        path=path,
        colour="mosaic" if bayer else "rgb",
        size=(height // 2 * 2, width // 2 * 2) if bayer else (height, width),
        levels=int(raw.white_level),
        sensor=photograph.Sensor(pattern, black, float(raw.white_level)),
        rendering=read_rendering(raw),
        orientation=FLIPS.get(raw.sizes.flip, 1),
        tags=tags,
        profile=levels if bayer else levels[:1] + levels[2:],
        lens=read_corrections(tags, (height, width), path.name),
    )


def read_rendering(raw: Any) -> photograph.Rendering:
    """Return the white balance and colour matrix that the camera recorded."""
    red, green, blue = (float(g) for g in raw.camera_whitebalance[:3])
    gains = (red, green or 1.0, blue) if red > 0 and blue > 0 else (1.0, 1.0, 1.0)
    least = min(gains)
    to_camera = np.asarray(raw.rgb_xyz_matrix, float)[:3]
    if to_camera.any():
        forward = to_camera @ RGB_TO_XYZ
        matrix = np.linalg.inv(forward / forward.sum(1, keepdims=True))
    else:
        given = np.asarray(raw.color_matrix, float)[:3, :3]
        matrix = given if given.any() else np.eye(3)
    rows = tuple((float(a), float(b), float(c)) for a, b, c in matrix)
    return photograph.Rendering((gains[0] / least, gains[1] / least, gains[2] / least), rows)


def noise_profile(tags: Tags, path: Path) -> tuple[NoiseLevel, ...]:
    """Return the noise levels of the planes R, G, G, B from the tag NoiseProfile, which holds one pair, or one for each
    of the file's colours; empty without the tag. Raises InputError for another number of pairs."""
    entry = tags.find(NOISE_PROFILE)
    if entry is None or len(entry.values) < 2:
        return ()
    pairs = np.array(entry.values[: len(entry.values) // 2 * 2]).reshape(-1, 2)
    colours = tags.find(CFA_PLANE_COLOURS)
    order = [int(c) for c in colours.values] if colours is not None else [0, 1, 2]  # red, green, blue
    if len(pairs) == 1:
        planes = pairs[[0, 0, 0, 0]]
    elif set(order) == {0, 1, 2} and len(pairs) == len(order):
        planes = pairs[[order.index(c) for c in (0, 1, 1, 2)]]
    else:
        raise InputError(f"the NoiseProfile of {path.name}", got=f"{len(pairs)} pairs", rule="one, or one a colour")
    return tuple(NoiseLevel.from_profile(float(S), float(O)) for S, O in planes)  # noqa: E741
