"""Writer of DNG files: a denoised mosaic with the reference's own tags, or RGB, also of an interpolated mosaic, as a
linear DNG.

Counts are the sensor's times an integer that uses the range of 16 bits. NoiseProfile is rewritten to the noise that
remains. Tags: DNG specification 1.4. A mosaic keeps its opcode lists. A linear DNG has those applied that can be:
darktable 5.0 applies gain maps to mosaics alone, LibRaw to none. What gains lift above white has codes above
WhiteLevel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht import __version__
from klarsicht.burst.data.bayer import PATTERNS, to_mosaic
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.lens_corrections import LISTS
from klarsicht.burst.data.photograph import ORIENTATION, RGB_TO_XYZ, Header, Sensor
from klarsicht.burst.files import lossless_jpeg
from klarsicht.burst.files.corrected_light import correct_colours
from klarsicht.burst.files.linear_dng import BLACK, D65, NEUTRAL, NOISE_PROFILE, WHITE
from klarsicht.burst.files.raw import CFA_PLANE_COLOURS
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.files.write_pictures import ICC, SOFTWARE, jpeg_bytes
from klarsicht.ground.machine.disk import replace_atomically
from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.tiff_tags import Ifd, Tags, numbers, rationals, text
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

FULL = 65535
MOST_HEADROOM = 16.0  # times white that codes reach: beyond it white would have too few of them
GAIN_WINDOWS = 9  # places a side at which gains are averaged
PROBE_LIGHT = 1e-3  # light that no gain makes white
CFA_DIM, CFA_PATTERN, VERSION, BACKWARD, UNIQUE_MODEL = 33421, 33422, 50706, 50707, 50708
BLACK_DIM, MATRIX, ILLUMINANT = 50713, 50721, 50778
PREVIEW_SIDE = 1024  # pixels: what a screen shows of a photograph among others
REDUCED, JPEG, GREY = 1, 7, 1  # a preview's kind of picture, compression and photometric interpretation of grey
PREVIEW_COLOURS, GREY_GAMMA, SRGB, SUBSAMPLING = 50970, 1, 2, 530
DROPPED_TAGS = {
    *(tiff_tags.STRIP_OFFSETS, tiff_tags.STRIP_BYTES, tiff_tags.TILE_OFFSETS, tiff_tags.TILE_BYTES, 278, 322, 323),
    *(tiff_tags.SUB_IFDS, tiff_tags.EXIF, tiff_tags.GPS, 317, 339),
    *(512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532, 347),  # JPEG
    *(50712, 50715, 50716),  # linearisation and black level by row and column, which are already applied
    *(50828, 50972, 51111, 50829, 50830, 700),  # original file, digests, areas of the whole sensor, XMP
    *(50740, ICC, *LISTS.values()),
}
MOSAIC_TAGS = {CFA_DIM, CFA_PATTERN, CFA_PLANE_COLOURS, BLACK_DIM, 50711, 50733, 50738}
"""Tags of a mosaic alone: also its layout, black by place, the split of its greens, the filter before its sensor."""


def write(spool: FrameStore, header: Header, noise: Sequence[NoiseLevel], path: Path) -> None:
    """Write a store's first frame as a DNG. noise: what remains, one level a channel, before lens corrections."""
    if header.colour == "mosaic":
        assert header.sensor is not None
        tags, strips = mosaic_tags(header, noise), mosaic_strips(spool, header.sensor)
    else:
        renderer = Renderer(spool, header)
        white = round(FULL / headroom(renderer))
        tags, strips = linear_tags(header, corrected_noise(renderer, noise), white), linear_strips(renderer, white)
    rows, columns = map(lossless_jpeg.tile_side, header.size)
    width = columns // 2 if header.colour == "mosaic" else columns
    with replace_atomically(path) as file:
        tiles = map(lossless_jpeg.encode_tile, lossless_jpeg.cut_tiles(strips, rows, width))
        tiff_tags.write(file, tags, tiles, [preview(spool, header)])


