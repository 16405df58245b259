"""Model inputs as 8-bit pixel values, on which detectors and interventions work: artifacts that the transform crops
away never reach the model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.errors import ImageError, ModelError
from klarsicht.ground.pictures.stored_images import DecodedImage

GREY_TOLERANCE = 0.02  # largest deviation of middle grey from linearity, as a share of the range black to white
CACHE_BYTES = 2**29  # of decoded images that a process keeps


@dataclass(frozen=True)
class PixelScale:
    """Affine map between 8-bit pixel values and normalised model inputs, per channel. black, white: float32 (C,), model
    inputs of pixel values 0 and 255; black is the larger one of a negative. order: for each channel of the pixel
    values, the channel of the model inputs that holds it, such as 2, 1, 0 of a network that takes blue first; empty:
    the same."""

    black: NDArray[np.float32]
    white: NDArray[np.float32]
    order: tuple[int, ...] = ()

    @classmethod
    def of(cls, classifier: Classifier) -> PixelScale:
        """Measure the map by transforming a black, a white and a grey image, and a red, a green and a blue one; raises
        ModelError where the transform is not affine in pixel values, so that no artifact can be inserted."""
        black, white = (np.array(end, np.float32) for end in classifier.black_and_white)
        grey = classifier.transform_colour((128, 128, 128)).numpy()
        middle = black + (white - black) * 128 / 255
        tolerance = GREY_TOLERANCE + (classifier.form.rounding if classifier.form else 0)
        if not np.allclose(grey, middle, atol=tolerance * float(np.abs(white - black).max())):
            raise ModelError(
                "the model's transform is not linear in grey levels",
                got=f"grey 128 becomes {grey.tolist()}, not {middle.tolist()}",
                rule="an artifact can be put on images only where numbers are grey levels, shifted and scaled",
            )
        return cls(black, white, classifier.channel_order)

    def levels(self, image: Tensor) -> Pixels:
        """Convert a model input (C, H, W) to pixel values uint8 (H, W, C)."""
        x = (image.float().numpy() - self.black[:, None, None]) / (self.white - self.black)[:, None, None]
        x = x[list(self.order)] if self.order else x
        return np.asarray(np.clip(np.rint(x * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0))

    def inputs(self, levels: NDArray[Any]) -> Tensor:
        """Convert pixel values (B, H, W, C), integer or float, to model inputs float32 (B, C, H, W)."""
        x = levels[..., np.argsort(self.order)] if self.order else levels
        x = x.astype(np.float32) / 255 * (self.white - self.black) + self.black
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    def to_json(self) -> dict[str, Any]:
        """Return the map as JSON values; the order where it is not the same."""
        ends = {"black": self.black.tolist(), "white": self.white.tolist()}
        return ends | ({"order": list(self.order)} if self.order else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PixelScale:
        """Read a record of `to_json`, among other keys; raises KeyError where it lacks one."""
        black, white = (np.array(record[end], np.float32) for end in ("black", "white"))
        return cls(black, white, tuple(record.get("order", ())))


class PixelCache:
    """Pixel values of images by their row, the least recently used dropped beyond `most` bytes; pickled empty."""

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self.most, self.bytes = most, 0
        self._levels: OrderedDict[int, Pixels] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"most": self.most, "bytes": 0, "_levels": OrderedDict()}

    def get(self, row: int) -> Pixels | None:
        """Look up the pixel values (H, W, C) of a row; None where they are not kept."""
        if row in self._levels:
            self._levels.move_to_end(row)
        return self._levels.get(row)

    def put(self, row: int, levels: Pixels) -> None:
        """Keep pixel values (H, W, C)."""
        self._levels[row] = levels
        self.bytes += levels.nbytes
        while self.bytes > self.most:
            self.bytes -= self._levels.popitem(last=False)[1].nbytes


@dataclass(frozen=True)
class InputImages:
    """The images of a corpus as 8-bit model inputs, all resized to the shape (H, W) of the first. Pixel values that
    were decoded already are cached: detectors, interventions and pages look at the same images."""

    corpus: Corpus
    classifier: Classifier
    pixel_scale: PixelScale
    shape: tuple[int, int]
    cache: PixelCache = field(default_factory=PixelCache, repr=False, compare=False, kw_only=True)

    @classmethod
    def of(cls, corpus: Corpus, classifier: Classifier) -> InputImages:
        """Prepare the images of a corpus for a classifier; raises ImageError where none can be decoded, ModelError as
        `PixelScale.of`."""
        pixel_scale = PixelScale.of(classifier)
        for row, picture in decode_rows(corpus, range(len(corpus))):
            if not isinstance(picture, ImageError):
                levels = pixel_scale.levels(classifier.image(picture))
                images = cls(corpus, classifier, pixel_scale, (levels.shape[0], levels.shape[1]))
                images.cache.put(row, levels)
                return images
        raise ImageError("no image can be decoded", got=f"{len(corpus)} files")

    def __call__(self, rows: Sequence[int] | NDArray[Any]) -> Pixels:
        """Load the images of n rows as pixel values, uint8 (n, H, W, C); raises ImageError where one cannot be
        decoded."""
        shown = list(self._load_levels(rows))
        return np.stack(shown) if shown else np.zeros((0, *self.shape, len(self.pixel_scale.black)), np.uint8)

    def as_inputs(self, rows: Sequence[int] | NDArray[Any]) -> Tensor:
        """Load the images of n rows as model inputs of their pixel values, float32 (n, C, H, W); raises ImageError."""
        return self.pixel_scale.inputs(self(rows))

    def _load_levels(self, rows: Sequence[int] | NDArray[Any]) -> Iterator[Pixels]:
        numbers = [int(row) for row in rows]
        levels_by_row = {row: levels for row in numbers if (levels := self.cache.get(row)) is not None}
        missing = list(dict.fromkeys(row for row in numbers if row not in levels_by_row))
        decoded = decode_rows(self.corpus, missing)
        for row in numbers:
            if row not in levels_by_row:
                levels_by_row[row] = self._decode(*next(decoded))
            yield levels_by_row[row]

    def _decode(self, row: int, picture: DecodedImage | ImageError) -> Pixels:
        if isinstance(picture, ImageError):
            raise picture
        levels = resize_levels(self.pixel_scale.levels(self.classifier.image(picture)), self.shape)
        self.cache.put(row, levels)
        return levels


def resize_levels(levels: Pixels, shape: tuple[int, int]) -> Pixels:
    """Resize an image uint8 (H, W, C) bilinearly to a shape (height, width), where it differs."""
    if levels.shape[:2] == shape:
        return levels
    planes = [
        Image.fromarray(plane).resize(shape[::-1], Image.Resampling.BILINEAR) for plane in levels.transpose(2, 0, 1)
    ]
    return np.stack([np.asarray(plane) for plane in planes], 2)


def shrink_levels(levels: Pixels | NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Shrink images (n, H, W, C) by area averaging until the shorter side has `side` px; smaller ones are kept."""
    h, w = levels.shape[1:3]
    if min(h, w) <= side:
        return levels.astype(np.float32)
    scale = side / min(h, w)
    tall, wide = _area_weights(h, round(h * scale)), _area_weights(w, round(w * scale))
    rows = np.einsum("ah,nhwc->nawc", tall, levels.astype(np.float32), optimize=True)
    return np.asarray(np.einsum("bw,nawc->nabc", wide, rows, optimize=True), np.float32)


def _area_weights(n: int, m: int) -> NDArray[np.float32]:
    """Compute area-averaging weights (m, n) of m equal intervals over n pixels; rows sum to one."""
    low = np.arange(m)[:, None] * n / m
    overlap = np.minimum(low + n / m, np.arange(1, n + 1)) - np.maximum(low, np.arange(n))
    return np.asarray(np.maximum(overlap, 0) * m / n, np.float32)
