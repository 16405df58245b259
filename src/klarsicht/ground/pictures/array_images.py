"""Images that are arrays (H, W, C) of numbers in a stated range: 16 bits, floats, any number of channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.pictures import images, tiff_tags
from klarsicht.ground.pictures.image_tags import check_tags
from klarsicht.ground.pictures.libtiff import collect_errors
from klarsicht.ground.pictures.npy_files import read_npy
from klarsicht.ground.pictures.pixel_depths import (
    FULL,
    Bytes,
    bit_depth,
    read_png_codes,
    read_png_depth,
    read_tiff_codes,
    to_uint8,
)
from klarsicht.ground.pictures.tiff_tags import Ifd

ARRAY_TYPES: Final = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
"""Number types that an image may have."""
SHOWN: Final = 3  # channels of a picture in colour
PICTURE_CHANNELS: Final = (1, SHOWN)  # to which 8-bit pictures are converted
BYTE_BITS: Final = 8
BYTE_FULL: Final = 255  # the largest code of 8 bits
UNSIGNED, FLOATING = 1, 3  # sample formats of TIFF


@dataclass(frozen=True)
class ArrayForm:
    """Form of images that are arrays (H, W, C); UsageError for a form that no image has. channels: C. dtype: number
    type, one of ARRAY_TYPES. black, white: the least and the largest number that an image may hold. shown: channels for
    red, green and blue in pictures of an image, or one that is shown in grey; empty: the first three, the mean of two,
    the only one."""

    channels: int
    dtype: str
    black: float
    white: float
    shown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise UsageError("an array has no channels", got=self.channels, rule="1 or more", remedy="Set channels.")
        if self.dtype not in ARRAY_TYPES:
            rule = ", ".join(ARRAY_TYPES)
            raise UsageError("unknown number type", got=repr(self.dtype), rule=rule, remedy="Set dtype.")
        limits = np.iinfo(self.dtype) if self.has_integers else np.finfo(self.dtype)
        if not limits.min <= self.black < self.white <= limits.max:
            got, rule = f"black {self.black:g}, white {self.white:g}", f"black below white, both {self.dtype}"
            raise UsageError("not a range of numbers", got=got, rule=rule, remedy="Set black and white.")
        if len(self.shown) not in (0, 1, SHOWN) or not all(0 <= one < self.channels for one in self.shown):
            rule = f"one or three of 0 to {self.channels - 1}"
            raise UsageError("these channels cannot be shown", got=self.shown, rule=rule, remedy="Set shown.")

    @property
    def has_integers(self) -> bool:
        return np.dtype(self.dtype).kind in "iu"

    @property
    def rounding(self) -> float:
        """Largest error of a grey level that is rounded to the type, as a share of the range."""
        return 0.5 / (self.white - self.black) if self.has_integers else 0.0

    def __str__(self) -> str:
        plural = "s" if self.channels > 1 else ""
        return f"{self.channels} channel{plural} of {self.dtype}, {self.black:g} to {self.white:g}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"shown": list(self.shown)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{**record, "shown": tuple(record["shown"])})

    def of_array(self, pixels: NDArray[Any], name: str, *, channels_last: bool = False) -> NDArray[Any]:
        """Check that an array (H, W, C), (C, H, W) unless channels are last, or (H, W) has this form; return a copy (H,
        W, C) of this type, whose numbers are never scaled. Raises ImageError, with the image's name: other channels,
        another type, or numbers out of the range."""
        planes = pixels[..., None] if pixels.ndim == 2 and self.channels == 1 else pixels
        if planes.ndim == 3 and not channels_last and planes.shape[2] != self.channels == planes.shape[0]:
            planes = np.moveaxis(planes, 0, 2)
        if planes.ndim != 3 or planes.shape[2] != self.channels or not planes.size:
            first = "" if channels_last else f" or ({self.channels}, H, W)"
            raise _another_shape(name, pixels.shape, f"(H, W, {self.channels}){first}")
        kind = planes.dtype
        if (kind.newbyteorder("=") != np.dtype(self.dtype)) if self.has_integers else (kind.kind != "f"):
            what = f"{name} holds another number type than the model's images"
            remedy = "Name that type in ArrayTransform, or convert numbers by --decode."
            raise ImageError(what, got=kind.name, rule=self.dtype, remedy=remedy)
        if bad := int((~np.isfinite(planes)).sum()):
            got = f"{bad} of {planes.size} are NaN or infinite"
            raise ImageError(f"{name} holds values that are not finite", got=got, remedy="Fill them by --decode.")
        with np.errstate(over="ignore"):
            numbers = planes.astype(self.dtype)
        least, most = numbers.min(), numbers.max()
        black, white = (numbers.dtype.type(end) for end in (self.black, self.white))
        if least < black or most > white:
            rule = f"{self.black:g} to {self.white:g}, as the model's ArrayTransform says"
            what, remedy = (
                f"{name} holds numbers out of range",
                "Set its black and white, or clip numbers by --decode.",
            )
            raise ImageError(what, got=f"{least:g} to {most:g}", rule=rule, remedy=remedy)
        return np.ascontiguousarray(numbers)

    def of_codes(self, codes: NDArray[Any], white_level: int) -> NDArray[Any]:
        """Scale codes of any shape, 0 to the white level, to black and white; higher ones are clipped."""
        return self.of_share(np.minimum(codes.astype(np.float64) / white_level, 1))

    def of_picture(self, picture: Image.Image) -> NDArray[Any]:
        """Convert an 8-bit picture to an array (H, W, C), level 0 to black and 255 to white: of three channels in
        colour, of any other number the same grey in each."""
        mode = "RGB" if self.channels == SHOWN else "L"
        levels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        planes = levels if levels.ndim == 3 else np.repeat(levels[..., None], self.channels, 2)
        return self.of_share(planes / 255)

    def to_share(self, numbers: NDArray[Any]) -> NDArray[np.float64]:
        """Convert numbers of this form to shares of its range: 0 at black, 1 at white."""
        return np.asarray((numbers.astype(np.float64) - self.black) / (self.white - self.black))

    def of_share(self, share: NDArray[np.float64]) -> NDArray[Any]:
        """Convert shares of the range, 0 at black and 1 at white, to numbers of this form, rounded where integers."""
        numbers = self.black + share * (self.white - self.black)
        return (np.rint(numbers) if self.has_integers else numbers).astype(self.dtype)

    def to_levels(self, numbers: NDArray[Any]) -> Bytes:
        """Convert an array (..., C) of this form to 8-bit levels of the same shape."""
        return to_uint8(self.to_share(numbers))

    def to_picture(self, numbers: NDArray[Any]) -> Image.Image:
        """Draw an array (H, W, C) of this form as an 8-bit picture, "RGB" or "L"."""
        shown = show_channels(self.to_levels(numbers), self.shown)
        return Image.fromarray(shown[..., 0] if len(self.shown) == 1 or self.channels < SHOWN else shown)


def _another_shape(name: str, shape: tuple[int, ...], rule: str) -> ImageError:
    """Make the error of an image whose channels are not those of the model's images."""
    what, remedy = f"{name} has another shape than the model's images", "Make it one by --decode."
    return ImageError(what, got=f"shape {shape}", rule=rule, remedy=remedy)


