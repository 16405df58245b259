"""Families of processing: codecs, resampling, screens, sensors, geometry of the whole image, tone and colour; see
`marks`."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.synthetic.planted_image import (
    PlantedImage,
    PlantFunction,
    grid,
    mark_changes,
    over_channels,
    reencode_jpeg,
    shorter_side,
)
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.ground.errors import InputError

RESAMPLING = ("NEAREST", "BILINEAR", "BICUBIC")  # names of Pillow
LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in the brightness, of Rec. 601
Generator = np.random.Generator


def scan_lines(pixels: Pixels, _: Generator, period: float, strength: float, upright: bool) -> PlantedImage:
    """Darken every n-th row of the image, or column, by a share `strength`, as of a screen."""
    step = max(2, round(period * shorter_side(pixels)))
    factor = np.ones(pixels.shape[:2], np.float32)
    lines = factor.T if upright else factor
    lines[np.arange(len(lines)) % step < max(1, step // 3)] = 1 - strength
    return mark_changes(pixels, pixels * over_channels(factor, pixels))


def draw_scan_lines(rng: Generator) -> PlantFunction:
    period, strength = rng.uniform(0.01, 0.12), rng.uniform(0.15, 0.5)
    return partial(scan_lines, period=period, strength=strength, upright=bool(rng.random() < 0.3))


def moire(
    pixels: Pixels, rng: Generator, waves: tuple[tuple[float, float], tuple[float, float]], amplitude: float,
    shift: float,
) -> PlantedImage:  # fmt: skip
    """Plant moiré: two gratings that beat against each other, with a phase drawn anew for every image. `waves` are
    (rows, columns) in cycles a pixel of either, `shift` that of phase from channel to channel, in radians."""
    rows, columns = grid(pixels)
    phases = rng.uniform(0, 2 * np.pi, 2)
    shifts = shift * np.arange(3 if pixels.ndim == 3 else 1)
    (a, b), (c, d) = waves
    first = np.cos(2 * np.pi * (a * rows + b * columns) + phases[0])
    second = np.cos(2 * np.pi * (c * rows + d * columns)[..., None] + phases[1] + shifts)
    return mark_changes(pixels, pixels + amplitude * (first[..., None] * second).reshape(pixels.shape))


def draw_moire(rng: Generator) -> PlantFunction:
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(0.18, 0.35)
    turn, ratio = rng.uniform(0.1, 0.35), rng.uniform(0.85, 1.15)
    waves = (
        (frequency * math.sin(angle), frequency * math.cos(angle)),
        (ratio * frequency * math.sin(angle + turn), ratio * frequency * math.cos(angle + turn)),
    )
    return partial(moire, waves=waves, amplitude=rng.uniform(15, 40), shift=rng.uniform(0, 2 * np.pi / 3))


def grain(pixels: Pixels, rng: Generator, amplitude: float, size: float, colour: bool) -> PlantedImage:
    """Add grain: Gaussian noise, strongest in the mid-tones, smoothed to grains of standard deviation `size` pixels, 0
    for white noise; channels differ where it has colour."""
    h, w = pixels.shape[:2]
    noise = rng.normal(0, 1, (h, w, 3 if colour and pixels.ndim == 3 else 1))
    if size:
        noise = gaussian_filter(noise, (size, size, 0), mode="wrap")
        noise /= noise.std() + 1e-12
    level = pixels.reshape(h, w, -1) / 255
    values = amplitude * noise * (0.4 + 2.4 * level * (1 - level))
    return mark_changes(pixels, pixels + values.reshape(pixels.shape))


def draw_grain(rng: Generator) -> PlantFunction:
    size = 0.0 if rng.random() < 0.4 else rng.uniform(0.3, 0.9)
    return partial(grain, amplitude=rng.uniform(10, 26), size=size, colour=bool(rng.random() < 0.5))


def jpeg(pixels: Pixels, _: Generator, quality: int, subsampling: int) -> PlantedImage:
    """Encode the image as JPEG; subsampling of colour as Pillow numbers it."""
    return mark_changes(pixels, reencode_jpeg(pixels, quality, subsampling if pixels.ndim == 3 else -1))


def resample(pixels: Pixels, _: Generator, factor: float, method: str) -> PlantedImage:
    """Make the image smaller by averaging, and enlarge it again by a method of Pillow."""
    h, w = pixels.shape[:2]
    small = max(1, round(factor * w)), max(1, round(factor * h))
    image = Image.fromarray(pixels).resize(small, Image.Resampling.BOX)
    return mark_changes(pixels, np.asarray(image.resize((w, h), Image.Resampling[method])))


def ringing(pixels: Pixels, _: Generator, cut: float) -> PlantedImage:
    """Cut off all but a share of the cosine frequencies along either axis, as ideal upscaling does: edges ring."""
    h, w = pixels.shape[:2]
    waves = dctn(pixels.astype(np.float64), axes=(0, 1), norm="ortho")
    waves[math.ceil(cut * h) :] = 0
    waves[:, math.ceil(cut * w) :] = 0
    return mark_changes(pixels, idctn(waves, axes=(0, 1), norm="ortho"))


def zoom(pixels: Pixels, _: Generator, factor: float, y: float, x: float) -> PlantedImage:
    """Crop the image at a position, in shares of the room, and enlarge the rest to the size that it had."""
    h, w = pixels.shape[:2]
    top, left = y * h * (1 - 1 / factor), x * w * (1 - 1 / factor)
    box = (left, top, left + w / factor, top + h / factor)
    return mark_changes(pixels, np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling.BILINEAR, box=box)))


def draw_zoom(rng: Generator) -> PlantFunction:
    y, x = (0.5, 0.5) if rng.random() < 0.5 else rng.uniform(0, 1, 2).tolist()
    return partial(zoom, factor=rng.uniform(1.25, 2), y=y, x=x)


def mirror(pixels: Pixels, _: Generator, upright: bool) -> PlantedImage:
    """Mirror the image, top to bottom or left to right."""
    return mark_changes(pixels, np.ascontiguousarray(pixels[::-1] if upright else pixels[:, ::-1]))


def _require_colour(pixels: Pixels, name: str) -> None:
    if pixels.ndim != 3:
        raise InputError(
            f"{name} cannot be planted in a grey image", got=f"shape {pixels.shape}", rule="three channels",
            remedy="Give colour images, or another --kind.",
        )  # fmt: skip


def turn_hue(rgb: Floats, turn: float) -> Floats:
    """Turn the hue of colours (..., 3) by a share of a full turn; saturation and value of HSV stay."""
    value = rgb.max(-1, keepdims=True)
    chroma = value - rgb.min(-1, keepdims=True)
    r, g, b = np.moveaxis(rgb, -1, 0)
    span = np.maximum(chroma[..., 0], 1e-12)
    by_peak = [(g - b) / span % 6, (b - r) / span + 2, (r - g) / span + 4]
    hue = np.choose(rgb.argmax(-1), by_peak)  # in sixths of a turn
    sector = (hue[..., None] + 6 * turn + np.array([5.0, 3.0, 1.0])) % 6
    out: Floats = value - chroma * np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return out


def change_hue(pixels: Pixels, _: Generator, turn: float) -> PlantedImage:
    """Turn the hue of a colour image by a share of a full turn."""
    _require_colour(pixels, "a change of hue")
    return mark_changes(pixels, turn_hue(pixels.astype(np.float64), turn))


def white_balance(pixels: Pixels, _: Generator, gains: tuple[float, float, float]) -> PlantedImage:
    """Multiply the channels of a colour image by gains that leave the brightness of grey alone."""
    _require_colour(pixels, "a white balance")
    return mark_changes(pixels, pixels * np.array(gains))


def draw_white_balance(rng: Generator) -> PlantFunction:
    while True:
        gains = np.exp(rng.uniform(-0.35, 0.35, 3))
        gains /= gains @ LUMA
        if gains.max() / gains.min() > 1.25:
            return partial(white_balance, gains=tuple(gains.tolist()))


def gamma(pixels: Pixels, _: Generator, power: float) -> PlantedImage:
    """Raise levels, as shares of 255, to a power."""
    return mark_changes(pixels, 255 * (pixels / 255) ** power)
