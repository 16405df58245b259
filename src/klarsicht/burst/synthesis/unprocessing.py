"""Unprocessing of a finished photograph to sensor data (Brooks et al., arXiv 1811.11127): the steps that are drawn for
each burst, colour matrix, white balance, colour filter and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import sample_mosaic
from klarsicht.burst.data.photograph import RGB_TO_XYZ
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

XYZ_TO_CAMERA = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
"""Colour matrices of four cameras, as the authors of arXiv 1811.11127 took them from the Darmstadt data set."""

INFLECTION = 0.9  # above it the inverse gains fade out, so that white stays white

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera: its matrix (3, 3) from linear sRGB to its colours, and the gains of its processing."""

    matrix: Matrix
    red: float
    blue: float
    brightness: float

    def expose(self, rgb: Light) -> Light:
        """Compute the planes R, G, G, B (..., 4, H/2, W/2) that the sensor records of linear sRGB (..., 3, H, W)."""
        return sample_mosaic(self.record(rgb))

    def record(self, rgb: Light) -> Light:
        """Compute the colours (..., 3, H, W) of the camera, before any colour filter, of linear sRGB."""
        return remove_gains(apply_colour_matrix(rgb, self.matrix), self.gains)

    def separate_colours(self, share: float) -> Camera:
        """Return the camera whose colours are by that share those of sRGB: 1 without any mixing. White stays white."""
        return replace(self, matrix=share * np.eye(3) + (1 - share) * self.matrix)

    @property
    def gains(self) -> Light:
        """The inverse gains (3,) of R, G and B."""
        gains = (1 / self.red, 1.0, 1 / self.blue)
        return np.array([gain / self.brightness for gain in gains], np.float32)

    @property
    def balance(self) -> tuple[float, float, float]:
        """The gains of R, G and B with which a grey surface has equal samples."""
        return self.red, 1.0, self.blue


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draw a random mixture of the four cameras; gains 1/N(.8, .1), U(1.9, 2.4) for red, U(1.5, 1.9) for blue."""
    mixture = rng.uniform(size=(len(XYZ_TO_CAMERA), 1, 1))
    matrix = (XYZ_TO_CAMERA * mixture).sum(0) / mixture.sum() @ RGB_TO_XYZ
    matrix = matrix / matrix.sum(1, keepdims=True)
    brightness = 1 / rng.normal(0.8, 0.1)
    return Camera(matrix, red=rng.uniform(1.9, 2.4), blue=rng.uniform(1.5, 1.9), brightness=brightness)


def apply_colour_matrix(rgb: Light, matrix: Matrix) -> Light:
    """Multiply each pixel of (..., 3, H, W) by the matrix, the sums written out: every processor rounds alike."""
    R, G, B = (rgb[..., c, :, :] for c in range(3))
    rows = [np.float32(a) * R + np.float32(b) * G + np.float32(c) * B for a, b, c in matrix]
    return np.stack(rows, -3)


def remove_gains(rgb: Light, gains: Light) -> Light:
    """Multiply (..., 3, H, W) by the inverse gains, except near white (equation 4 of arXiv 1811.11127)."""
    grey = (rgb[..., :1, :, :] + rgb[..., 1:2, :, :] + rgb[..., 2:, :, :]) * np.float32(1 / 3)
    whiteness = np.square(np.maximum(grey - np.float32(INFLECTION), 0) * np.float32(1 / (1 - INFLECTION)))
    inverse = gains[:, None, None]
    return rgb * np.maximum(whiteness + (1 - whiteness) * inverse, inverse)


def camera_noise(rng: np.random.Generator) -> NoiseLevel:
    """Draw shot and read noise as paired in cameras: ln read variance = 2.18 ln shot + 1.20 + N(0, .26)."""
    log_shot = rng.uniform(math.log(1e-4), math.log(0.012))
    log_read = 2.18 * log_shot + 1.20 + rng.normal(0, 0.26)
    return NoiseLevel(read=math.exp(log_read / 2), shot=math.exp(log_shot))