def show_channels(levels: Bytes, channels: tuple[int, ...] = ()) -> Bytes:
    """Reduce the channels of images uint8 (..., C) to three that can be shown, see ArrayForm: uint8 (..., 3)."""
    if channels:
        selection = levels[..., list(channels)]
    elif levels.shape[-1] == 2:
        selection = np.rint(levels.mean(-1, keepdims=True)).astype(np.uint8)
    else:
        selection = levels[..., :SHOWN]
    return np.repeat(selection, SHOWN, axis=-1) if selection.shape[-1] == 1 else selection


def read_array(
    value: Any, form: ArrayForm, name: str, white_level: int | None = None, megapixels: float = images.MAX_MEGAPIXELS
) -> NDArray[Any]:
    """Read an image as an array (H, W, C) of a form.

    Numbers of arrays, of .npy files and of files with floats are taken as they are. Scaled to the range of the form are
    8-bit files, 16-bit files and arrays of uint16 whose white level is stated, and 16-bit files where the form is of
    floats (their white is 65535 then). Of a form of one or three channels, 8-bit files are converted to grey or RGB.
    value: path of a file, bytes of one, a Pillow image, an array or a tensor. name: of the image in an error.
    white_level: code of white of 16 bits, where it is stated. megapixels: largest image that is read, in millions of
    pixels. Raises ImageError: anything else, no readable file, or an array of another form; MissingExtra: a file of
    several channels of 16 bits, which needs the extra `raw`."""
    if isinstance(value, str | Path):
        name = Path(value).name
        stored = images.read_file(value, lambda source: _read_numbers(source, megapixels, form.channels, name))
        picture = None if stored else images.decode(value, white_level, megapixels)
    elif isinstance(value, bytes | bytearray | memoryview):
        stored = images.read_content(
            bytes(value), name, lambda source: _read_numbers(source, megapixels, form.channels, name)
        )
        picture = None if stored else images.decode_bytes(bytes(value), name, white_level, megapixels)
    elif isinstance(value, Image.Image):
        images.load_pixels(value, megapixels)
        stored = _numbers_of(value, form.channels in PICTURE_CHANNELS)
        picture = None if stored else images.picture_from_image(value, megapixels)
    elif isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        stored, picture = Numbers(np.asarray(value), channels_last=False), None
    else:
        rule = "a path, the bytes of an image file, a Pillow image or an array"
        raise ImageError(f"{name} is not a picture", got=type(value).__name__, rule=rule)
    if picture is not None:
        return form.of_picture(picture)
    assert stored is not None
    white = white_level if stored.codes.dtype == np.uint16 else None
    if white is None and stored.full and (stored.full == BYTE_FULL or not form.has_integers):
        white = stored.full
    numbers = stored.codes if white is None else form.of_codes(stored.codes, white)
    return form.of_array(numbers, name, channels_last=stored.channels_last)


