"""Parts of an image: keep one part and destroy everything else, or exchange one with that of a donor.

A model that still tells a class from others where only such a part is left (the border, the colours, the spectrum)
needs no object for it; Carter et al. (2021, "Overinterpretation reveals image classification model pathologies") call
such a part sufficient. Images are 8-bit pixel values, uint8 (n, H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter, zoom
from torch.nn import functional

from klarsicht.ground.arrays import Bools, Doubles, Floats, Pixels

BORDER_SHARE: Final = 0.1  # width of the border over the shorter side
CORNER_SHARE: Final = 0.25  # side of a corner over that of the image
LEAST_FINE: Final = 0.25  # cycles a pixel: half of the highest frequency along a row or a column
CELLS: Final = 4  # cells a side at the lowest resolution
OBJECT_SHARE: Final = 0.5  # share of the pixels, those of the largest relevance, that are no background
RELEVANCE_BLUR: Final = 1 / 16  # standard deviation of the blur of a relevance map over its side


@dataclass(frozen=True)
class PartImages:
    """Images of which a part is kept or exchanged; donors without a mask are exchanged wherever the image has it.
    levels: uint8 (n, H, W, C). background: bool (n, H, W), pixels outside the region of large relevance, or None.
    inside: bool (n, H, W), pixels of a region that was given, or estimated, or None."""

    levels: Pixels
    background: Bools | None = None
    inside: Bools | None = None

    def __len__(self) -> int:
        return len(self.levels)


class ImagePart(Protocol):
    """Protocol of a part of images."""

    def keep(self, images: PartImages, fill: Floats, rng: np.random.Generator, /) -> Pixels:
        """Destroy everything but the part; pixels outside a region become the colour `fill`, (C,)."""

    def exchange(self, images: PartImages, donors: PartImages, /) -> Pixels:
        """Replace the part of each image by that of its donor; one donor serves all images."""


@dataclass(frozen=True)
class RegionPart:
    """Part with a fixed place. mask: function from height and width to the pixels of the part, bool (H, W)."""

    mask: Callable[[int, int], Bools]

    def keep(self, images: PartImages, fill: Floats, rng: np.random.Generator) -> Pixels:
        del rng
        return np.where(self.mask(*images.levels.shape[1:3])[..., None], images.levels, to_levels(fill))

    def exchange(self, images: PartImages, donors: PartImages) -> Pixels:
        return np.where(self.mask(*images.levels.shape[1:3])[..., None], donors.levels, images.levels)


@dataclass(frozen=True)
class MaskedPart:
    """Part whose pixels differ from image to image, such as those outside the region of large relevance. mask: function
    from images to the pixels of the part, bool (n, H, W); None of images without such a mask."""

    mask: Callable[[PartImages], Bools | None]

    def keep(self, images: PartImages, fill: Floats, rng: np.random.Generator) -> Pixels:
        del rng
        own = self.mask(images)
        assert own is not None
        return np.where(own[..., None], images.levels, to_levels(fill))

    def exchange(self, images: PartImages, donors: PartImages) -> Pixels:
        """Replace pixels that are of the part in the image and in its donor, so that no object is moved or cut."""
        own, other = self.mask(images), self.mask(donors)
        assert own is not None
        return np.where((own if other is None else own & other)[..., None], donors.levels, images.levels)


class ColourPart:
    """Histogram of the colours."""

    def keep(self, images: PartImages, fill: Floats, rng: np.random.Generator) -> Pixels:
        """Permute the pixels of each image."""
        del fill
        flat = images.levels.reshape(len(images), -1, images.levels.shape[-1])
        return np.stack([rng.permutation(image) for image in flat]).reshape(images.levels.shape)

    def exchange(self, images: PartImages, donors: PartImages) -> Pixels:
        """Give each channel the donor's histogram: the value of each rank becomes the donor's value of that rank."""
        n, height, width, channels = images.levels.shape
        order = images.levels.reshape(n, -1, channels).argsort(1, kind="stable")
        out = np.empty((n, height * width, channels), np.uint8)
        given = np.sort(donors.levels.reshape(len(donors), -1, channels), 1)
        np.put_along_axis(out, order, np.broadcast_to(given, out.shape), 1)
        return out.reshape(images.levels.shape)


class SpectrumPart:
    """Amplitude spectrum of each channel, the mean included."""

    def keep(self, images: PartImages, fill: Floats, rng: np.random.Generator) -> Pixels:
        """Add the phases of white noise, the same for all channels, so that their correlations stay."""
        del fill
        shape = images.levels.shape
        noise = fft.fft2(rng.normal(size=shape[:3]), axes=(1, 2))
        turned = np.exp(1j * np.angle(noise))
        turned[:, 0, 0] = 1  # the mean stays
        return to_levels(fft.ifft2(spectrum(images.levels) * turned[..., None], axes=(1, 2)).real)

    def exchange(self, images: PartImages, donors: PartImages) -> Pixels:
        """Join the donor's amplitudes to the phases of the image (Piotrowski and Campbell 1982)."""
        phases = np.exp(1j * np.angle(spectrum(images.levels)))
        return to_levels(fft.ifft2(np.abs(spectrum(donors.levels)) * phases, axes=(1, 2)).real)


