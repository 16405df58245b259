"""Framings of a picture: enlarged, stretched or shifted by resampling a window of it, so that no pixel is invented.
Where another framing changes predictions, differences of magnification, aspect or position suffice for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from klarsicht.ground.arrays import Pixels

WINDOW: Final = 0.75  # side of the window over that of the picture: enlarged by 4/3
CUT_EDGE: Final = (1 - WINDOW) / 2

Window = tuple[float, float, float, float]  # top, left, height and width, in shares of the picture

WHOLE_PICTURE: Final[Window] = (0.0, 0.0, 1.0, 1.0)
CENTRE: Final[Window] = (CUT_EDGE, CUT_EDGE, WINDOW, WINDOW)


@dataclass(frozen=True)
class Framing:
    """Framing and its control, each a window that is resampled to the whole picture. window, control: of the picture;
    both of one size where the framing is a shift."""

    window: Window
    control: Window = WHOLE_PICTURE


FRAMINGS: Final = {
    "enlarged": Framing(CENTRE),
    "stretched in width": Framing((0.0, CUT_EDGE, 1.0, WINDOW)),
    "stretched in height": Framing((CUT_EDGE, 0.0, WINDOW, 1.0)),
    "shifted up": Framing((2 * CUT_EDGE, CUT_EDGE, WINDOW, WINDOW), CENTRE),
    "shifted down": Framing((0.0, CUT_EDGE, WINDOW, WINDOW), CENTRE),
    "shifted left": Framing((CUT_EDGE, 2 * CUT_EDGE, WINDOW, WINDOW), CENTRE),
    "shifted right": Framing((CUT_EDGE, 0.0, WINDOW, WINDOW), CENTRE),
}
"""Framings by the words for a picture that is framed so."""


def resample(levels: Pixels, window: Window) -> Pixels:
    """Resample a window of images uint8 (n, H, W, C) bilinearly to their whole size."""
    if window == WHOLE_PICTURE:
        return levels
    height, width = levels.shape[1:3]
    top, left, tall, wide = window
    box = left * width, top * height, (left + wide) * width, (top + tall) * height
    planes = np.moveaxis(levels, -1, 1).reshape(-1, height, width)
    done = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR, box) for plane in planes]
    resized = np.stack([np.asarray(plane) for plane in done]).reshape(len(levels), -1, height, width)
    return np.ascontiguousarray(np.moveaxis(resized, 1, -1))
