"""Bursts denoised in memory. Oracles: the shapes of the arrays that were passed."""

import numpy as np
import pytest

from klarsicht import burst
from klarsicht.ground.errors import UsageError


def test_the_error_names_the_shape_of_the_frames_and_where_channels_belong():
    network, noise = burst.load_network("swift"), burst.NoiseLevel(read=0.01, shot=0.002)
    with pytest.raises(UsageError, match=r"got \(2, 32, 40, 3\);.* takes \(N, 3 or 1, H, W\).*Put the channels before"):
        burst.denoise_burst(network, burst.Burst(np.zeros((2, 32, 40, 3), np.float32), noise))
    with pytest.raises(UsageError, match=r"got \(9, 3, 32, 40\);.* with 1 to 8 frames$"):
        burst.denoise_burst(network, burst.Burst(np.zeros((9, 3, 32, 40), np.float32), noise))
