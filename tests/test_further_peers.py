"""Peers of the protocol's tables: equal frames without noise come back, missing frames do not count."""

import numpy as np
import pytest
from skimage import data
from tests.test_training_photographs import script

from klarsicht.burst.data.burst import Burst
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL, PEERS = NoiseLevel(0.01, 0.002), script("further_peers").PEERS


def frame(channels=1):
    rgb = (data.astronaut()[100:164, 180:260] / 255).astype(np.float32) ** 2.2
    return np.moveaxis(rgb, -1, 0)[:channels]


@pytest.mark.parametrize("row", ["align-whole+mean", "register+mean"])
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_frames_are_the_image(row, channels):
    burst = Burst(np.stack([frame(channels)] * 4), LEVEL)
    np.testing.assert_allclose(PEERS[row](burst), frame(channels), atol=1e-6)


def test_missing_frames_do_not_count():
    noisy = LEVEL.sample(np.stack([frame()] * 3), np.random.default_rng(0))
    filled = Burst(np.concatenate([noisy, np.zeros_like(noisy[:2])]), LEVEL, np.arange(5) < 3)
    row = PEERS["register+mean"]
    np.testing.assert_allclose(row(filled), row(Burst(noisy, LEVEL)), atol=1e-6)
