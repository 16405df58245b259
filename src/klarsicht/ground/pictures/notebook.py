"""HTML for notebooks: what `_repr_html_` of a result returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape

from klarsicht.ground.errors import ImageError
from klarsicht.ground.pages import keep_signs
from klarsicht.ground.pictures.encoded_pictures import data_uri, png_bytes, thumbnail
from klarsicht.ground.pictures.images import decode


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; every cell is escaped, unless it is markup made by `pictures`."""
    head = "".join(f"<th>{keep_signs(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{keep_signs(one)}</td>' for one in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Write a table of two columns, a name and its value on each line; empty values are left out."""
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{keep_signs(value)}</td></tr>" for name, value in pairs if value != ""
    )
    return f"<table><tbody>{body}</tbody></table>"


def pictures(images: Iterable[bytes], side: int = 64) -> Markup:
    """Show PNG or JPEG files of at most `side` pixels on the page."""
    tags = (f'<img src="{data_uri(image)}" style="max-width:{side}px;max-height:{side}px">' for image in images)
    return Markup("".join(tags))


def thumbnails(files: Iterable[Path], side: int = 64) -> Markup:
    """Show small copies of image files; files that cannot be decoded are left out."""
    small = []
    for file in files:
        try:
            small.append(png_bytes(np.asarray(thumbnail(decode(file), side))))
        except (ImageError, OSError):
            continue
    return pictures(small, side)
