"""Imitate artifacts without a place: noise, blur, brightness or JPEG compression, of the size at which images of the
class without the artifact, corrupted alike, have the same measure as the carriers."""

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

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.detectors.detection import Measure, measure_in_blocks
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.numerics.imaging import image_statistics

Change = Callable[[Floats, float, np.random.Generator], Floats]

SIZE_IMAGES: Final = 64  # images on which sizes are compared


@dataclass(frozen=True)
class CorruptionKind:
    """Kind of corruption of a whole image. `change` corrupts pixel values (n, H, W, C) in 0 to 255 by a size, one of
    `sizes`, ascending, in a `unit`; 0 leaves images unchanged. `measure` is one number for each image, monotonic in the
    size."""

    change: Change
    measure: Measure
    sizes: tuple[float, ...]
    unit: str

    def match_size(self, carriers: Pixels, others: Pixels) -> float:
        """Estimate the size at which corrupted others (k, H, W, C) have the median measure of the carriers (m, H, W,
        C), by bisection over the known sizes, on at most SIZE_IMAGES of the others."""
        aim, some = np.median(measure_in_blocks(self.measure, carriers)), others[:SIZE_IMAGES].astype(np.float32)

        def above(i: int) -> float:
            put = self.apply(some, self.sizes[i], np.random.default_rng(0))
            return float(np.median(self.measure(put)) - aim)

        low, high = 0, len(self.sizes) - 1
        grows = above(high) > above(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if (above(middle) > 0) == grows else (middle, high)
        return self.sizes[min((low, high), key=lambda i: abs(above(i)))]

    def separation(self, carriers: Pixels, others: Pixels) -> float:
        """Compute the ROC area of the measure for carriers against others, in either direction: 0.5 to 1."""
        values = np.concatenate([measure_in_blocks(self.measure, levels) for levels in (carriers, others)])
        area = float(roc_auc_score(np.arange(len(values)) < len(carriers), values))
        return max(area, 1 - area)

    def apply(self, x: Floats, size: float, rng: np.random.Generator) -> Floats:
        """Corrupt pixel values (n, H, W, C) and clip them to 0 to 255."""
        return x if size == 0 else np.clip(self.change(x, size, rng), 0, 255)


def add_noise(x: Floats, size: float, rng: np.random.Generator) -> Floats:
    """Add white noise whose standard deviation is `size` grey levels."""
    return np.asarray(x + rng.normal(0, size, x.shape).astype(np.float32))


def add_blur(x: Floats, size: float, rng: np.random.Generator) -> Floats:
    """Blur by a Gaussian whose standard deviation is `size` pixels."""
    return np.asarray(gaussian_filter(x, (0, size, size, 0)))


def add_light(x: Floats, size: float, _: np.random.Generator) -> Floats:
    """Add `size` grey levels to all pixels."""
    return np.asarray(x + np.float32(size))


def compress_jpeg(x: Floats, size: float, _: np.random.Generator) -> Floats:
    """Compress images by JPEG of quality 100 - size: three channels as RGB, any other number one by one as grey."""
    if x.shape[-1] not in (1, 3):
        return np.concatenate(
            [compress_jpeg(plane, size, np.random.default_rng(0)) for plane in np.split(x, x.shape[-1], -1)], -1
        )
    out = np.empty(x.shape, np.float32)
    for i, image in enumerate(np.rint(x).astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=round(100 - size))
        out[i] = np.asarray(Image.open(file)).reshape(image.shape)
    return out


KINDS: Final[dict[str, CorruptionKind]] = {
    "noise": CorruptionKind(
        add_noise, image_statistics.roughness, (0.0, *np.geomspace(1, 64, 25).tolist()), "levels of noise"
    ),
    "blur": CorruptionKind(
        add_blur, image_statistics.sharpness, (0.0, *np.linspace(0.25, 4, 16).tolist()), "pixels of blur"
    ),
    "blocks": CorruptionKind(
        compress_jpeg, image_statistics.blockiness, (0.0, *np.arange(5.0, 100, 10).tolist()), "below JPEG quality 100"
    ),
    "light": CorruptionKind(
        add_light, image_statistics.veil, tuple(np.arange(-96.0, 97, 2).tolist()), "levels of light"
    ),
}


@dataclass(frozen=True)
class Corruption:
    """Corruption of one of KINDS and a size in its unit; an `Insertion`, whose control is the unchanged image."""

    kind: str
    size: float
    pixel_scale: PixelScale

    @classmethod
    def of(cls, kind: str, carriers: Pixels, others: Pixels, pixel_scale: PixelScale) -> Corruption:
        """Estimate the corruption of carriers (m, H, W, C) against others (k, H, W, C)."""
        return cls(kind, KINDS[kind].match_size(carriers, others), pixel_scale)

    @classmethod
    def ways(cls, kind: str, examples: ArtifactExamples, pixel_scale: PixelScale) -> dict[str, Corruption]:
        """Make the insertion of a corruption of the size that carriers show, by the name of that size."""
        estimated = cls.of(kind, examples.carriers, examples.others, pixel_scale)
        return {str(estimated): estimated}

    def __str__(self) -> str:
        return f"{self.size:.3g} {KINDS[self.kind].unit}"

    def fits(self, image: Tensor) -> bool:
        return image.ndim == 3 and len(image) == len(self.pixel_scale.black)

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Corrupt images (n, C, H, W), given and returned as model inputs; the control are the images themselves."""
        levels = np.stack([self.pixel_scale.levels(image) for image in images]).astype(np.float32)
        return self.pixel_scale.inputs(KINDS[self.kind].apply(levels, self.size, rng)).to(images), images

    def alter(self, levels: Pixels) -> Pixels:
        """Corrupt pixel values (n, H, W, C), rounded."""
        corrupted = KINDS[self.kind].apply(levels.astype(np.float32), self.size, np.random.default_rng(0))
        return np.rint(corrupted).astype(np.uint8)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size} | self.pixel_scale.to_json()

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Corruption:
        """Read a record of `to_json`; raises KeyError where it lacks a key."""
        return cls(record["kind"], record["size"], PixelScale.from_json(record))
