"""Single images as bursts of one frame: their noise is taken off in linear light.

Images of a corpus are developed: 8 bits on the sRGB curve. Noise of a sensor is read and shot noise of linear light, so
codes are decoded, filtered with noise of the level that is given, and encoded again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.network.borders import border_factors, predict_kernels
from klarsicht.burst.network.unet import Network
from klarsicht.ground.pictures.pixel_depths import to_uint8
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.imaging.tone import inverse_tone_curve, tone_curve
from klarsicht.numerics.pixel_kernels.apply import apply_kernels

Codes = npt.NDArray[np.uint8]  # n H W 3
Light = npt.NDArray[np.float32]  # n H W 3, 0 black, 1 white

IMAGES_AT_ONCE = 64


def decode_light(codes: Codes) -> Light:
    """Decode sRGB codes to linear light."""
    return np.asarray(inverse_tone_curve(np.arange(256) / 255), np.float32)[codes]


def encode_light(light: Light) -> Codes:
    """Encode linear light as sRGB codes, clipped to black and white."""
    return to_uint8(tone_curve(np.clip(light, 0, 1)))


@torch.no_grad()
def denoise_images(network: Network, codes: Codes, noise: NoiseLevel) -> Codes:
    """Denoise images of one size, (n, H, W, 3), each as a burst of one frame with noise of that level."""
    pictures = []
    for first in range(0, len(codes), IMAGES_AT_ONCE):
        light = torch.from_numpy(decode_light(codes[first : first + IMAGES_AT_ONCE])).permute(0, 3, 1, 2)[:, None]
        read, shot = (torch.full((len(light),), level) for level in (noise.read, noise.shot))
        kernels = predict_kernels(network, light.contiguous(), read, shot)
        merged = border_factors(kernels)[:, None] * apply_kernels(*kernels).merged
        pictures.append(encode_light(merged.permute(0, 2, 3, 1).numpy()))
    return np.concatenate(pictures)
