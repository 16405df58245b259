"""Bursts denoised in memory. Oracles: the shapes of the arrays that were passed."""

import numpy as np
import pytest

from klarsicht import burst
from klarsicht.ground.errors import InputError, UsageError


def test_the_error_names_the_shape_of_the_frames_and_where_channels_belong():
    network, noise = burst.load_network("swift"), burst.NoiseLevel(read=0.01, shot=0.002)
    with pytest.raises(UsageError, match=r"got \(2, 32, 40, 3\);.* takes \(N, 3 or 1, H, W\).*Put the channels before"):
        burst.denoise_burst(network, burst.Burst(np.zeros((2, 32, 40, 3), np.float32), noise))
    with pytest.raises(UsageError, match=r"got \(9, 3, 32, 40\);.* with 1 to 8 frames\. Leave .*: frames\[:8\]\.$"):
        burst.denoise_burst(network, burst.Burst(np.zeros((9, 3, 32, 40), np.float32), noise))


def test_frames_of_another_network_name_that_network():
    noise = burst.NoiseLevel(read=0.01, shot=0.002)
    shapes = {"swift": (2, 4, 32, 40), "swift-raw": (2, 3, 32, 40)}
    other = {"swift": "swift-raw", "swift-raw": "swift"}
    for name, shape in shapes.items():
        shots = burst.Burst(np.zeros(shape, np.float32), noise)
        with pytest.raises(UsageError, match=rf"{other[name]} for {shape[1]}\b"):
            burst.denoise_burst(burst.load_network(name), shots)
        assert burst.denoise_burst(burst.load_network(other[name]), shots).shape == shape[1:]


def test_a_pixel_without_a_number_is_found_by_its_frame():
    frames = np.zeros((3, 3, 32, 40), np.float32)
    frames[2, 1, 4, 5] = np.nan
    with pytest.raises(InputError, match=r"frames\[2\] first.*nan_to_num"):
        burst.denoise_burst(burst.load_network("swift"), burst.Burst(frames, burst.NoiseLevel(read=0.01, shot=0.002)))
