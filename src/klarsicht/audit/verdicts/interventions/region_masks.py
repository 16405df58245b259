"""Region of every picture, such as the lungs: given by a mask, a table of masks or a function, or estimated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from klarsicht.audit.explanation.data import manifest
from klarsicht.audit.explanation.data.manifest import ColumnNames
from klarsicht.audit.explanation.models.inputs import InputImages, resize_levels, shrink_levels
from klarsicht.audit.results.words import ESTIMATED_REGION
from klarsicht.audit.verdicts.detectors.natural_windows import ALIGNED_SIDE
from klarsicht.audit.verdicts.interventions.image_parts import OBJECT_SHARE
from klarsicht.ground.arrays import Bools, Floats, Pixels, Rows
from klarsicht.ground.entry_points import import_callable
from klarsicht.ground.errors import CorpusError, InputError, UsageError
from klarsicht.ground.pictures.images import decode
from klarsicht.ground.trust import record_code
from klarsicht.numerics.imaging.aligned_details import common_region, median_detail_correlation

TABLE_ENDINGS: Final = (".csv",)
MIDDLE: Final = 128  # grey level from which on a pixel of a mask is inside
OBJECT_CORRELATION: Final = 0.05
"""Median correlation of details from which images have a common object: of chest X-rays 0.28, of centred moles 0.05 to
0.06; of brain scans in mixed planes 0.02 to 0.04, where the region is a ring of skull without the brain."""
MASK_RULE: Final = f"inside is bright (grey {MIDDLE} to 255, or 1 of 0 and 1), outside dark, and there are both"
REGION_REMEDY: Final = "Give a mask file, a CSV with columns path,mask, or file.py:callable."


class RegionMasks(Protocol):
    """Protocol of a region of pictures."""

    @property
    def words(self) -> str:
        """The region in words: where it comes from."""

    @property
    def identity(self) -> str:
        """Hash of what the masks are made of."""

    def __call__(self, rows: Rows, /) -> Bools:
        """Make the masks of images of a run, bool (n, H, W)."""


@dataclass(frozen=True)
class SharedMask:
    """One mask for all pictures. mask: bool (H, W), as the model sees it. words: where it comes from."""

    mask: Bools
    words: str

    @property
    def identity(self) -> str:
        return hashlib.sha256(np.packbits(self.mask).tobytes()).hexdigest()[:8]

    def __call__(self, rows: Rows) -> Bools:
        return np.broadcast_to(self.mask, (len(rows), *self.mask.shape))


@dataclass(frozen=True)
class TableOfMasks:
    """A mask file for every picture. files: mask files by the name of the picture in the corpus. images: of the run.
    words: where they come from."""

    files: dict[str, str]
    images: InputImages
    words: str

    @cached_property
    def identity(self) -> str:
        made_of = [(name, _hash_content(Path(file))) for name, file in sorted(self.files.items())]
        return hashlib.sha256(repr(made_of).encode()).hexdigest()[:8]

    def __call__(self, rows: Rows) -> Bools:
        return np.stack([self._mask(int(row)) for row in rows])

    def _mask(self, row: int) -> Bools:
        corpus = self.images.corpus
        file = self.files.get(corpus.keys[row]) or self.files.get(corpus.paths[row])
        if file is None:
            raise InputError(
                "a picture without a mask", got=corpus.keys[row], rule=f"{self.words} names one for each",
                remedy="Add a line with its path, or audit the pictures that have a mask.",
            )  # fmt: skip
        return show_mask(decode(file), self.images)


@dataclass(frozen=True)
class MaskFunction:
    """A user's function from a picture to its mask. spec: `package.module:callable` or `file.py:callable`. images: of
    the run."""

    spec: str
    images: InputImages

    @property
    def words(self) -> str:
        return self.spec

    @cached_property
    def identity(self) -> str:
        return hashlib.sha256(repr((self.spec, record_code(self.spec))).encode()).hexdigest()[:8]

    def __call__(self, rows: Rows) -> Bools:
        with import_callable(self.spec, UsageError, "the region cannot be made", REGION_REMEDY) as function:
            corpus = self.images.corpus
            return np.stack([show_mask(_to_picture(function(corpus.decode(int(row)))), self.images) for row in rows])


def load_region(spec: str | Path, images: InputImages) -> RegionMasks:
    """Load a region from a mask file, a CSV with columns `path,mask`, or a function `file.py:callable`. Raises
    InputError: the file is absent, no such table, or a mask without an inside or an outside; ImageError: the mask
    cannot be decoded."""
    name = str(spec)
    if name.endswith(TABLE_ENDINGS):
        return TableOfMasks(read_mask_table(Path(name)), images, name)
    if ":" in name and not Path(name).exists():
        return MaskFunction(name, images)
    mask = show_mask(decode(name), images)
    if mask.all() or not mask.any():
        got = f"{Path(name).name}, of which the model sees nothing but {'inside' if mask.all() else 'outside'}"
        raise InputError("no region", got=got, rule=MASK_RULE, remedy="Give another mask with --region.")
    return SharedMask(mask, Path(name).name)


def read_mask_table(file: Path) -> dict[str, str]:
    """Read the columns `path` and `mask` of a CSV; masks lie in the folder of the file, unless their path is whole.
    Raises InputError: it cannot be read, or lacks a column or value."""
    try:
        columns = manifest.read_columns(file, names=ColumnNames(label="mask"))
    except CorpusError as error:
        raise InputError("no table of masks", got=error.got, rule="columns path,mask", remedy=REGION_REMEDY) from error
    return {path: str(file.parent / mask) for path, mask in zip(columns["path"], columns["label"], strict=True)}


def _hash_content(file: Path) -> str:
    """Return a hash of a file; nothing of one that cannot be read, which no picture of the run may need."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def show_mask(mask: Image.Image, images: InputImages) -> Bools:
    """Crop and resize a mask as the model's transform does a picture; inside is bright, bool (H, W)."""
    seen = images.classifier.image(brighten_mask(mask).convert("RGB"))
    levels = resize_levels(images.pixel_scale.levels(seen), images.shape)
    return np.asarray(levels.mean(-1) >= MIDDLE)


def brighten_mask(mask: Image.Image) -> Image.Image:
    """Convert a mask to grey; one of codes 0 and 1, as networks and tools for labels write them, to 0 and 255."""
    grey = mask.convert("L")
    return grey.point([0, 255] * 128) if grey.getextrema()[1] == 1 else grey


def _to_picture(mask: Any) -> Image.Image:
    """Make a picture of a mask that a function returned: a picture, or an array (H, W), true or positive inside."""
    if isinstance(mask, Image.Image):
        return mask
    values = np.asarray(mask)
    if values.ndim != 2:
        raise UsageError("the region is no mask", got=f"shape {values.shape}", rule="an array (H, W), or a picture")
    return Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8))


def estimate_region(levels: Pixels) -> SharedMask | None:
    """Estimate the common object of aligned images uint8 (n, H, W, C): half of the pixels, where their details agree
    most; None where these correlate by less than OBJECT_CORRELATION, so that there is no such object."""
    small: Floats = shrink_levels(levels, ALIGNED_SIDE).mean(-1)
    correlation = median_detail_correlation(small)
    if correlation < OBJECT_CORRELATION:
        return None
    mask = common_region(levels.mean(-1), OBJECT_SHARE)
    return SharedMask(mask, f"{ESTIMATED_REGION} (their details correlate by {correlation:.2f})")
