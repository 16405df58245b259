"""Small versions of pictures, and pictures as the bytes of PNG files and data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """Return a copy whose longer side is at most `side` pixels; never enlarged."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def png_bytes(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Encode uint8 (H, W) or (H, W, 3), or uint16 (H, W), as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(content: bytes, mime: str = "image/png") -> str:
    """Encode the bytes of a file as a data URI (RFC 2397)."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