def preview(spool: FrameStore, header: Header) -> tuple[Ifd, bytes]:
    """Return the tags and the JPEG of a developed preview, of at most PREVIEW_SIDE pixels a side, as it is stored."""
    renderer = Renderer.from_header(spool, replace(header, orientation=1)).for_display
    picture = renderer.thumbnail(PREVIEW_SIDE)
    height, width, samples = picture.shape
    of_size = {tiff_tags.WIDTH: width, tiff_tags.LENGTH: height, tiff_tags.STRIP_ROWS: height}
    tags = {tag: numbers(tiff_tags.LONG, n) for tag, n in of_size.items()} | {
        tiff_tags.SUBFILES: numbers(tiff_tags.LONG, REDUCED),
        tiff_tags.BITS: numbers(tiff_tags.SHORT, *[8] * samples),
        tiff_tags.COMPRESSION: numbers(tiff_tags.SHORT, JPEG),
        tiff_tags.PHOTOMETRIC: numbers(tiff_tags.SHORT, tiff_tags.YCBCR if samples == 3 else GREY),
        tiff_tags.SAMPLES: numbers(tiff_tags.SHORT, samples),
        tiff_tags.PLANAR: numbers(tiff_tags.SHORT, 1),
        PREVIEW_COLOURS: numbers(tiff_tags.LONG, SRGB if samples == 3 else GREY_GAMMA),
    }
    if samples == 3:
        tags[SUBSAMPLING] = numbers(tiff_tags.SHORT, 1, 1)
    return tags, jpeg_bytes(picture)


def headroom(renderer: Renderer) -> float:
    """Return the factor above white, from 1 to MOST_HEADROOM, up to which gains lift the light of a picture."""
    if renderer.header.lens.is_empty:
        return 1.0
    brightest = max(float(renderer.linear_window(window).max()) for window in renderer.spool.strip_windows())
    return min(max(1.0, brightest), MOST_HEADROOM)


def corrected_noise(renderer: Renderer, noise: Sequence[NoiseLevel]) -> list[NoiseLevel]:
    """Return the noise levels of light with the file's corrections: where a gain is g, the variance is g^2 read^2 + g
    shot y at corrected light y; the tag has one level, of the mean of g^2 and that of g."""
    lens, (H, W) = renderer.header.lens, renderer.header.size
    if lens.is_empty:
        return list(noise)

    def read(window: Window) -> npt.NDArray[np.float32]:
        return PROBE_LIGHT * renderer.sample_gains(window)

    places = (
        (round(y), round(x)) for y in np.linspace(0, H - 6, GAIN_WINDOWS) for x in np.linspace(0, W - 6, GAIN_WINDOWS)
    )
    windows = (Window(y, y + 6, x, x + 6) for y, x in places)
    parts = [correct_colours(lens, window, read, (H, W)).reshape(len(noise), -1) / PROBE_LIGHT for window in windows]
    gains = np.concatenate(parts, 1, dtype=np.float64)
    return [
        NoiseLevel(level.read * float(np.sqrt(np.square(g).mean())), level.shot * float(g.mean()))
        for level, g in zip(noise, gains, strict=True)
    ]


