"""Where a pixel of a file lies on the image as the model takes it.

A transform is any callable. Shown a ramp from black to white, down and across, its output says where each of its pixels
came from; a resize and a crop make that a straight line, y = a i + b, which is fitted. Anything else is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.arrays import Bools, Floats
from klarsicht.ground.errors import InputError

Line = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """What an image as the model takes it (H, W) shows of a file of shape (h, w).

    Attributes:
        down, across: for its rows and its columns.
    """

    shape: tuple[int, int]
    down: Line
    across: Line

    def on_file(self, mask: Bools) -> Bools:
        """A mask (H, W) carried to the file (h, w). What the model does not see (cropped away) is not in it."""
        rows, columns = (_nearest(line, n) for line, n in zip((self.down, self.across), self.shape, strict=True))
        seen = np.ix_((rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1]))
        found = np.zeros(self.shape, bool)
        i, j = (at[(at >= 0) & (at < n)] for at, n in zip((rows, columns), mask.shape, strict=True))
        found[seen] = mask[np.ix_(i, j)]
        return found


def frame(classifier: Classifier, size: tuple[int, ...], shape: tuple[int, int]) -> Frame:
    """What a classifier sees of files of a shape (h, w).

    Args:
        size: (H, W), of masks over images as the model takes them.

    Raises:
        InputError: the transform is no resize and crop, or gives another size than the mask's.
    """
    return Frame(shape, *(_line(classifier, size, shape, axis) for axis in (0, 1)))


def _nearest(line: Line, n: int) -> NDArray[np.int64]:
    """For pixels 0 .. n - 1 of the file the nearest of the image."""
    a, b = line
    return np.asarray(np.rint((np.arange(n) - b) / a), np.int64)


def _line(classifier: Classifier, size: tuple[int, ...], shape: tuple[int, int], axis: int) -> Line:
    """(a, b): pixel i of the image is pixel a i + b of the file, along an axis."""
    n = shape[axis]
    ramp = np.rint(np.linspace(0, 255, n)).astype(np.uint8)
    shown = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, shape)
    black, white, seen = (_seen(classifier, pixels) for pixels in (0 * shown, 0 * shown + np.uint8(255), shown))
    if seen.shape != size:
        raise InputError("a mask that does not fit", got=size, rule=f"{seen.shape}, as the model takes images")
    came_from = (n - 1) * (seen - black) / np.where(white == black, np.nan, white - black)
    i = np.broadcast_to(np.expand_dims(np.arange(size[axis]), 1 - axis), size)
    a, b = np.polyfit(i.ravel(), came_from.ravel(), 1) if np.isfinite(came_from).all() else (0.0, 0.0)
    error = np.abs(came_from - a * i - b).max()
    if not (a > 0 and error <= a + n / 255):  # half an image's pixel at its edges, a level of grey
        raise InputError(
            "the artifact's place cannot be found on the files",
            got="a transform that is no resize and crop",
            rule="an image's rows and columns come from rows and columns of its file",
            remedy="Drop, weigh or move the images, or hand in a callable of your own.",
        )
    return float(a), float(b)


def _seen(classifier: Classifier, pixels: NDArray[np.uint8]) -> Floats:
    """The first channel (H, W) of what the model takes of a grey picture (h, w)."""
    return np.asarray(classifier.image(Image.fromarray(np.ascontiguousarray(pixels)))[0].double().numpy())
