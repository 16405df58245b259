"""Families of artifacts: each draw of one, `FAMILIES["stripe"](rng)`, is an artifact of random place, size, colour,
angle or text: a function (pixels, rng) -> PlantedImage, whose generator draws what changes from image to image, as the
date of a stamp. Images are uint8 (H, W, 3) or (H, W), from 28 pixels on; the mask is exactly where the image
changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from klarsicht.audit.verdicts.synthetic import marks, optics, processing
from klarsicht.audit.verdicts.synthetic.planted_image import PlantFunction, random_colour

FAMILIES: dict[str, Callable[[np.random.Generator], PlantFunction]] = {
    "random-tag": marks.draw_tag,
    "caption": marks.draw_caption,
    "date-stamp": marks.draw_date_stamp,
    "watermark": marks.draw_watermark,
    "stripe": marks.draw_stripe,
    "two-stripes": marks.draw_two_stripes,
    "frame": lambda rng: partial(
        marks.frame, width=rng.uniform(0.03, 0.1), colour=random_colour(rng), opacity=rng.uniform(0.7, 1)
    ),
    "rounded-frame": marks.draw_rounded_frame,
    "ruler": marks.draw_ruler,
    "logo": marks.draw_logo,
    "flare": optics.draw_flare,
    "vignette": lambda rng: partial(optics.vignette, strength=rng.uniform(0.45, 0.9), power=rng.uniform(1.5, 4)),
    "scratches": optics.draw_scratches,
    "scan-lines": processing.draw_scan_lines,
    "moire": processing.draw_moire,
    "hue": lambda rng: partial(processing.change_hue, turn=float(rng.uniform(0.06, 0.5) * rng.choice([-1, 1]))),
    "white-balance": processing.draw_white_balance,
    "gamma": lambda rng: partial(processing.gamma, power=float(np.exp(rng.uniform(0.35, 0.8) * rng.choice([-1, 1])))),
    "grain": processing.draw_grain,
    "defocus": lambda rng: partial(optics.defocus, radius=rng.uniform(0.025, 0.06)),
    "motion-blur": lambda rng: partial(optics.motion_blur, length=rng.uniform(0.08, 0.2), angle=rng.uniform(0, np.pi)),
    "jpeg": lambda rng: partial(processing.jpeg, quality=int(rng.integers(6, 36)), subsampling=int(rng.choice([0, 2]))),
    "resampling": lambda rng: partial(
        processing.resample,
        factor=rng.uniform(0.35, 0.65),
        method=processing.RESAMPLING[rng.integers(len(processing.RESAMPLING))],
    ),
    "ringing": lambda rng: partial(processing.ringing, cut=rng.uniform(0.35, 0.65)),
    "background": lambda rng: partial(
        marks.background, colour=random_colour(rng), opacity=rng.uniform(0.5, 1), edge=rng.uniform(0.05, 0.4)
    ),
    "hair": optics.draw_hair,
    "flash": optics.draw_flash,
    "zoom": processing.draw_zoom,
    "mirror": lambda rng: partial(processing.mirror, upright=bool(rng.random() < 0.5)),
}
COLOUR_ONLY = ("hue", "white-balance")  # that need three channels
