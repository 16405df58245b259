"""Decoding of untrusted image files to 8-bit pictures, upright, with what a reader should know of them."""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from klarsicht.ground.errors import ImageError, KlarsichtError, UnreadableFile
from klarsicht.ground.machine.disk import describe_system_error, is_fault_of_place, read_to_end, translate_faults
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.pictures.image_tags import check_exif, check_tags
from klarsicht.ground.pictures.libtiff import collect_errors
from klarsicht.ground.pictures.npy_files import NPY_MAGIC, read_npy
from klarsicht.ground.pictures.pixel_depths import bit_depth, eight_bit_levels, read_png_depth, to_eight_bit
from klarsicht.ground.pictures.tiff_tags import Tags

EXIF_ORIENTATION = 0x0112
NARROW = 0.25  # share of the 16-bit range below which a file is named

P = TypeVar("P")
MAX_MEGAPIXELS = 220.0  # phones make photographs of 200; a larger one is refused before it is decoded
# Raster formats only: Pillow would also open EPS and run Ghostscript on it, whatever the file's extension.
FORMATS = ("PNG", "JPEG", "JPEG2000", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "TGA", "PCX")
ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF")
CHANNELS = (1, 3, 4)  # of an array that is a picture
NOTES = "notes of klarsicht"
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")  # of tags: see check_tags
_limit = threading.Lock()  # held while Pillow's global pixel limit is changed


@cache
def extensions() -> frozenset[str]:
    """Return the file extensions that `decode` reads, in lower case and with their dot."""
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)


def decode(path: str | Path, white_level: int | None = None, megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """Decode an image file to 8-bit "RGB" or "L", upright by its EXIF orientation; of an animation the first frame, of
    a TIFF the first page, of a .npy file its array as `picture_from_array` takes it.

    Transparent pixels are composited on white; colour profiles are not applied. 16-bit grey is scaled to 8 bit, not
    clipped; of 16-bit colour Pillow keeps the upper 8 bits. `notes_of` says what a reader should know of the picture.
    white_level: code of white in 16-bit files, for instance 4095; higher ones are clipped. None: 65535. megapixels:
    largest image that is decoded, in millions of pixels. Raises ImageError: no such file, not an image, damaged, too
    large, or a pixel mode without a known white level; MissingExtra: a white level for 16-bit colour, which needs the
    extra `raw`."""
    return read_file(path, lambda source: _decode_source(source, white_level, megapixels))


def read_file(path: str | Path, read: Callable[[IO[bytes]], P]) -> P:
    """Read an image file by a function of the open file, whose exceptions become errors of ours. Raises ImageError: a
    folder, a pipe or a device, or the function fails; UnreadableFile: no such file, or the system does not give it to
    its end."""
    file = Path(path)
    with _unreadable_files(file):
        kind = file.stat()
        if not stat.S_ISREG(kind.st_mode):
            got = "a folder, a pipe or a device"
            raise ImageError(f"{file.name} is not a regular file", got=got, remedy="Leave it out.")
        try:
            with file.open("rb") as source:
                return read(source)
        except KlarsichtError:
            read_to_end(file)
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
            if is_out_of_memory(error) or is_fault_of_place(error):
                raise  # of the machine, not of the image
            read_to_end(file)
            raise _undecodable(file.name, kind.st_size, error) from error


@contextmanager
def _unreadable_files(file: Path) -> Iterator[None]:
    """Convert the system's errors to one that names the file."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnreadableFile("no such file", got=file, remedy="Check the path.") from error
    except (ValueError, OSError) as error:
        if is_out_of_memory(error):
            raise
        if not is_fault_of_place(error):  # a name that no system can hold
            raise ImageError("no such file", got=file, remedy="Check the path.") from error
        got = f"{file}: {describe_system_error(error)}"
        raise UnreadableFile("a file cannot be read", got=got, remedy="Check its permissions, and its disk.") from error


def decode_bytes(
    content: bytes, name: str, white_level: int | None = None, megapixels: float = MAX_MEGAPIXELS
) -> Image.Image:
    """Decode the bytes of an image file as `decode` does; the name is that of the image in an error."""
    return read_content(content, name, lambda source: _decode_source(source, white_level, megapixels))


def read_content(content: bytes, name: str, read: Callable[[IO[bytes]], P]) -> P:
    """Read the bytes of an image file by a function of an open file, as `read_file` does. Raises ImageError."""
    try:
        return read(io.BytesIO(content))
    except KlarsichtError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _undecodable(name, len(content), error) from error


def _decode_source(source: IO[bytes], white_level: int | None, megapixels: float) -> Image.Image:
    """Decode an open file; raises whatever Pillow raises."""
    if is_npy(source):
        return picture_from_array(read_npy(source, megapixels), white_level, megapixels)
    tags = check_tags(source)
    png_depth = read_png_depth(source)
    with collect_errors() as errors, open_image(source, megapixels) as image:
        notes, depth = _pages(image, tags), bit_depth(image, png_depth, tags)
        image.load()
        if errors:
            raise ValueError(errors[0])
        picture, used = to_eight_bit(image, source, depth, white_level)
        notes += _narrow_range(used) if depth > 8 and white_level is None else ()
        picture = _apply_orientation(picture, image)
        picture.info[NOTES] = notes
        return picture


def is_npy(source: IO[bytes]) -> bool:
    """Tell whether an open file holds an array; it is left at its beginning."""
    head = source.read(len(NPY_MAGIC))
    source.seek(0)
    return head == NPY_MAGIC


def _undecodable(name: str, size: int, error: Exception) -> ImageError:
    if size == 0:
        reason = "the file is empty"
    elif isinstance(error, UnidentifiedImageError):  # names the Python object that it was given
        reason = "not a picture that Pillow or its plugins can read"
    else:
        reason = f"{type(error).__name__}: {error}"
    return ImageError(f"cannot decode {name}", got=reason, rule=f"supported formats: {', '.join(FORMATS)}")


def picture_from_image(image: Image.Image, megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """Convert a Pillow image of any mode to 8-bit "RGB" or "L", transparent pixels on white. Raises ImageError: it is
    too large or cannot be loaded, or its mode has no known white."""
    load_pixels(image, megapixels)
    try:
        return to_eight_bit(image, io.BytesIO(), 8, None)[0]
    except ValueError as error:
        raise ImageError("cannot use a picture", got=error, rule="8 bit a channel, grey or colour") from error


def load_pixels(image: Image.Image, megapixels: float = MAX_MEGAPIXELS) -> None:
    """Load the pixels of a Pillow image, which `Image.open` leaves in its file. Raises ImageError: it is too large, or
    its file is damaged or closed; Unreachable: its file is out of reach."""
    with translate_faults(Path(str(getattr(image, "filename", "") or "a picture"))):
        try:
            require_megapixels(image.width, image.height, megapixels)
            image.load()
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
            if is_out_of_memory(error) or is_fault_of_place(error):
                raise  # of the machine, not of the image
            raise ImageError("cannot use a picture", got=error, rule="an image that Pillow can load") from error


def picture_from_array(
    pixels: NDArray[Any], white_level: int | None = None, megapixels: float = MAX_MEGAPIXELS
) -> Image.Image:
    """Convert an array (H, W), (H, W, C) or (C, H, W), C = 1, 3 or 4 with alpha, to an 8-bit picture "L" or "RGB":
    uint8 or bool, uint16 up to the white level (None: 65535), or float in [0, 1]. Raises ImageError: anything else."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    if planes.ndim == 3 and planes.shape[2] not in CHANNELS and planes.shape[0] in CHANNELS:
        planes = np.moveaxis(planes, 0, 2)
    if planes.ndim != 3 or planes.shape[2] not in CHANNELS or not planes.size:
        rule = "(H, W), (H, W, C) or (C, H, W) with C 1, 3 or 4"
        what, remedy = "an array is not a picture", "Make it one by --decode."
        raise ImageError(what, got=f"shape {pixels.shape}", rule=rule, remedy=remedy)
    levels = eight_bit_levels(planes, white_level)
    return picture_from_image(Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels), megapixels)


