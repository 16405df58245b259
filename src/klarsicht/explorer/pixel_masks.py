"""Masks of the artifact of a class: bool (h, w) over the part of an image that the model sees, from the files of the
run.

    place       pixels of the artifact that `audit clean` saved, in one place on all images
    window      the window in which a detector found it
    relevance   where the relevance of an image exceeds that of images of the class that do not carry the artifact

Relevance shows only what the model uses: of an artifact that a detector found it is only taken on request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from klarsicht.explorer.thumbnails import Window, reduction
from klarsicht.ground.arrays import Bools, Floats, Ints
from klarsicht.ground.pictures.seen_area import SeenArea

PLACE, WINDOW, RELEVANCE = MASK_SOURCES = ("place", "window", "relevance")
"""Sources of masks, in the order in which they are taken."""
ARTIFACT_FILES: Final = ("artifact.json", "artifact.npz")
MAX_RECORD, MAX_OPACITY = 1 << 20, 64 << 20  # bytes of a record, and of opacities, that are read
EXAMPLES = 64  # members by which it is judged whether relevance shows a place
WHOLE = 0.5  # share of an image above which a mask by relevance shows no place, and of the members that have such masks
Maps = Callable[[Ints], Floats]


class SeenMasks(Protocol):
    """Masks by one of MASK_SOURCES."""

    @property
    def source(self) -> str: ...

    def __call__(self, row: int, shape: tuple[int, int]) -> Bools | None:
        """Make the mask (h, w) of the seen part of an image; None where the artifact has none there."""


@dataclass(frozen=True)
class PlaceMasks:
    """Single mask (H, W) for all images."""

    mask: Bools
    source = PLACE

    def __call__(self, row: int, shape: tuple[int, int]) -> Bools | None:
        y, x = ((np.arange(new) + 0.5) * old / new for new, old in zip(shape, self.mask.shape, strict=True))
        found = self.mask[np.ix_(y.astype(int), x.astype(int))]  # the nearest pixel
        return found if found.any() else None


@dataclass(frozen=True)
class ExcessMasks:
    """Mask of each image from its relevance (n, G, G) beyond the mean share (G, G) on images without the artifact."""

    background: Floats
    maps: Maps
    source = RELEVANCE

    def __call__(self, row: int, shape: tuple[int, int]) -> Bools | None:
        from klarsicht.numerics.imaging.relevance_masks import smooth_shares, threshold_map

        found = threshold_map(smooth_shares(self.maps(np.array([row])))[0] - self.background, shape)
        return found if found.any() else None

    @classmethod
    def of(cls, maps: Maps, members: Ints, others: Ints) -> ExcessMasks | None:
        """Take the background from images (n,) that do not carry the artifact; None where there are none, or where the
        masks of most members cover most of the image: an artifact without a place."""
        from klarsicht.numerics.imaging.relevance_masks import smooth_shares

        if not len(members) or not len(others):
            return None
        found = cls(np.asarray(smooth_shares(maps(others)).mean(0)), maps)
        masks = [found(int(row), found.background.shape[:2]) for row in members[:EXAMPLES]]
        wide = [mask is not None and mask.mean() > WHOLE for mask in masks]
        return None if np.mean(wide) > WHOLE else found


@dataclass(frozen=True)
class WindowMasks:
    """Rectangles by the detector's window of each row that has one."""

    windows: Mapping[int, Window]
    source = WINDOW

    def __call__(self, row: int, shape: tuple[int, int]) -> Bools | None:
        if row not in self.windows:
            return None
        top, left, height, width = self.windows[row]
        found = np.zeros(shape, bool)
        (y0, y1), (x0, x1) = pixels_of(top, height, shape[0]), pixels_of(left, width, shape[1])
        found[y0:y1, x0:x1] = True
        return found


def pixels_of(start: float, extent: float, side: int) -> tuple[int, int]:
    """Return the first pixel, and that after the last, of an interval in shares of a side; at least one pixel."""
    first, last = round(start * side), round((start + extent) * side)
    first = min(max(first, 0), side - 1)
    return first, min(max(last, first + 1), side)


def mask_in_file(masks: SeenMasks, row: int, size: tuple[int, int], area: SeenArea) -> Bools | None:
    """Make the mask (h, w) of a file of `size` (w, h), False beyond the seen part; None where nothing is masked."""
    left, top, right, bottom = area.box(size)
    factor = reduction((right - left, bottom - top), size)
    mask = masks(row, (max(1, round((bottom - top) / factor)), max(1, round((right - left) / factor))))
    if mask is None:
        return None
    ends = ((max(top, 0), min(bottom, size[1])), (max(left, 0), min(right, size[0])))
    nearest = (
        ((np.arange(*end) - start + 0.5) * n / extent).astype(int)
        for end, start, n, extent in zip(ends, (top, left), mask.shape, (bottom - top, right - left), strict=True)
    )
    whole = np.zeros((size[1], size[0]), bool)
    whole[slice(*ends[0]), slice(*ends[1])] = mask[np.ix_(*nearest)]
    return whole if whole.any() else None


def read_saved_masks(run: Path, target: int, maps: Maps | None) -> SeenMasks | None:
    """Read the masks of the artifact that `audit clean` saved last for a class, of several the first, which is the one
    that the explorer shows; None without one that has a place. A damaged file is no artifact: the page of corrections
    names it."""
    for folder in saved_artifacts(run):
        try:
            record, arrays = (folder / name for name in ARTIFACT_FILES)
            facts = json.loads(record.read_bytes()) if record.stat().st_size <= MAX_RECORD else {}
            if facts["target"] != target or facts["artifact"] != 1:
                continue
            opacity, background = _read_place(arrays)
        except Exception:  # zipfile and numpy raise nearly anything on damaged files
            continue
        if background is not None and maps is not None:
            return ExcessMasks(background, maps)
        masks = opacity > 0
        if (masks == masks[0]).all() and 0 < masks[0].mean() < 1:
            return PlaceMasks(np.asarray(masks[0]))
    return None


def saved_artifacts(run: Path) -> Iterator[Path]:
    """Yield the folders of corrections that hold an artifact, the newest first."""
    root = run / "corrections"
    folders = (folder for folder in (*root.glob("*"), *root.glob("*/*")) if folder.is_dir() and not folder.is_symlink())
    found = [folder for folder in folders if all((folder / name).is_file() for name in ARTIFACT_FILES)]
    yield from sorted(found, key=lambda folder: -(folder / ARTIFACT_FILES[0]).stat().st_mtime_ns)


def _read_place(file: Path) -> tuple[Floats, Floats | None]:
    """Read the opacity (m, H, W) and the background (G, G) or None of a saved artifact; raises KeyError where it has no
    place, ValueError where they are damaged."""
    with np.load(file, allow_pickle=False) as arrays:
        if arrays.zip.getinfo("opacity.npy").file_size > MAX_OPACITY:
            raise ValueError("the opacity is too large")
        opacity: Any = arrays["opacity"]
        background: Any = arrays.get("background")
    if opacity.ndim != 3 or not opacity.size or (background is not None and background.ndim != 2):
        raise ValueError("the place is not as it is written")
    return opacity, background
