"""Colours of maps: diverging and sequential colour maps that are even in Oklab, and maps drawn over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from klarsicht.ground.pictures.pixel_depths import Bytes, to_uint8


def _interpolate_oklab(*points: tuple[float, float, float]) -> Bytes:
    """Interpolate 257 sRGB colours linearly in Oklab (Ottosson 2020) between points (lightness, chroma, hue in
    degrees); equal steps are perceptually equal."""
    L, C, h = np.array(points).T
    lab = [L, C * np.cos(np.deg2rad(h)), C * np.sin(np.deg2rad(h))]
    line = np.stack([np.interp(np.linspace(0, len(points) - 1, 257), range(len(points)), axis) for axis in lab])
    lms = np.array([[1, 0.3963378, 0.2158038], [1, -0.1055613, -0.0638542], [1, -0.0894842, -1.2914855]]) @ line
    to_rgb = [
        [4.0767417, -3.3077116, 0.2309699],
        [-1.268438, 2.6097574, -0.3413194],
        [-0.0041961, -0.7034186, 1.7076147],
    ]
    linear = np.clip(to_rgb @ lms**3, 0, 1)
    return to_uint8(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).T)


BLUE_WHITE_RED = _interpolate_oklab((0.36, 0.13, 262), (0.62, 0.15, 255), (1, 0, 0), (0.62, 0.15, 28), (0.36, 0.13, 28))
DARK_TO_BRIGHT = _interpolate_oklab(
    (0.12, 0.03, 290), (0.38, 0.15, 310), (0.6, 0.19, 20), (0.8, 0.14, 65), (0.96, 0.05, 100)
)


BAR = 12  # pixels: height of a colour bar, and of its text


def diverging_colours(values: ArrayLike, bound: float | None = None) -> Bytes:
    """Map signed values (...) to colours (..., 3): -bound blue, 0 white, +bound red. Non-finite values are white. The
    bound is by default the 99.5 % quantile of the absolute values, so that a single outlier does not hide the rest."""
    signed = np.nan_to_num(np.asarray(values, np.float64), nan=0, posinf=0, neginf=0)
    return _look_up_colours(BLUE_WHITE_RED, 0.5 + signed / (bound or saturation_bound(signed)) / 2)


def sequential_colours(values: ArrayLike, low: float = 0, high: float = 1) -> Bytes:
    """Map values (...) to colours (..., 3): low is dark, high is bright. NaN is dark."""
    given = np.nan_to_num(np.asarray(values, np.float64), nan=low)
    return _look_up_colours(DARK_TO_BRIGHT, (given - low) / ((high - low) or 1))


def _look_up_colours(table: Bytes, share: NDArray[np.float64]) -> Bytes:
    """Look up colours of a table at positions in [0, 1]; positions outside are clipped."""
    return np.asarray(table[np.rint((len(table) - 1) * np.clip(share, 0, 1)).astype(int)])


def overlay(pixels: Bytes, signed: ArrayLike, bound: float | None = None, strength: float = 0.9) -> Bytes:
    """Draw a signed map (h, w) of any size, resized bilinearly, over a picture uint8 (H, W, 3) or (H, W) in its own
    colours: uint8 (H, W, 3). Positive is red, negative blue; opacity grows with the absolute value up to the bound."""
    wide = np.clip(resize_bilinear(signed, pixels.shape[:2]) / (bound or saturation_bound(np.asarray(signed))), -1, 1)
    colours = diverging_colours(np.sign(wide) / 2, 1)  # two saturated colours: opacity alone shows the magnitude
    opacity = strength * np.abs(wide)[..., None]
    own = np.asarray(Image.fromarray(pixels).convert("RGB"))
    return np.asarray(np.rint((1 - opacity) * own + opacity * colours).astype(np.uint8))


def draw_relevance(pixels: Bytes, relevance: ArrayLike, least: int = 224) -> Image.Image:
    """Draw a map of relevance over a picture (H, W, 3), enlarged by a whole factor where it is small, and below it the
    bar of its colours, with values at the ends."""
    factor = -(-least // min(pixels.shape[:2]))
    large = np.kron(pixels, np.ones((factor, factor, 1), np.uint8))
    bound = saturation_bound(np.asarray(relevance))
    height, width = large.shape[:2]
    bar = overlay(np.full((BAR, width, 3), 255, np.uint8), np.linspace(-1, 1, width)[None], 1)
    picture = Image.new("RGB", (width, height + 3 * BAR), "white")
    picture.paste(Image.fromarray(overlay(large, relevance, bound)), (0, 0))
    picture.paste(Image.fromarray(bar), (0, height + BAR // 2))
    write = ImageDraw.Draw(picture).text
    for x, anchor, text in ((2, "la", f"{-bound:.1g} against"), (width - 2, "ra", f"for {bound:.1g}")):
        write((x, height + 3 * BAR // 2 + 1), text, "black", ImageFont.load_default(BAR), anchor)
    return picture


def resize_bilinear(values: ArrayLike, shape: Sequence[int]) -> NDArray[np.float32]:
    """Resize (h, w) bilinearly to shape (H, W); pixel centres keep their position."""
    small = Image.fromarray(np.nan_to_num(np.asarray(values, np.float32)))
    return np.asarray(small.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def saturation_bound(signed: NDArray[Any]) -> float:
    """Return the 99.5 % quantile of the absolute values, or else their maximum, or else 1."""
    size = np.abs(signed)
    return float(np.quantile(size, 0.995) or size.max() or 1) if size.size else 1.0