def count_scale(sensor: Sensor) -> int:
    """Return the integer factor by which counts are multiplied to use 16 bits."""
    return max(1, int(FULL // sensor.white))


def mosaic_strips(spool: FrameStore, sensor: Sensor) -> Iterator[npt.NDArray[np.uint16]]:
    """Yield strips (rows, W/2, 2) of counts of the mosaic, of each two neighbours in a row."""
    black = np.array(sensor.black, np.float32)[:, None, None]
    span, s = np.float32(sensor.white) - black, np.float32(count_scale(sensor))
    for _, light in spool.read_strips(0):
        counts = np.clip(np.rint((light[:4] * span + black) * s), 0, FULL)
        mosaic = to_mosaic(counts, sensor.pattern).astype(np.uint16)
        yield mosaic.reshape(len(mosaic), -1, 2)


def linear_strips(renderer: Renderer, white: int) -> Iterator[npt.NDArray[np.uint16]]:
    """Yield strips (rows, W, C) of linear light, 0 the black level and `white` the code of white: darktable 5.0 and
    RawTherapee 5.11 do not subtract another black."""
    for window in renderer.spool.strip_windows():
        light = renderer.linear_window(window)
        yield np.moveaxis(np.rint(np.clip(light * np.float32(white), 0, FULL)), 0, -1).astype(np.uint16)


def _common(header: Header, samples: int) -> Ifd:
    """Return the tags that mosaics and linear pictures share: the reference's own, layout, opcode lists kept."""
    mosaic, (height, width) = header.colour == "mosaic", header.size
    side = (lossless_jpeg.tile_side(height), lossless_jpeg.tile_side(width))
    oldest = header.lens.backward_version(mosaic)
    kept = {tag: entry for tag, entry in header.tags.image.items() if tag not in DROPPED_TAGS}
    return kept | {
        **tiff_tags.tile_layout(height, width, samples, side, lossless_jpeg.compression()),
        tiff_tags.SUBFILES: numbers(tiff_tags.LONG, 0),
        ORIENTATION: numbers(tiff_tags.SHORT, header.orientation),
        SOFTWARE: text(f"klarsicht {__version__}"),
        VERSION: numbers(tiff_tags.BYTE, *max((1, 4, 0, 0), oldest)),
        BACKWARD: numbers(tiff_tags.BYTE, *oldest),
        UNIQUE_MODEL: header.tags.image.get(UNIQUE_MODEL) or text(header.camera or "unknown"),
        **header.lens.tags(mosaic),
    }


def mosaic_tags(header: Header, noise: Sequence[NoiseLevel]) -> Tags:
    """Return the tags of a mosaic; noise: one level for each of R, G, G, B."""
    sensor = header.sensor
    assert sensor is not None
    s = count_scale(sensor)
    colours = {place: c for c, place in zip((0, 1, 1, 2), PATTERNS[sensor.pattern], strict=True)}
    cell = [(0, 0), (0, 1), (1, 0), (1, 1)]
    black = dict(zip(PATTERNS[sensor.pattern], sensor.black, strict=True))
    own = {
        tiff_tags.PHOTOMETRIC: numbers(tiff_tags.SHORT, tiff_tags.CFA),
        CFA_DIM: numbers(tiff_tags.SHORT, 2, 2),
        CFA_PATTERN: numbers(tiff_tags.BYTE, *[colours[place] for place in cell]),
        BLACK_DIM: numbers(tiff_tags.SHORT, 2, 2),
        BLACK: rationals(*[black[place] * s for place in cell], denominator=100),
        WHITE: numbers(tiff_tags.LONG, int(sensor.white) * s),
        NOISE_PROFILE: noise_entry([noise[0], noise[1], noise[3]]),
    }
    image = _common(header, 1) | own
    if MATRIX not in image:
        image |= colour_tags(header)
    return Tags(image, header.tags.exif, header.tags.gps)


def colour_tags(header: Header) -> Ifd:
    """Return the colour tags by LibRaw's values, for files that are no DNG: XYZ to camera, and the camera's white."""
    forward = np.linalg.inv(np.array(header.rendering.matrix)) @ np.linalg.inv(RGB_TO_XYZ)
    gains = np.array(header.rendering.gains)
    matrix = forward / gains[:, None] * gains.max()
    return {
        MATRIX: rationals(*matrix.ravel().tolist(), kind=tiff_tags.SRATIONAL, denominator=10_000),
        ILLUMINANT: numbers(tiff_tags.SHORT, D65),
        NEUTRAL: rationals(*(gains.min() / gains).tolist()),
    }


def linear_tags(header: Header, noise: Sequence[NoiseLevel], white: int) -> Tags:
    """Return the tags of RGB or grey light in sRGB's primaries, or in a camera's colours, with its own tags."""
    samples = len(noise)
    image = _common(header, samples)
    image |= {tiff_tags.PHOTOMETRIC: numbers(tiff_tags.SHORT, tiff_tags.LINEAR_RAW), NOISE_PROFILE: noise_entry(noise)}
    image |= {BLACK: numbers(tiff_tags.SHORT, *[0] * samples), WHITE: numbers(tiff_tags.LONG, *[white] * samples)}
    if header.sensor is not None:
        image = {tag: entry for tag, entry in image.items() if tag not in MOSAIC_TAGS}
        if MATRIX not in image:
            image |= colour_tags(header)
        return Tags(image, header.tags.exif, header.tags.gps)
    image |= {ILLUMINANT: numbers(tiff_tags.SHORT, D65)}
    if samples == 3:
        to_rgb = np.linalg.inv(RGB_TO_XYZ)
        image[MATRIX] = rationals(*to_rgb.ravel().tolist(), kind=tiff_tags.SRATIONAL, denominator=10_000)
        image[NEUTRAL] = rationals(1.0, 1.0, 1.0)
    return Tags(image, header.tags.exif, header.tags.gps)


def noise_entry(noise: Sequence[NoiseLevel]) -> tiff_tags.Entry:
    """Return the NoiseProfile entry: the pairs S, O of the levels, in their order."""
    return numbers(tiff_tags.DOUBLE, *[value for level in noise for value in level.profile])