def notes_of(picture: Any) -> tuple[str, ...]:
    """Return what should be said of a decoded picture: further pages, or a range that asks for a white level."""
    told: tuple[str, ...] = picture.info.get(NOTES, ()) if isinstance(picture, Image.Image) else ()
    return told


def open_image(
    source: IO[bytes] | Path, megapixels: float = MAX_MEGAPIXELS, formats: Sequence[str] = FORMATS
) -> Image.Image:
    """Open an image with Pillow, whose own bound on pixels is replaced by this one; nothing is decoded yet. Raises
    ValueError: more pixels, or EXIF that is too long; Exception: anything else that Pillow raises."""
    Image.init()
    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(source, formats=[kind for kind in formats if kind in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = before
    require_megapixels(image.width, image.height, megapixels)
    return image


class PictureTooLarge(ValueError):
    """A picture has more pixels than are read; its text says how many, and the remedy."""


def require_megapixels(width: int, height: int, megapixels: float) -> None:
    """Raise PictureTooLarge for a picture of more than so many millions of pixels."""
    if width * height > 1e6 * megapixels:
        bound = f"more than the {megapixels:g} megapixels that are read. Raise --megapixels, or leave it out"
        raise PictureTooLarge(f"{width} x {height} pixels, {bound}")


def _pages(image: Image.Image, tags: Tags) -> tuple[str, ...]:
    if image.format == "TIFF":
        return (f"{tags.pages} pages, of which only the first is read",) if tags.pages > 1 else ()
    try:
        animated = image.format in ANIMATIONS and bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame
        animated = True
    return ("an animation, of which only the first frame is read",) if animated else ()


def _narrow_range(share: float) -> tuple[str, ...]:
    """Say that 16-bit codes use less than a quarter of their range."""
    if not 0 < share < NARROW:
        return ()
    remedy = "if its white is lower, say so by --white-level, or in the manifest's column white_level"
    return (f"it uses less than a quarter of its 16 bits, and may look nearly black: {remedy}",)


def _apply_orientation(picture: Image.Image, image: Image.Image) -> Image.Image:
    """Rotate or flip a picture by the EXIF orientation of its file; damaged EXIF is ignored."""
    try:
        for exif in (image.info.get("exif"), _exif_in_text(image)):
            check_exif(exif or b"")
        turn = UPRIGHT.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF but intact pixels: treated as absent
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _exif_in_text(image: Image.Image) -> bytes:
    """Return the EXIF that old programs wrote into a text of a PNG file, in hexadecimal digits."""
    lines = str(image.info.get("Raw profile type exif", "")).split("\n")[3:]
    return bytes.fromhex("".join(lines))