class FineTexturePart:
    """Frequencies of each channel from LEAST_FINE cycles a pixel on: noise, sharpness, compression."""

    def keep(self, images: PartImages, fill: Floats, rng: np.random.Generator) -> Pixels:
        """Add them, in phases of white noise that all channels share, to a plane of the colour `fill`, (C,)."""
        shape = images.levels.shape
        phases = np.exp(1j * np.angle(fft.fft2(rng.normal(size=shape[:3]), axes=(1, 2))))
        kept = spectrum(images.levels) * phases[..., None] * fine_frequencies(*shape[1:3])[..., None]
        return to_levels(fill + fft.ifft2(kept, axes=(1, 2)).real)

    def exchange(self, images: PartImages, donors: PartImages) -> Pixels:
        """Take these frequencies of the donor, phases included: noise has none that an image could lend it."""
        fine = fine_frequencies(*images.levels.shape[1:3])[..., None]
        joint = np.where(fine, spectrum(donors.levels), spectrum(images.levels))
        return to_levels(fft.ifft2(joint, axes=(1, 2)).real)


class ResolutionPart:
    """Image at the lowest resolution, CELLS x CELLS means, drawn as smooth ramps between their centres."""

    def keep(self, images: PartImages, fill: Floats, rng: np.random.Generator) -> Pixels:
        del fill, rng
        return to_levels(coarse(images.levels))

    def exchange(self, images: PartImages, donors: PartImages) -> Pixels:
        """Add the difference of the two coarse images."""
        return to_levels(images.levels + coarse(donors.levels) - coarse(images.levels))


def border_mask(height: int, width: int) -> Bools:
    """Mark the outermost BORDER_SHARE of the pixels, one at least, bool (H, W)."""
    wide = max(1, round(BORDER_SHARE * min(height, width)))
    mask = np.ones((height, width), bool)
    mask[wide:-wide, wide:-wide] = False
    return mask


def corner_mask(bottom: bool, right: bool) -> Callable[[int, int], Bools]:
    """Make the function that marks one corner, CORNER_SHARE of each side, bool (H, W)."""

    def mask(height: int, width: int) -> Bools:
        tall, wide = (max(1, round(CORNER_SHARE * side)) for side in (height, width))
        rows = np.arange(height) >= height - tall if bottom else np.arange(height) < tall
        columns = np.arange(width) >= width - wide if right else np.arange(width) < wide
        return np.asarray(rows[:, None] & columns)

    return mask


def corners_mask(height: int, width: int) -> Bools:
    """Mark all four corners, bool (H, W)."""
    each = [corner_mask(bottom, right)(height, width) for bottom in (False, True) for right in (False, True)]
    return np.asarray(np.any(each, 0))


