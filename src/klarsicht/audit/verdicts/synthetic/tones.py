"""Families of tone and colour: hue, white balance, gamma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from klarsicht.audit.verdicts.synthetic.planted_image import PlantedImage, mark_changes
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.ground.errors import InputError

LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in the brightness, of Rec. 601


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


@dataclass(frozen=True)
class Hue:
    """Turns the hue of a colour image.

    Attributes:
        turn: share of a full turn.
    """

    turn: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(float(rng.uniform(0.06, 0.5) * rng.choice([-1, 1])))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        _require_colour(pixels, "a change of hue")
        return mark_changes(pixels, turn_hue(pixels.astype(np.float64), self.turn))


@dataclass(frozen=True)
class WhiteBalance:
    """Changes the white balance of a colour image: gains of the channels that leave the brightness of grey alone."""

    gains: tuple[float, float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        while True:
            gains = np.exp(rng.uniform(-0.35, 0.35, 3))
            gains /= gains @ LUMA
            if gains.max() / gains.min() > 1.25:
                r, g, b = gains.tolist()
                return cls((r, g, b))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        _require_colour(pixels, "a white balance")
        return mark_changes(pixels, pixels * np.array(self.gains))


@dataclass(frozen=True)
class Gamma:
    """Raises levels, as shares of 255, to a power."""

    power: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        return cls(float(np.exp(rng.uniform(0.35, 0.8) * rng.choice([-1, 1]))))

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
        del rng
        return mark_changes(pixels, 255 * (pixels / 255) ** self.power)
