"""Families of artifacts: each draw of one is an artifact of its own, of random place, size, colour, angle or text.

A family is drawn once, `FAMILIES["stripe"].draw(rng)`; what is drawn is a function (pixels, rng) -> PlantedImage whose
attributes say what it plants. What a family says is drawn anew for every image, as the date of a stamp, comes from the
second generator. Images are uint8 (H, W, 3) or (H, W), from 28 pixels on; the mask is exactly where the image changed.
`hue` and `white-balance` need colour.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from klarsicht.audit.verdicts.synthetic import frames, marks, optics, processing, tones
from klarsicht.audit.verdicts.synthetic.planted_image import PlantFunction


class ArtifactFamily(Protocol):
    """A family of artifacts with random parameters."""

    def draw(self, rng: np.random.Generator) -> PlantFunction:
        """Draw an artifact of the family."""
        ...


FAMILIES: dict[str, ArtifactFamily] = {
    "random-tag": marks.Tag,
    "caption": marks.Caption,
    "date-stamp": marks.DateStamp,
    "watermark": marks.Watermark,
    "stripe": frames.Stripe,
    "two-stripes": frames.TwoStripes,
    "frame": frames.Frame,
    "rounded-frame": frames.RoundedFrame,
    "ruler": marks.Ruler,
    "logo": marks.Logo,
    "flare": optics.Flare,
    "vignette": optics.Vignette,
    "scratches": optics.Scratches,
    "scan-lines": processing.ScanLines,
    "moire": processing.Moire,
    "hue": tones.Hue,
    "white-balance": tones.WhiteBalance,
    "gamma": tones.Gamma,
    "grain": processing.Grain,
    "defocus": optics.Defocus,
    "motion-blur": optics.MotionBlur,
    "jpeg": processing.Jpeg,
    "resampling": processing.Resampling,
    "ringing": processing.Ringing,
    "background": frames.Background,
    "hair": optics.Hair,
    "flash": optics.Flash,
    "zoom": processing.Zoom,
    "mirror": processing.Mirror,
}
COLOUR_ONLY = ("hue", "white-balance")  # that say nothing on grey images
