"""Artifacts without a place, imitated: noise, blur, light or JPEG of the size that members show.

No mask can cut these out, and no tile carries them to another image. What can be measured of them is how much: the size
is that under which images of the class without the artifact, changed alike, measure as members do. So what a scene
shows, and what is cut off at black and white, is counted on both sides.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from torch import Tensor

from klarsicht.audit.detectors.bank import measured
from klarsicht.audit.models.inputs import PixelScale
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.numerics.imaging import image_statistics

Measure = Callable[[Floats], Floats]
Change = Callable[[Floats, float, np.random.Generator], Floats]

TRIED: Final = 64  # images that every size is tried on


@dataclass(frozen=True)
class Kind:
    """One change without a place.

    Attributes:
        change: levels (n, H, W, C) in 0 to 255 changed by a size.
        measure: a number an image that grows with the size, or falls.
        sizes: those known, ascending; 0 leaves images as they are.
        unit: of a size.
    """

    change: Change
    measure: Measure
    sizes: tuple[float, ...]
    unit: str

    def size(self, carriers: Pixels, others: Pixels) -> float:
        """The size under which others (k, H, W, C) measure as carriers (m, H, W, C) do, by the middle one of each."""
        aim, some = np.median(measured(self.measure, carriers)), others[:TRIED].astype(np.float32)

        def above(i: int) -> float:
            put = self.put(some, self.sizes[i], np.random.default_rng(0))
            return float(np.median(self.measure(put)) - aim)

        low, high = 0, len(self.sizes) - 1
        grows = above(high) > above(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if (above(middle) > 0) == grows else (middle, high)
        return self.sizes[min((low, high), key=lambda i: abs(above(i)))]

    def apart(self, carriers: Pixels, others: Pixels) -> float:
        """How well the measure tells carriers from others, either way: area under the curve, .5 to 1."""
        values = np.concatenate([measured(self.measure, levels) for levels in (carriers, others)])
        area = float(roc_auc_score(np.arange(len(values)) < len(carriers), values))
        return max(area, 1 - area)

    def put(self, x: Floats, size: float, rng: np.random.Generator) -> Floats:
        """Changed levels, as far as 8 bits hold them."""
        return x if size == 0 else np.clip(self.change(x, size, rng), 0, 255)


def noisy(x: Floats, size: float, rng: np.random.Generator) -> Floats:
    """White noise of a deviation in grey levels."""
    return np.asarray(x + rng.normal(0, size, x.shape).astype(np.float32))


def blurred(x: Floats, size: float, rng: np.random.Generator) -> Floats:
    """By a Gaussian of a deviation in pixels."""
    del rng
    return np.asarray(gaussian_filter(x, (0, size, size, 0)))


def lighter(x: Floats, size: float, rng: np.random.Generator) -> Floats:
    """By grey levels."""
    del rng
    return np.asarray(x + np.float32(size))


def compressed(x: Floats, size: float, rng: np.random.Generator) -> Floats:
    """Images of one colour or three through JPEG; the size is 100 less the quality."""
    del rng
    out = np.empty(x.shape, np.float32)
    for i, image in enumerate(np.rint(x).astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=round(100 - size))
        out[i] = np.asarray(Image.open(file)).reshape(image.shape)
    return out


KINDS: Final[dict[str, Kind]] = {
    "noise": Kind(noisy, image_statistics.roughness, (0.0, *np.geomspace(1, 64, 25).tolist()), "levels of noise"),
    "blur": Kind(blurred, image_statistics.sharpness, (0.0, *np.linspace(0.25, 4, 16).tolist()), "pixels of blur"),
    "blocks": Kind(
        compressed, image_statistics.blockiness, (0.0, *np.arange(5.0, 100, 10).tolist()), "below JPEG quality 100"
    ),
    "light": Kind(lighter, image_statistics.veil, tuple(np.arange(-96.0, 97, 2).tolist()), "levels of light"),
}


@dataclass(frozen=True)
class Corruption:
    """An artifact without a place, as it can be put on images.

    Attributes:
        kind: a name of KINDS. size: in its unit.
        glass: between levels and what the model takes.
    """

    kind: str
    size: float
    glass: PixelScale

    @classmethod
    def of(cls, kind: str, carriers: Pixels, others: Pixels, glass: PixelScale) -> Corruption | None:
        """Of the size that carriers (m, H, W, C) show beside others (k, H, W, C); None where they show none."""
        size = KINDS[kind].size(carriers, others)
        return None if size == 0 else cls(kind, size, glass)

    def __str__(self) -> str:
        return f"{self.size:.3g} {KINDS[self.kind].unit}"

    def fits(self, image: Tensor) -> bool:
        return image.ndim == 3 and len(image) == len(self.glass.black)

    def paste(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """An image (C, H, W) as the model takes it, with the artifact."""
        levels = self.glass.levels(image)[None].astype(np.float32)
        return self.glass.inputs(KINDS[self.kind].put(levels, self.size, rng))[0].to(image)

    def to_json(self) -> dict[str, Any]:
        black, white = self.glass.black.tolist(), self.glass.white.tolist()
        return {"kind": self.kind, "size": self.size, "black": black, "white": white}

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> Corruption:
        """Raises KeyError for a record that lacks something."""
        ends = (np.array(known[end], np.float32) for end in ("black", "white"))
        return cls(known["kind"], known["size"], PixelScale(*ends))
