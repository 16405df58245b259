"""Single images as bursts of one frame: codes survive light and back, and the shipped network takes noise off."""

import numpy as np
import pytest

from klarsicht.bridge.single_images import decode_light, denoise_images, encode_light
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.01, 0.004)


def test_all_codes_survive_light_and_back():
    codes = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    np.testing.assert_array_equal(encode_light(decode_light(codes)), codes)
    light = decode_light(codes)[0, ..., 0].ravel()
    share = np.arange(256) / 255  # the curve of sRGB, IEC 61966-2-1
    wanted = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(light, wanted, atol=4e-4)  # the slope of ours is continuous, that of sRGB is not


@pytest.mark.slow
def test_the_shipped_network_takes_most_of_the_noise_off(plain_kernels):
    y, x = np.mgrid[0:64, 0:64]
    smooth = (128 + 60 * np.sin(x / 9) * np.cos(y / 11)).astype(np.uint8)
    codes = np.stack([smooth] * 3, -1)[None].repeat(2, 0)
    noisy = encode_light(LEVEL.sample(decode_light(codes), np.random.default_rng(1)))
    clean = denoise_images(load_network("swift"), noisy, LEVEL)
    before, after = (np.square(one.astype(float) - codes).mean() for one in (noisy, clean))
    assert clean.shape == codes.shape and after < before / 8