@dataclass(frozen=True)
class Numbers:
    """Numbers of an image as they are stored: codes (H, W) or (H, W, C); the largest code of their depth in an image
    file of 8 to 16 bits, else 0; and whether channels are known to be the last axis."""

    codes: NDArray[Any]
    full: int = 0
    channels_last: bool = True


def _read_numbers(source: IO[bytes], megapixels: float, channels: int, name: str) -> Numbers | None:
    """Read an array, or the numbers of an image file as they are stored, upright; None for an 8-bit picture where one
    or three channels are asked. Raises ImageError: a TIFF of another number of channels, before it is decoded;
    MissingExtra: numbers that Pillow does not keep; Exception: whatever Pillow or tifffile raises."""
    if images.is_npy(source):
        return Numbers(read_npy(source, megapixels), channels_last=False)
    tags, as_picture = check_tags(source), channels in PICTURE_CHANNELS
    if tags.pages and not (as_picture and _is_kept_by_pillow(tags.first)):
        width, length = _number(tags.first, tiff_tags.WIDTH, 0), _number(tags.first, tiff_tags.LENGTH, 0)
        images.require_megapixels(width, length, megapixels)
        if (samples := _number(tags.first, tiff_tags.SAMPLES, 1)) != channels:
            raise _another_shape(name, (length, width, samples), f"(H, W, {channels})")
        codes, bits = read_tiff_codes(source), _number(tags.first, tiff_tags.BITS, 1)
        full = 2**bits - 1 if codes.dtype in (np.uint8, np.uint16) and bits >= BYTE_BITS else 0
        return Numbers(turn_upright(codes, _number(tags.first, images.EXIF_ORIENTATION, 1)), full)
    png_depth = read_png_depth(source)
    with collect_errors() as errors, images.open_image(source, megapixels) as image:
        depth = bit_depth(image, png_depth, tags)
        image.load()
        if errors:
            raise ValueError(errors[0])
        numbers = _numbers_of(image, as_picture, depth)
        if depth > BYTE_BITS and image.mode in ("RGB", "RGBA") and image.format in ("PNG", "TIFF"):
            codes = read_tiff_codes(source) if image.format == "TIFF" else read_png_codes(source)
            numbers = Numbers(codes, FULL)
        if numbers is None:
            return None
        return Numbers(turn_upright(numbers.codes, image.getexif().get(images.EXIF_ORIENTATION)), numbers.full)


def _numbers_of(image: Image.Image, as_picture: bool, depth: int = 16) -> Numbers | None:
    """Return the numbers of a Pillow image of `depth` bits a channel; None for an 8-bit one that counts as a
    picture."""
    codes = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Numbers(codes.astype(np.uint16), 2**depth - 1 if BYTE_BITS < depth <= 16 else FULL)
    if image.mode in ("I", "F"):
        return Numbers(codes)
    return None if as_picture or image.mode == "1" else Numbers(codes, BYTE_FULL)


def _is_kept_by_pillow(first: Ifd) -> bool:
    """Tell whether Pillow reads a TIFF page with all of its bits, as an 8-bit picture or as one grey channel."""
    samples, bits, kind = (
        _number(first, tag, 1) for tag in (tiff_tags.SAMPLES, tiff_tags.BITS, tiff_tags.SAMPLE_FORMAT)
    )
    deep = samples == 1 and (kind, bits) in ((UNSIGNED, 12), (UNSIGNED, 16), (FLOATING, 32))
    return deep or (samples in images.CHANNELS and bits <= BYTE_BITS)


def _number(first: Ifd, tag: int, default: int) -> int:
    entry = first.get(tag)
    return default if entry is None or entry.first is None else int(entry.first)


def turn_upright(pixels: NDArray[Any], orientation: Any) -> NDArray[Any]:
    """Rotate or flip an array (H, W, ...) by one of the eight orientations of TIFF and EXIF."""
    x = pixels[:, ::-1] if orientation in (2, 4, 5, 7) else pixels
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.rot90(x, turns)
