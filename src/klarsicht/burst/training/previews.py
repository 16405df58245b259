"""Previews during training: one burst at each gain, of a photograph that is not used for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import Frames
from klarsicht.burst.network.inference import denoise_burst
from klarsicht.burst.network.unet import Network
from klarsicht.burst.quality import Picture, psnr, tone_mapped
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.burst.synthesis.synthesis import Recipe, SyntheticBurst, draw_burst
from klarsicht.ground.pictures.pixel_depths import to_uint8
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

PICTURE_GAP = 4  # white pixels between pictures


@dataclass(frozen=True, eq=False)
class Preview:
    """One burst before and after denoising: tone-mapped pictures (C, H, W), and the PSNR of the output in dB."""

    noisy: Picture
    output: Picture
    truth: Picture

    @property
    def psnr(self) -> float:
        return psnr(self.output, self.truth)

    @property
    def row(self) -> npt.NDArray[np.uint8]:
        """Noisy reference, output and truth side by side, (H, W, 3)."""
        return concatenate_with_gaps([to_rgb(x) for x in (self.noisy, self.output, self.truth)], axis=1)


def constant_noise(level: NoiseLevel, rng: np.random.Generator) -> NoiseLevel:
    """Return the same level in place of a drawn one."""
    return level


def draw_examples(library: tuple[Light, ...], recipe: Recipe, seed: int) -> dict[int, SyntheticBurst]:
    """Draw one burst for each gain, each with another motion."""
    recipes = {
        gain: replace(recipe, motion=motion, noise=partial(constant_noise, GAINS[gain]))
        for gain, motion in zip(GAINS, MOTIONS.values(), strict=True)
    }
    return {
        gain: draw_burst(library, one, generator(seed, "examples", i)) for i, (gain, one) in enumerate(recipes.items())
    }


def make_preview(network: Network, example: SyntheticBurst) -> Preview:
    """Denoise an example, and tone-map the pictures."""
    images: tuple[Frames, ...] = (example.burst.reference, denoise_burst(network, example.burst), example.truth)
    return Preview(*(tone_mapped(image, example.exposure) for image in images))


def preview_sheet(previews: Sequence[Preview]) -> npt.NDArray[np.uint8]:
    """Stack the rows of the previews."""
    return concatenate_with_gaps([one.row for one in previews], axis=0)


def to_rgb(picture: Picture) -> npt.NDArray[np.uint8]:
    """Convert (C, H, W) in [0, 1] to (H, W, 3): grey, RGB, or of a mosaic's planes R, the mean of both G, and B."""
    if len(picture) == 4:
        picture = np.stack([picture[0], picture[1:3].mean(0), picture[3]])
    return to_uint8(np.broadcast_to(picture, (3, *picture.shape[1:])).transpose(1, 2, 0))


def concatenate_with_gaps(pictures: Sequence[npt.NDArray[np.uint8]], axis: int) -> npt.NDArray[np.uint8]:
    """Concatenate pictures along an axis, with white gaps."""
    gap = np.full_like(pictures[0].take(range(PICTURE_GAP), axis), 255)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis)
