"""Geometry of a resize, crop and pad: the affine map from pixels of the model input to pixels of the image file.

A transform may be any callable, so its geometry is measured: it is applied to a vertical and a horizontal ramp from
black to white, whose output values give the source coordinate of each input pixel; of a resize and a crop a straight
line y = a i + b per axis. Input pixels that are the same for black and for white are padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.ground.arrays import Bools, Doubles, Floats
from klarsicht.ground.errors import InputError
from klarsicht.ground.pictures.seen_area import CENTRE, EXTENT_UNITS, SeenArea

AxisMap = tuple[float, float]
PROBED_SHAPES = ((384, 512), (512, 384), (300, 200), (640, 900))  # (h, w) of the files on which a transform is measured
SEEN_TOLERANCE = 0.02  # share of a side by which two lengths may differ
WHOLE_TOLERANCE = 0.005  # share by which an extent may differ from a whole unit that it is taken for
PLACES = (CENTRE, 0.0, 1.0)  # shares of a margin that may lie before the seen area
BLENDED = 16  # part, one of so many, of the pixels that show the file, which may be blended with padding on each side
PADDING = 0.5  # of the range black to white that the input spans, below which a pixel is padding


@dataclass(frozen=True)
class CropGeometry:
    """Affine map from a model input of H x W pixels to an image file of `shape` (h, w): by the (a, b) of `rows` and of
    `columns`, input pixel i lies at file pixel a i + b."""

    shape: tuple[int, int]
    rows: AxisMap
    columns: AxisMap

    def map_to_file(self, mask: Bools) -> Bools:
        """Resample a mask bool (H, W) of the model input to the file, bool (h, w); cropped pixels are false."""
        lines = zip((self.rows, self.columns), self.shape, strict=True)
        places = [np.rint((np.arange(n) - b) / a).astype(np.int64) for (a, b), n in lines]  # nearest input pixels
        inside = [(at >= 0) & (at < n) for at, n in zip(places, mask.shape, strict=True)]
        found = np.zeros(self.shape, bool)
        found[np.ix_(*inside)] = mask[np.ix_(*(at[seen] for at, seen in zip(places, inside, strict=True)))]
        return found


def fit_crop_geometry(classifier: Classifier, size: tuple[int, ...], shape: tuple[int, int]) -> CropGeometry:
    """Fit the crop geometry of a classifier's transform for files of a shape (h, w) and masks of a size (H, W); raises
    InputError where the transform is no resize, crop and pad, or its output differs in size from the mask."""
    return CropGeometry(shape, *(_fit_axis(classifier, size, shape, axis) for axis in (0, 1)))


def measure_seen_area(classifier: Classifier) -> SeenArea | None:
    """Measure which part of a file the model sees, as a rectangle that follows from the file's size; None where the
    transform is no resize, crop and pad, or no SeenArea describes it on files of all PROBED_SHAPES."""
    starts, extents = [], []
    for shape in PROBED_SHAPES:
        try:
            size = _transform_grey(classifier, np.zeros(shape, np.uint8)).shape
            geometry = fit_crop_geometry(classifier, size, shape)
        except Exception:  # a transform of the user's own may raise anything on pictures of another shape
            return None
        lines = (geometry.rows, geometry.columns)
        starts.append([b + (1 - a) / 2 for a, b in lines])
        extents.append([a * n for (a, _), n in zip(lines, size, strict=True)])
    return describe_seen_area(np.array(PROBED_SHAPES), np.array(starts), np.array(extents))


def describe_seen_area(shapes: NDArray[np.int64], starts: Doubles, extents: Doubles) -> SeenArea | None:
    """Describe rectangles of n files by one SeenArea; None where none describes them all. `shapes`, (n, 2), are height
    and width of each file; `starts` and `extents`, (n, 2), top and left, height and width of the rectangle in its
    pixels."""
    for unit in EXTENT_UNITS:
        lengths = np.array([SeenArea(unit).extents((w, h)) for h, w in shapes.tolist()])
        shares = extents / lengths
        if (np.ptp(shares, axis=0) > SEEN_TOLERANCE * shares.mean(0)).any():
            continue
        height, width = (1.0 if abs(share - 1) < WHOLE_TOLERANCE else float(share) for share in np.median(shares, 0))
        margins = shapes - np.array([height, width]) * lengths
        off = np.abs(np.multiply.outer(PLACES, margins) - starts) / shapes
        top, left = (PLACES[k] for k in off.max(1).argmin(0))  # the first, where no margin is left and all fit
        if off.max(1).min(0).max() < SEEN_TOLERANCE:
            return SeenArea(unit, height, width, top, left)
    return None


def _fit_axis(classifier: Classifier, size: tuple[int, ...], shape: tuple[int, int], axis: int) -> AxisMap:
    """Fit (a, b) of one axis, see CropGeometry; raises as `fit_crop_geometry`."""
    n = shape[axis]
    ramp = np.rint(np.linspace(0, 255, n)).astype(np.uint8)
    shown = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, shape)
    pictures = (0 * shown, 0 * shown + np.uint8(255), shown)
    black, white, values = (_transform_grey(classifier, pixels) for pixels in pictures)
    if values.shape != size:
        raise InputError("a mask that does not fit", got=size, rule=f"{values.shape}, as the model takes images")
    span = np.abs(white - black)
    shows = span > PADDING * span.max()
    is_rectangle = bool((shows == shows.any(1)[:, None] & shows.any(0)).all())
    inner = [_without_blend(shows.any(1 - k)) for k in (0, 1)]
    rectangle, i = np.ix_(*inner), np.arange(size[axis])[inner[axis]]
    with np.errstate(divide="ignore", invalid="ignore"):  # padding inside the rectangle, which `fits` refuses
        came_from = (n - 1) * ((values - black)[rectangle] / (white - black)[rectangle])
    fits = is_rectangle and came_from.size and np.ptp(i) and np.isfinite(came_from).all()
    a, b = np.polyfit(i, came_from.mean(1 - axis), 1) if fits else (0.0, 0.0)  # least squares over all pixels
    error = np.abs(came_from - np.expand_dims(a * i + b, 1 - axis)).max(initial=0)
    if not (a > 0 and error <= a + n / 255):  # tolerance: an input pixel, and one grey level of the ramp
        raise InputError(
            "the artifact's place cannot be found on the files", got="a transform that is no resize, crop and pad",
            rule="an image's rows and columns come from rows and columns of its file",
            remedy="Drop, weigh or move the images, or hand in a callable of your own.",
        )  # fmt: skip
    return float(a), float(b)


def _without_blend(shows: Bools) -> NDArray[np.int64]:
    """Return the positions of an axis (n,) that show the file, without those beside padding, which a resize after the
    padding blends with it."""
    found = np.flatnonzero(shows)
    blended = -(-len(found) // BLENDED)
    return found[0 if shows[0] else blended : len(found) if shows[-1] else len(found) - blended]


def _transform_grey(classifier: Classifier, pixels: NDArray[np.uint8]) -> Floats:
    """Transform a grey picture uint8 (h, w); return the first channel of the model input, float64 (H, W)."""
    return np.asarray(classifier.image(Image.fromarray(np.ascontiguousarray(pixels)))[0].double().numpy())
