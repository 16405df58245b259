"""Families of artifacts: each draw of one is an artifact of its own, of random place, size, colour, angle or text.

`FAMILIES["stripe"](rng)` draws an artifact, a function (pixels, rng) -> PlantedImage. What a family says is drawn anew
for every image, as the date of a stamp, comes from the second generator. Images are uint8 (H, W, 3) or (H, W), from 28
pixels on; the mask is exactly where the image changed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from klarsicht.audit.verdicts.synthetic import marks, optics, processing
from klarsicht.audit.verdicts.synthetic.planted_image import PlantFunction

FAMILIES: dict[str, Callable[[np.random.Generator], PlantFunction]] = {
    "random-tag": marks.draw_tag,
    "caption": marks.draw_caption,
    "date-stamp": marks.draw_date_stamp,
    "watermark": marks.draw_watermark,
    "stripe": marks.draw_stripe,
    "two-stripes": marks.draw_two_stripes,
    "frame": marks.draw_frame,
    "rounded-frame": marks.draw_rounded_frame,
    "ruler": marks.draw_ruler,
    "logo": marks.draw_logo,
    "flare": optics.draw_flare,
    "vignette": optics.draw_vignette,
    "scratches": optics.draw_scratches,
    "scan-lines": processing.draw_scan_lines,
    "moire": processing.draw_moire,
    "hue": processing.draw_hue,
    "white-balance": processing.draw_white_balance,
    "gamma": processing.draw_gamma,
    "grain": processing.draw_grain,
    "defocus": optics.draw_defocus,
    "motion-blur": optics.draw_motion_blur,
    "jpeg": processing.draw_jpeg,
    "resampling": processing.draw_resampling,
    "ringing": processing.draw_ringing,
    "background": marks.draw_background,
    "hair": optics.draw_hair,
    "flash": optics.draw_flash,
    "zoom": processing.draw_zoom,
    "mirror": processing.draw_mirror,
}
COLOUR_ONLY = ("hue", "white-balance")  # that need three channels
