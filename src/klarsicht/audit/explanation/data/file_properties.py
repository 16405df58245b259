"""Properties of image files that need no pixel: size, colour, depth, compression and tags, from their heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

from PIL import Image
from PIL.ExifTags import Base

from klarsicht.audit.explanation.data.corpus import Corpus, out_of_reach
from klarsicht.ground.errors import InputError, UnreadableFile
from klarsicht.ground.pictures.image_tags import check_tags
from klarsicht.ground.pictures.images import open_image, read_content, read_file
from klarsicht.ground.pictures.pixel_depths import bit_depth, read_png_depth

GREY_MODES: Final = ("1", "L", "LA", "La", "F", "I")  # of Pillow; those of 16 bits begin with I
TAGS: Final = {"exif": "EXIF tags", "icc_profile": "a colour profile", "dpi": "a resolution", "comment": "a comment"}
MAKERS: Final = {Base.Make: "a maker", Base.Model: "a model", Base.Software: "software"}
STANDARD_SUM: Final = 3685  # of the luminance table of ITU-T T.81, Table K.1, at quality 50

Properties = dict[str, float]
"""Numbers of a file by name; a name that begins with "has" is 0 or 1."""


def read_properties(corpus: Corpus, rows: Sequence[int]) -> list[Properties | None]:
    """Read the properties of the files of some rows; None of what is no image file, or cannot be read. Raises
    Unreachable: the disk or store does not give a file."""
    return [_read_row(corpus, row) for row in rows]


def _read_row(corpus: Corpus, row: int) -> Properties | None:
    path = corpus.paths[row]
    try:
        content: Any = corpus.reader.read(path)
        if isinstance(content, bytes):
            return read_content(content, path, lambda source: _properties_of(source, corpus.megapixels))
        if not isinstance(content, str | Path):
            return None
        return read_file(content, lambda source: _properties_of(source, corpus.megapixels))
    except UnreadableFile as error:
        if path in corpus.absent:
            return None
        raise out_of_reach(path, error) from error
    except InputError:
        return None


def _properties_of(source: IO[bytes], megapixels: float) -> Properties:
    """Read the properties of an open image file; raises whatever Pillow raises."""
    tags, depth = check_tags(source), read_png_depth(source)
    with open_image(source, megapixels) as image:
        width, height = image.size
        properties = {
            "width": float(width),
            "height": float(height),
            "width over height": width / height,
            "has colour": float(image.mode not in GREY_MODES and not image.mode.startswith("I;")),
            "bits a channel": float(bit_depth(image, depth, tags)),
            "has progressive compression": float("progressive" in image.info),
            f"has format {image.format}": 1.0,
        }
        properties |= {f"has {words}": float(name in image.info) for name, words in TAGS.items()}
        exif = image.getexif()
        properties |= {f"has {words} in EXIF": float(tag in exif) for tag, words in MAKERS.items()}
        return properties | _quality(image)


def _quality(image: Image.Image) -> Properties:
    """Estimate the quality of a JPEG file, 0 to 100, from its luminance table as libjpeg scales it."""
    table = getattr(image, "quantization", {}).get(0)
    if not table:
        return {}
    scale = 100 * sum(table) / STANDARD_SUM
    return {"JPEG quality": float(round(100 - scale / 2 if scale < 100 else 5000 / scale))}
