"""Measured bursts: the error is that of a known difference, files of synthetic bursts are read, and others refused."""

import numpy as np
import pytest
from tests.burst.merging.test_kernel_maps import weights

from klarsicht.bridge import measured_burst
from klarsicht.bridge.measured_burst import local_error, measure_burst, read_synthetic, show_light
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.merging.tiles import Tile
from klarsicht.burst.synthesis.benchmark_sets import benchmark_set
from klarsicht.burst.synthesis.export import burst_bytes
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 0.01)


def test_the_error_of_a_known_difference_is_that_over_the_noise():
    picture = np.full((3, 20, 30), 0.25, np.float32)
    found = local_error(picture, picture + np.float32(0.1), [LEVEL] * 3)
    np.testing.assert_allclose(found, 0.1 / np.sqrt(0.02**2 + 0.01 * 0.25), rtol=1e-5)


@pytest.mark.parametrize("name", ["grey-occluded", "bayer-still"])
def test_a_file_of_a_synthetic_burst_is_read(name, tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    made = benchmark_set(name, [photograph], 0, Geometry(scale=1, height=96, width=96, reach=2))
    (tmp_path / "0.npz").write_bytes(burst_bytes(made, 0, LEVEL))
    burst, truth = read_synthetic(tmp_path / "0.npz")
    exposure = float(made.exposures[0])
    wanted = made.burst(0, LEVEL, exposure)
    np.testing.assert_array_equal(burst.frames, wanted.frames)
    assert (burst.noise, burst.colour_filter, burst.balance) == (wanted.noise, wanted.colour_filter, wanted.balance)
    np.testing.assert_array_equal(truth, made.truth(0, exposure))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_file_that_holds_no_burst_is_one_line(content, tmp_path):
    (tmp_path / "0.npz").write_bytes(content)
    with pytest.raises(InputError, match="holds no synthetic burst"):
        read_synthetic(tmp_path / "0.npz")


def test_arrays_of_others_hold_no_burst(tmp_path):
    np.savez(tmp_path / "0.npz", frames=np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(InputError, match="holds no synthetic burst"):
        read_synthetic(tmp_path / "0.npz")


def test_one_frame_and_a_truth_of_another_shape_are_refused():
    frames = np.zeros((2, 1, 64, 64), np.float32)
    with pytest.raises(InputError, match="a burst of one frame"):
        measure_burst(None, Burst(frames[:1], LEVEL), "one")
    with pytest.raises(InputError, match="truth of another shape"):
        measure_burst(None, Burst(frames, LEVEL), "two", np.zeros((3, 64, 64), np.float32))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_light_is_shown_in_colours_and_the_brightest_is_white(channels):
    light = np.linspace(0, 0.2, channels * 400, dtype=np.float32).reshape(channels, 20, 20)
    shown = show_light(light)
    assert shown.shape == (20, 20, 3) and shown.dtype == np.uint8 and shown.max() == 255 and shown.min() == 0


def test_a_large_tile_is_measured_at_fewer_points_that_stand_for_those_around(monkeypatch, plain_kernels):
    """The coarse points have the values that they have when all are measured."""
    rng = np.random.default_rng(0)
    frames, agreement = rng.random((3, 1, 48, 64), np.float32), np.ones((3, 48, 64), np.float32)
    weighing = weights("kpn", frames, agreement)
    whole = Window(0, 48, 0, 64)
    tile = Tile(0, whole, whole, whole)
    fine = measured_burst.observe_tile(tile, weighing)
    monkeypatch.setattr(measured_burst, "POINTS_IN_TILE", 12)
    coarse = measured_burst.observe_tile(tile, weighing)
    assert (fine["every"], coarse["every"], coarse["size"]) == (1, 2, [6, 8])
    every = np.reshape(fine["measures"], (6, 8, -1))[::2, ::2]
    np.testing.assert_allclose(np.reshape(coarse["measures"], (3, 4, -1)), every, rtol=1e-4, atol=1e-6)
