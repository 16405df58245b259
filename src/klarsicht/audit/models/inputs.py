"""Images as the model is shown them, in grey levels: what detectors look at and what interventions change.

A detector that looks at the file would find artifacts that the model never sees, for they were cropped away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from klarsicht.audit.data.corpus import Corpus, decode_rows
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.errors import ImageError, ModelError

OFF = 0.02  # of the range between black and white, by which middle grey may miss the middle


@dataclass(frozen=True)
class PixelScale:
    """Between grey levels 0 to 255 and the numbers that a model takes.

    Attributes:
        black, white: float (C,), what the transform makes of either.
    """

    black: NDArray[np.float32]
    white: NDArray[np.float32]

    @classmethod
    def of(cls, classifier: Classifier) -> PixelScale:
        """By showing the transform black, white and grey.

        Raises:
            ModelError: a transform that is not affine in grey levels: nothing can be put on its images.
        """
        black, white = (np.array(end, np.float32) for end in classifier.box)
        grey = classifier.image(Image.new("RGB", (256, 256), (128, 128, 128))).flatten(1).mean(1).numpy()
        middle = black + (white - black) * 128 / 255
        if not np.allclose(grey, middle, atol=OFF * float(np.abs(white - black).max())):
            raise ModelError(
                "the model's transform bends grey levels",
                got=f"grey 128 becomes {grey.tolist()}, not {middle.tolist()}",
                rule="an artifact can be put on images only where numbers are grey levels, shifted and scaled",
            )
        return cls(black, white)

    def levels(self, image: Tensor) -> Pixels:
        """(C, H, W) as the model takes it -> (H, W, C) grey levels."""
        x = (image.float().numpy() - self.black[:, None, None]) / (self.white - self.black)[:, None, None]
        return np.asarray(np.clip(np.rint(x * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0))

    def inputs(self, levels: NDArray[Any]) -> Tensor:
        """(B, H, W, C) grey levels, whole or not -> (B, C, H, W) as the model takes them."""
        x = levels.astype(np.float32) / 255 * (self.white - self.black) + self.black
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@dataclass(frozen=True)
class InputImages:
    """A corpus through one glass; all images get the shape of its first one."""

    corpus: Corpus
    classifier: Classifier
    glass: PixelScale
    shape: tuple[int, int]

    @classmethod
    def of(cls, corpus: Corpus, classifier: Classifier) -> InputImages:
        """Raises CorpusError's kind where no image can be shown."""
        glass = PixelScale.of(classifier)
        first = next((p for _, p in decode_rows(corpus, range(len(corpus))) if isinstance(p, Image.Image)), None)
        if first is None:
            raise ImageError("no image can be decoded", got=f"{len(corpus)} files")
        height, width = classifier.image(first).shape[1:]
        return cls(corpus, classifier, glass, (height, width))

    def __call__(self, rows: Sequence[int] | NDArray[Any]) -> Pixels:
        """(n, H, W, C) of rows that the run could use."""
        shown = list(self._shown(rows))
        return np.stack(shown) if shown else np.zeros((0, *self.shape, len(self.glass.black)), np.uint8)

    def _shown(self, rows: Sequence[int] | NDArray[Any]) -> Iterator[Pixels]:
        for _, picture in decode_rows(self.corpus, [int(row) for row in rows]):
            if isinstance(picture, ImageError):
                raise picture
            yield fitted(self.glass.levels(self.classifier.image(picture)), self.shape)


def fitted(levels: Pixels, shape: tuple[int, int]) -> Pixels:
    """An image (H, W, C) in another size, if it is not of that size."""
    if levels.shape[:2] == shape:
        return levels
    planes = [
        Image.fromarray(plane).resize(shape[::-1], Image.Resampling.BILINEAR) for plane in levels.transpose(2, 0, 1)
    ]
    return np.stack([np.asarray(plane) for plane in planes], 2)


def shrunk(levels: Pixels, side: int) -> NDArray[np.float32]:
    """(n, H, W, C) with the shorter side at `side` pixels, by area; as they are where they are no larger."""
    h, w = levels.shape[1:3]
    if min(h, w) <= side:
        return levels.astype(np.float32)
    scale = side / min(h, w)
    tall, wide = _areas(h, round(h * scale)), _areas(w, round(w * scale))
    rows = np.einsum("ah,nhwc->nawc", tall, levels.astype(np.float32), optimize=True)
    return np.asarray(np.einsum("bw,nawc->nabc", wide, rows, optimize=True), np.float32)


def _areas(n: int, m: int) -> NDArray[np.float32]:
    """(m, n) weights of m equal stretches over n pixels; rows sum to one."""
    low = np.arange(m)[:, None] * n / m
    overlap = np.minimum(low + n / m, np.arange(1, n + 1)) - np.maximum(low, np.arange(n))
    return np.asarray(np.maximum(overlap, 0) * m / n, np.float32)
