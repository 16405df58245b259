"""Geometry of a resize and crop: the affine map from pixels of the model input to pixels of the image file.

A transform may be any callable, so its geometry is measured: it is applied to a vertical and a horizontal ramp from
black to white, whose output values give the source coordinate of each input pixel. For a resize and a crop this is a
straight line y = a i + b per axis, which is fitted by least squares. Any other transform is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.arrays import Bools, Floats
from klarsicht.ground.errors import InputError

AxisMap = tuple[float, float]
PROBED_SHAPES = ((384, 512), (512, 384))  # (h, w) of the files on which a transform is measured
SEEN_TOLERANCE = 0.02  # share of a side by which two lengths may differ


@dataclass(frozen=True)
class CropGeometry:
    """Affine map from a model input of H x W pixels to an image file.

    Attributes:
        shape: (h, w) of the file.
        rows, columns: (a, b) of each axis: input pixel i lies at file pixel a i + b.
    """

    shape: tuple[int, int]
    rows: AxisMap
    columns: AxisMap

    def map_to_file(self, mask: Bools) -> Bools:
        """Resample a mask bool (H, W) of the model input to the file, bool (h, w); cropped pixels are false."""
        rows, columns = (
            _nearest_input_pixel(line, n) for line, n in zip((self.rows, self.columns), self.shape, strict=True)
        )
        seen = np.ix_((rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1]))
        found = np.zeros(self.shape, bool)
        i, j = (at[(at >= 0) & (at < n)] for at, n in zip((rows, columns), mask.shape, strict=True))
        found[seen] = mask[np.ix_(i, j)]
        return found


def fit_crop_geometry(classifier: Classifier, size: tuple[int, ...], shape: tuple[int, int]) -> CropGeometry:
    """Fit the crop geometry of a classifier's transform for files of a shape (h, w).

    Args:
        size: (H, W) of the masks, which must be that of the model input.
        shape: (h, w) of the files.

    Raises:
        InputError: the transform is not a resize and crop, or its output differs in size from the mask.
    """
    return CropGeometry(shape, *(_fit_axis(classifier, size, shape, axis) for axis in (0, 1)))


def measure_seen_share(classifier: Classifier) -> float | None:
    """Measure which part of a file the model sees: the share of the shorter side that a square crop around the centre
    has, or 0 for a transform that resizes the whole file, whatever its shape.

    Returns:
        None where the transform is neither of these, or no resize and crop.
    """
    found = []
    for shape in PROBED_SHAPES:
        try:
            size = _transform_grey(classifier, np.zeros(shape, np.uint8)).shape
            geometry = fit_crop_geometry(classifier, size, shape)
        except Exception:  # a transform of the user's own may raise anything on pictures of another shape
            return None
        lines = (geometry.rows, geometry.columns)
        extents = [a * n for (a, _), n in zip(lines, size, strict=True)]
        centres = [b + a * (n - 1) / 2 for (a, b), n in zip(lines, size, strict=True)]
        if any(abs(c - (n - 1) / 2) > SEEN_TOLERANCE * n for c, n in zip(centres, shape, strict=True)):
            return None
        if all(abs(e - n) < SEEN_TOLERANCE * n for e, n in zip(extents, shape, strict=True)):
            found.append(0.0)
        elif abs(extents[0] - extents[1]) < SEEN_TOLERANCE * min(shape):
            found.append(min(sum(extents) / 2 / min(shape), 1.0))
    return found[0] if len(found) == len(PROBED_SHAPES) and np.ptp(found) < SEEN_TOLERANCE else None


def _nearest_input_pixel(line: AxisMap, n: int) -> NDArray[np.int64]:
    """Find the nearest input pixel, int64 (n,), of each file pixel 0 .. n - 1; it may lie outside the input."""
    a, b = line
    return np.asarray(np.rint((np.arange(n) - b) / a), np.int64)


def _fit_axis(classifier: Classifier, size: tuple[int, ...], shape: tuple[int, int], axis: int) -> AxisMap:
    """Fit (a, b) of one axis: input pixel i lies at file pixel a i + b.

    Raises:
        InputError: see `fit_crop_geometry`.
    """
    n = shape[axis]
    ramp = np.rint(np.linspace(0, 255, n)).astype(np.uint8)
    shown = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, shape)
    black, white, seen = (
        _transform_grey(classifier, pixels) for pixels in (0 * shown, 0 * shown + np.uint8(255), shown)
    )
    if seen.shape != size:
        raise InputError("a mask that does not fit", got=size, rule=f"{seen.shape}, as the model takes images")
    came_from = (n - 1) * (seen - black) / np.where(white == black, np.nan, white - black)
    i = np.broadcast_to(np.expand_dims(np.arange(size[axis]), 1 - axis), size)
    a, b = np.polyfit(i.ravel(), came_from.ravel(), 1) if np.isfinite(came_from).all() else (0.0, 0.0)
    error = np.abs(came_from - a * i - b).max()
    if not (a > 0 and error <= a + n / 255):  # tolerance: an input pixel, and one grey level of the ramp
        raise InputError(
            "the artifact's place cannot be found on the files",
            got="a transform that is no resize and crop",
            rule="an image's rows and columns come from rows and columns of its file",
            remedy="Drop, weigh or move the images, or hand in a callable of your own.",
        )
    return float(a), float(b)


def _transform_grey(classifier: Classifier, pixels: NDArray[np.uint8]) -> Floats:
    """Transform a grey picture uint8 (h, w); return the first channel of the model input, float64 (H, W)."""
    return np.asarray(classifier.image(Image.fromarray(np.ascontiguousarray(pixels)))[0].double().numpy())
