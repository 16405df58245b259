"""Noise of the classes of a corpus, estimated from their own pictures: read and shot noise in linear light.

Pictures are developed, so codes are decoded first. Within a class the flattest blocks of all pictures together tell
variance over brightness, as those of one frame of a burst do. Compression and scaling down leave less noise than the
sensor had, and what is left is what a model sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.bridge.single_images import decode_light
from klarsicht.burst.noise.estimation import Blocks, fit_noise, select_unclipped, single_frame_blocks
from klarsicht.ground.errors import ImageError, InputError, UsageError
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

PICTURES = 200  # of a class, drawn, of which its noise is estimated
SIDE = 512  # pixels: of the middle of a larger picture
MIDDLE_GREY = 0.18  # linear light at which classes are compared
LEAST_DEVIATION = 0.0033  # light of one code of 8 bits at middle grey
CODES_END = (0.0, 1.0)  # light at which codes are cut


@dataclass(frozen=True)
class ClassNoise:
    """Noise of one frame's pixels in the pictures of a class."""

    name: str
    noise: NoiseLevel

    @property
    def deviation(self) -> float:
        """Standard deviation at middle grey, in units of white."""
        return float(np.sqrt(self.noise.variance(np.float64(MIDDLE_GREY))))


def estimate_noise(pictures: Iterable[Image.Image]) -> NoiseLevel:
    """Estimate the noise of developed pictures of one camera, 8 bits, RGB or grey. Raises InputError where too few
    blocks are flat."""
    parts = list(map(_blocks_of, pictures))
    if not parts:
        raise InputError("no picture to estimate noise from", rule="one or more that can be decoded")
    blocks = Blocks.concatenate(parts)
    one_source = replace(blocks, source=np.zeros(len(blocks.mean)))  # texture leaks alike into all pictures
    return fit_noise(select_unclipped(one_source, CODES_END), CODES_END).noise


def estimate_class_noise(corpus: Corpus, seed: int = 0) -> list[ClassNoise]:
    """Estimate the noise of each class of a corpus of pictures, the noisiest first; classes whose pictures cannot tell
    are left out."""
    classes, labels = [], np.array(corpus.labels)
    for number, name in enumerate(track(corpus.classes, len(corpus.classes), "noise")):
        of_class = np.flatnonzero(labels == name)
        rows = np.sort(generator(seed, "noise", number).permutation(of_class)[:PICTURES])
        images = (image for _, image in decode_rows(corpus, rows.tolist()))
        try:
            noise = estimate_noise(corpus.as_picture(one) for one in images if not isinstance(one, ImageError))
        except InputError:
            continue
        classes.append(ClassNoise(name, noise))
    return sorted(classes, key=lambda one: -one.deviation)


def find_noisiest(classes: Sequence[ClassNoise]) -> ClassNoise:
    """Return the noisiest of classes that are sorted so. Raises UsageError if it has no noise to speak of, or no class
    could be measured."""
    remedy = "Give its level: --noise."
    if not classes:
        rule = "flat blocks of 8 x 8 pixels in pictures of a class"
        raise UsageError("the noise cannot be estimated from these pictures", rule=rule, remedy=remedy)
    noisiest = classes[0]
    if noisiest.deviation < LEAST_DEVIATION:
        raise UsageError(
            "no class has noise to take off",
            got=f"a deviation of {noisiest.deviation / LEAST_DEVIATION:.1f} codes at middle grey in {noisiest.name}",
            rule="at least one code of 8 bits in the noisiest class; strong compression hides noise", remedy=remedy,
        )  # fmt: skip
    return noisiest


def _blocks_of(picture: Image.Image) -> Blocks:
    """Compute the statistics of the blocks of the middle of a picture."""
    codes = np.asarray(picture.convert("RGB"))
    top, left = (max(0, (side - SIDE) // 2) for side in codes.shape[:2])
    light = decode_light(codes[top : top + SIDE, left : left + SIDE])
    return single_frame_blocks(light.transpose(2, 0, 1)[None])