BACKGROUND: Final = "background"
FINE_TEXTURE: Final = "fine texture"

IMAGE_PARTS: Final[dict[str, ImagePart]] = {
    "border": RegionPart(border_mask),
    "corners": RegionPart(corners_mask),
    "top left": RegionPart(corner_mask(bottom=False, right=False)),
    "top right": RegionPart(corner_mask(bottom=False, right=True)),
    "bottom left": RegionPart(corner_mask(bottom=True, right=False)),
    "bottom right": RegionPart(corner_mask(bottom=True, right=True)),
    BACKGROUND: MaskedPart(lambda images: images.background),
    "colours": ColourPart(),
    "spectrum": SpectrumPart(),
    FINE_TEXTURE: FineTexturePart(),
    "resolution": ResolutionPart(),
}
"""Parts by name; BACKGROUND needs relevance maps."""
REGION_INSIDE, REGION_OUTSIDE = "inside", "outside"
REGION_PARTS: Final[dict[str, ImagePart]] = {
    REGION_INSIDE: MaskedPart(lambda images: images.inside),
    REGION_OUTSIDE: MaskedPart(lambda images: None if images.inside is None else ~images.inside),
}
"""Parts of a region that was given, or estimated, by name."""
SINGLE_CORNERS: Final = ("top left", "top right", "bottom left", "bottom right")


def background_masks(maps: Floats, shape: tuple[int, int]) -> Bools:
    """Mark the background (n, H, W) of images of a shape (height, width), from relevance maps (n, G, G) of their
    classes: all but the OBJECT_SHARE of the pixels with the largest relevance, blurred by RELEVANCE_BLUR. The share is
    the same in every image, so that the size of the region says nothing of the class; its outline may."""
    side = maps.shape[1]
    smooth = gaussian_filter(maps.astype(np.float64), (0, RELEVANCE_BLUR * side, RELEVANCE_BLUR * side))
    wide = zoom(smooth, (1, shape[0] / side, shape[1] / side), order=1, grid_mode=True, mode="nearest")
    flat = wide.reshape(len(maps), -1)
    least = flat.argsort(1, kind="stable")[:, : round((1 - OBJECT_SHARE) * flat.shape[1])]
    mask = np.zeros(flat.shape, bool)
    np.put_along_axis(mask, least, True, 1)
    return mask.reshape(wide.shape)


def fine_frequencies(height: int, width: int) -> Bools:
    """Mark the frequencies of a discrete Fourier transform of LEAST_FINE cycles a pixel and more, bool (H, W)."""
    return np.asarray(np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width)) >= LEAST_FINE)


def coarse(levels: Pixels) -> Floats:
    """Average images (n, H, W, C) over CELLS x CELLS cells and interpolate the means bilinearly, float (n, H, W, C)."""
    height, width = levels.shape[1:3]
    rows, columns = (_cell_weights(side) for side in (height, width))
    means = np.einsum("ah,nhwc,bw->nabc", rows, levels.astype(np.float64), columns, optimize=True)
    cells = torch.from_numpy(means).permute(0, 3, 1, 2)
    return functional.interpolate(cells, (height, width), mode="bilinear").permute(0, 2, 3, 1).numpy()


def _cell_weights(side: int) -> Doubles:
    """Compute averaging weights (CELLS, side): each pixel belongs to one cell, and rows sum to one."""
    member = np.arange(CELLS)[:, None] == np.arange(side) * CELLS // side
    return np.asarray(member / np.maximum(member.sum(1, keepdims=True), 1))


def spectrum(levels: Pixels) -> NDArray[np.complex128]:
    """Compute the discrete Fourier transforms of images (n, H, W, C) over rows and columns."""
    return np.asarray(fft.fft2(levels.astype(np.float64), axes=(1, 2)))


def to_levels(values: Floats) -> Pixels:
    """Round and clip to pixel values."""
    return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
