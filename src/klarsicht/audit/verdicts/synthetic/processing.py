"""Families of processing: codecs, resampling, screens and sensors, and geometry of the whole image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.synthetic.planted_image import (
    PlantedImage,
    grid,
    mark_changes,
    over_channels,
    reencode_jpeg,
    shorter_side,
)
from klarsicht.ground.arrays import Pixels

RESAMPLING = ("NEAREST", "BILINEAR", "BICUBIC")  # names of Pillow


@dataclass(frozen=True)
class ScanLines:
    """Darkens every n-th line of the image, as of a screen.

    Attributes:
        period: of the lines as a share of the image's shorter side, at least 2 pixels.
        strength: by which share lines are darkened.
        upright: whether columns are darkened and not rows.
    """

    period: float
    strength: float
    upright: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(rng.uniform(0.01, 0.12), rng.uniform(0.15, 0.5), bool(rng.random() < 0.3))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        period = max(2, round(self.period * shorter_side(pixels)))
        factor = np.ones(pixels.shape[:2], np.float32)
        lines = factor.T if self.upright else factor
        within = np.arange(len(lines)) % period
        lines[within < max(1, period // 3)] = 1 - self.strength
        return mark_changes(pixels, pixels * over_channels(factor, pixels))


@dataclass(frozen=True)
class Moire:
    """Plants moiré: two gratings that beat against each other, with a phase drawn anew for every image.

    Attributes:
        waves: (rows, columns) in cycles a pixel of either grating.
        amplitude: grey levels.
        shift: of phase from channel to channel, radians: colours.
    """

    waves: tuple[tuple[float, float], tuple[float, float]]
    amplitude: float
    shift: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(0.18, 0.35)
        turn, ratio = rng.uniform(0.1, 0.35), rng.uniform(0.85, 1.15)
        waves = (
            (frequency * math.sin(angle), frequency * math.cos(angle)),
            (ratio * frequency * math.sin(angle + turn), ratio * frequency * math.cos(angle + turn)),
        )
        return cls(waves, rng.uniform(15, 40), rng.uniform(0, 2 * np.pi / 3))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        rows, columns = grid(pixels)
        phases = rng.uniform(0, 2 * np.pi, 2)
        shifts = self.shift * np.arange(3 if pixels.ndim == 3 else 1)
        (a, b), (c, d) = self.waves
        first = np.cos(2 * np.pi * (a * rows + b * columns) + phases[0])
        second = np.cos(2 * np.pi * (c * rows + d * columns)[..., None] + phases[1] + shifts)
        pattern = (first[..., None] * second).reshape(pixels.shape)
        return mark_changes(pixels, pixels + self.amplitude * pattern)


@dataclass(frozen=True)
class Grain:
    """Adds grain: Gaussian noise, smoothed to grains, strongest in the mid-tones.

    Attributes:
        amplitude: standard deviation in the mid-tones, grey levels.
        size: standard deviation of a grain, pixels; 0 for white noise.
        colour: whether channels differ.
    """

    amplitude: float
    size: float
    colour: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        size = 0.0 if rng.random() < 0.4 else rng.uniform(0.3, 0.9)
        return cls(rng.uniform(10, 26), size, bool(rng.random() < 0.5))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        h, w = pixels.shape[:2]
        noise = rng.normal(0, 1, (h, w, 3 if self.colour and pixels.ndim == 3 else 1))
        if self.size:
            noise = gaussian_filter(noise, (self.size, self.size, 0), mode="wrap")
            noise /= noise.std() + 1e-12
        level = pixels.reshape(h, w, -1) / 255
        grain = self.amplitude * noise * (0.4 + 2.4 * level * (1 - level))
        return mark_changes(pixels, pixels + grain.reshape(pixels.shape))


@dataclass(frozen=True)
class Jpeg:
    """Encodes the image as JPEG.

    Attributes:
        quality: of Pillow.
        subsampling: of colour, as Pillow numbers it: 0 for none, 2 for half in both directions.
    """

    quality: int
    subsampling: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(int(rng.integers(6, 36)), int(rng.choice([0, 2])))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        return mark_changes(pixels, reencode_jpeg(pixels, self.quality, self.subsampling if pixels.ndim == 3 else -1))


@dataclass(frozen=True)
class Resampling:
    """Makes the image smaller and enlarges it again.

    Attributes:
        factor: of the smaller image's sides.
        method: of enlarging, a name of Pillow; it is made smaller by averaging.
    """

    factor: float
    method: str

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(rng.uniform(0.35, 0.65), RESAMPLING[rng.integers(len(RESAMPLING))])

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        h, w = pixels.shape[:2]
        small = max(1, round(self.factor * w)), max(1, round(self.factor * h))
        image = Image.fromarray(pixels).resize(small, Image.Resampling.BOX)
        return mark_changes(pixels, np.asarray(image.resize((w, h), Image.Resampling[self.method])))


@dataclass(frozen=True)
class Ringing:
    """Cuts high frequencies off sharply, as ideal upscaling does: edges ring.

    Attributes:
        cut: share of the cosine frequencies that are kept, along either axis.
    """

    cut: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(rng.uniform(0.35, 0.65))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        h, w = pixels.shape[:2]
        waves = dctn(pixels.astype(np.float64), axes=(0, 1), norm="ortho")
        waves[math.ceil(self.cut * h) :] = 0
        waves[:, math.ceil(self.cut * w) :] = 0
        return mark_changes(pixels, idctn(waves, axes=(0, 1), norm="ortho"))


@dataclass(frozen=True)
class Zoom:
    """Crops the image and enlarges the rest to the size that it had.

    Attributes:
        factor: by which it is enlarged.
        y, x: position of the crop, as shares of the room.
    """

    factor: float
    y: float
    x: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        y, x = (0.5, 0.5) if rng.random() < 0.5 else rng.uniform(0, 1, 2)
        return cls(rng.uniform(1.25, 2), float(y), float(x))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        h, w = pixels.shape[:2]
        top, left = self.y * h * (1 - 1 / self.factor), self.x * w * (1 - 1 / self.factor)
        box = (left, top, left + w / self.factor, top + h / self.factor)
        image = Image.fromarray(pixels).resize((w, h), Image.Resampling.BILINEAR, box=box)
        return mark_changes(pixels, np.asarray(image))


@dataclass(frozen=True)
class Mirror:
    """Mirrors the image, left to right or top to bottom."""

    upright: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(bool(rng.random() < 0.5))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        return mark_changes(pixels, np.ascontiguousarray(pixels[::-1] if self.upright else pixels[:, ::-1]))
