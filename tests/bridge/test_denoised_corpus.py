"""A denoised corpus: every image is processed alike, files of others stay, and what cannot be denoised is one line."""

import numpy as np
import pytest
from PIL import Image

from klarsicht import bridge
from klarsicht.bridge.denoised_corpus import ImageDenoiser
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 0.004)


def test_a_grey_picture_stays_grey(plain_kernels):
    rng = np.random.default_rng(0)
    for mode in ("L", "RGB"):
        picture = Image.fromarray(rng.integers(0, 256, (24, 32), np.uint8)).convert(mode)
        clean = ImageDenoiser(load_network("swift"), LEVEL)(picture)
        assert clean.mode == mode and clean.size == picture.size


def test_no_noise_is_nothing_to_take_off(tmp_path):
    with pytest.raises(UsageError, match="no noise to take off"):
        bridge.denoise_corpus(tmp_path / "run", tmp_path / "out", NoiseLevel(0, 0))
