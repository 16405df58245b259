"""Photographs as scenes in linear light, and the geometry of the crop for a synthetic burst. Nothing here depends on
the processor: tables are made in double precision, sums are written out one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from klarsicht.ground.errors import CorpusError, ImageError, UsageError
from klarsicht.numerics.imaging.tone import GAMMA

Photograph = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]  # H W 3
Light = npt.NDArray[np.float32]  # C H W, linear, 1 the white of the photograph


@dataclass(frozen=True)
class Geometry:
    """The geometry of bursts cut from a photograph: frames of height x width, each pixel the mean of scale x scale.
    reach: the largest shift of a frame, in its own pixels. KPN: 640 pixels become 128, shifted by up to 16."""

    scale: int = 4
    height: int = 128
    width: int = 128
    reach: int = 16

    def __post_init__(self) -> None:
        if min(self.scale, self.height, self.width) < 1 or self.reach < 0:
            raise UsageError("geometry of a burst", got=self, rule="sides and scale must be positive")

    @property
    def margin(self) -> int:
        """The margin on each side of the reference, in pixels of the photograph."""
        return self.scale * self.reach

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of the crop, in pixels of the photograph."""
        return self.scale * (self.height + 2 * self.reach), self.scale * (self.width + 2 * self.reach)


KPN = Geometry()


def rgb_light(photograph: Photograph) -> Light:
    """Decode a photograph to linear light (3, H, W) by x^2.2."""
    return _apply_curve(photograph, _undo_gamma)


def grey_light(photograph: Photograph) -> Light:
    """Compute the mean of R, G and B in linear light, (1, H, W)."""
    red, green, blue = rgb_light(photograph)
    return ((red + green + blue) * np.float32(1 / 3))[None]


def untoned_light(photograph: Photograph) -> Light:
    """Decode a photograph to linear light (3, H, W), its tone curve undone before its gamma (arXiv 1811.11127)."""
    return _apply_curve(photograph, _undo_tone_and_gamma)


def scenes(photographs: Sequence[Photograph], light: Callable[[Photograph], Light]) -> tuple[Light, ...]:
    """Decode every photograph (H, W, 3), 8 or 16 bit, once to linear light. Raises CorpusError, ImageError."""
    if not len(photographs):
        raise CorpusError("no photographs", rule="synthetic bursts need at least one", remedy="Give a folder of them.")
    for index, photograph in enumerate(photographs):
        _check(photograph, index)
    return tuple(np.ascontiguousarray(light(photograph)) for photograph in photographs)


def check_size(scene: Light, geometry: Geometry, index: int = 0) -> None:
    """Raise ImageError where a crop of this geometry does not fit."""
    if any(side < need for side, need in zip(scene.shape[-2:], geometry.crop, strict=True)):
        height, width = geometry.crop
        raise ImageError(
            f"photograph {index} is too small",
            got=f"{scene.shape[-2]} x {scene.shape[-1]}",
            rule=f"a burst is cut from {height} x {width} pixels",
            remedy="Leave it out, or choose a smaller scale, frame or reach.",
        )


def fit_scale(geometry: Geometry, scene: Light, smallest: int) -> Geometry:
    """Choose the largest scale, from `smallest` to the geometry's, whose crop fits a scene; else `smallest`."""
    scales = (replace(geometry, scale=scale) for scale in range(geometry.scale, smallest, -1))
    fitting = (g for g in scales if all(side >= need for side, need in zip(scene.shape[-2:], g.crop, strict=True)))
    return next(fitting, replace(geometry, scale=min(smallest, geometry.scale)))


def box_mean(image: Light, scale: int) -> Light:
    """Compute the mean over blocks of scale x scale, (..., H, W) to (..., H / scale, W / scale)."""
    rows = image[..., ::scale, :]
    for k in range(1, scale):
        rows = rows + image[..., k::scale, :]
    both = rows[..., ::scale]
    for k in range(1, scale):
        both = both + rows[..., k::scale]
    return both * np.float32(1 / scale**2)


def orient_crop(crop: Light, turn: int) -> Light:
    """Turn and mirror a picture in one of eight ways: turn 0 leaves it, 4 to 7 swap height and width."""
    flipped = crop[..., :: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]
    return flipped.swapaxes(-1, -2) if turn & 4 else flipped


def _check(photograph: Photograph, index: int) -> None:
    """Raise ImageError unless the photograph is (H, W, 3) of 8 or 16 bits."""
    if photograph.ndim != 3 or photograph.shape[2] != 3 or photograph.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"photograph {index} is not an RGB picture",
            got=f"{photograph.dtype} {photograph.shape}",
            rule="photographs must be (height, width, 3) of 8 or 16 bits",
            remedy="Convert it, or leave it out (grey and CMYK pictures hold no colours a sensor could see).",
        )


def _apply_curve(photograph: Photograph, curve: Callable[[float], float]) -> Light:
    """Apply a curve on [0, 1] to all codes of a photograph by table look-up: (H, W, 3) to (3, H, W)."""
    return _table(curve, np.iinfo(photograph.dtype).max)[np.moveaxis(photograph, -1, 0)]


@cache
def _table(curve: Callable[[float], float], highest: int) -> npt.NDArray[np.float32]:
    return np.array([curve(level / highest) for level in range(highest + 1)], np.float32)


def _undo_gamma(v: float) -> float:
    return math.pow(v, GAMMA)


def _undo_tone_and_gamma(v: float) -> float:
    return math.pow(max(0.0, 0.5 - math.sin(math.asin(1 - 2 * v) / 3)), GAMMA)
