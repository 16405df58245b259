"""Reader of linear DNG files: colours that a phone or a program has interpolated (ProRAW, merged panoramas, the linear
DNG that `dng` writes), decoded by tifffile under any compression that imagecodecs has a decoder for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.burst.data import photograph
from klarsicht.burst.data.lens_corrections import ACTIVE_AREA, LINEARISATION, LensCorrections, read_corrections
from klarsicht.burst.data.photograph import RGB_TO_XYZ, Codes, Header, Photograph, ReadSettings, Rendering, Sensor
from klarsicht.burst.files.developed import orientation
from klarsicht.ground.errors import InputError
from klarsicht.ground.optional import load
from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.tiff_tags import BITS, Tags
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

BLACK, WHITE, NEUTRAL, NOISE_PROFILE = 50714, 50717, 50728, 51041
MATRICES = ((50722, 50779), (50721, 50778))  # ColorMatrix2 and 1, each with its illuminant
D65 = 21
CHANNELS = 3
BYTES_A_COLOUR_PIXEL = 30  # codes twice, and light
COARSE_NOISE = "colours were interpolated before: noise is coarser than a sensor's, and results are weaker"


def is_linear(tags: Tags) -> bool:
    """Whether the tags are those of a linear DNG."""
    return tags.number(tiff_tags.PHOTOMETRIC) == tiff_tags.LINEAR_RAW


def read(path: Path, tags: Tags, settings: ReadSettings) -> Photograph:
    """Read a linear DNG as RGB in the camera's colours. Raises InputError for other numbers of colours, impossible
    levels and a compression without a decoder; ValueError for damaged files; MissingExtra."""
    tifffile = load("tifffile", "raw")
    tifffile.logger().setLevel(logging.CRITICAL)
    with tifffile.TiffFile(path) as file:
        page = max(_pages(file.pages), key=lambda one: one.imagewidth * one.imagelength)
        settings.require_room(page.imagewidth, page.imagelength, BYTES_A_COLOUR_PIXEL)
        if page.samplesperpixel != CHANNELS:
            rule = "a linear DNG has three"
            raise InputError(
                f"{path.name} is no colour picture", got=f"{page.samplesperpixel} values a pixel", rule=rule
            )
        try:
            codes = page.asarray()
        except (ValueError, ImportError) as error:
            remedy = "Write it by another program, uncompressed or as lossless JPEG."
            got = f"{page.compression!s} ({str(error).splitlines()[0]})"
            raise InputError(f"{path.name} cannot be decoded", got=got, remedy=remedy) from error
    codes = _crop(_linearise(codes, tags), tags)
    size, white = (codes.shape[0], codes.shape[1]), _channels(tags, WHITE, _highest_code(tags))
    header = Header(
        path=path,
        colour="rgb",
        size=size,
        levels=int(white[0]),
        sensor=Sensor("", _black(tags), white[0]),
        rendering=_rendering(tags),
        orientation=orientation(tags),
        tags=tags,
        profile=_profile(tags),
        lens=_corrections_of_colours(read_corrections(tags, size, path.name)),
        notes=(COARSE_NOISE,),
    )
    photograph.check_counts(codes, header, has_white=False)
    black = np.array(_black(tags), np.float32)
    light = (codes.astype(np.float32) - black) / (np.array(white, np.float32) - black)
    return Photograph(np.ascontiguousarray(np.moveaxis(light, -1, 0)), header)


def _pages(pages: Any) -> Iterator[Any]:
    """Yield the linear pictures of full size among pages and those below them."""
    for page in pages:
        if page.photometric == tiff_tags.LINEAR_RAW and not page.subfiletype:
            yield page
        yield from _pages(page.pages or ())


def _linearise(codes: Codes, tags: Tags) -> Codes:
    """Apply the file's LinearizationTable; codes beyond it take its last value (DNG specification 1.7)."""
    if LINEARISATION not in tags.image:
        return codes
    table = np.array(tags.image[LINEARISATION].values, np.uint16)
    return table[np.minimum(codes, len(table) - 1)]


def _highest_code(tags: Tags) -> int:
    """Return the white level of a file that names none (DNG specification 1.7): of codes through a table that of 16
    bits."""
    bits = 16 if LINEARISATION in tags.image or BITS not in tags.image else int(tags.image[BITS].values[0])
    return int(2**bits - 1)


def _crop(codes: Codes, tags: Tags) -> Codes:
    """Cut out the active area: top, left, bottom, right."""
    if ACTIVE_AREA not in tags.image:
        return codes
    top, left, bottom, right = map(int, tags.image[ACTIVE_AREA].values)
    return codes[top:bottom, left:right]


def _channels(tags: Tags, tag: int, default: float) -> tuple[float, ...]:
    """Return a tag's value for each channel: one stands for all."""
    values = tags.image[tag].values if tag in tags.image else (default,)
    return tuple(values[:CHANNELS]) if len(values) >= CHANNELS else (values[0],) * CHANNELS


def _black(tags: Tags) -> tuple[float, ...]:
    """Return the black level of each channel: the mean over the places of its cell, whose channels lie together."""
    values = np.array(tags.image[BLACK].values if BLACK in tags.image else [0.0])
    by_channel = values.reshape(-1, CHANNELS) if len(values) % CHANNELS == 0 else values[:, None].repeat(CHANNELS, 1)
    return tuple(by_channel.mean(0).tolist())


def _rendering(tags: Tags) -> Rendering:
    """Return white balance and matrix; the identity where the file names none."""
    neutral = np.array(_channels(tags, NEUTRAL, 1.0))
    gains = 1 / neutral if neutral.min() > 0 else np.ones(CHANNELS)
    known = [(tag, tags.number(light)) for tag, light in MATRICES if tag in tags.image]
    chosen = next((tag for tag, light in known if light == D65), known[0][0] if known else None)
    matrix = np.eye(CHANNELS)
    if chosen is not None and len(values := tags.image[chosen].values) == CHANNELS**2:
        forward = np.array(values).reshape(CHANNELS, CHANNELS) @ RGB_TO_XYZ
        matrix = np.linalg.inv(forward / forward.sum(1, keepdims=True))
    red, green, blue = (gains / gains.min()).tolist()
    rows = tuple((float(a), float(b), float(c)) for a, b, c in matrix)
    return Rendering((red, green, blue), rows)


def _profile(tags: Tags) -> tuple[NoiseLevel, ...]:
    """Return the noise level of each channel by the NoiseProfile; empty without one."""
    entry = tags.find(NOISE_PROFILE)
    if entry is None or len(entry.values) not in (2, 2 * CHANNELS):
        return ()
    pairs = np.array(entry.values).reshape(-1, 2)
    return tuple(NoiseLevel.from_profile(float(S), float(O)) for S, O in np.broadcast_to(pairs, (CHANNELS, 2)))  # noqa: E741


def _corrections_of_colours(lens: LensCorrections) -> LensCorrections:
    """Take the gains of OpcodeList2 for colours, which these files have before any other opcode."""
    return replace(lens, on_samples=(), on_colours=(*lens.on_samples, *lens.on_colours))
