"""Unprocessing against the equations of arXiv 1811.11127, pixel by pixel."""

import math

import numpy as np
import pytest

from klarsicht.burst.synthesis.unprocessing import (
    Camera,
    apply_colour_matrix,
    camera_noise,
    draw_camera,
    remove_gains,
)


def rgb(seed=0):
    return np.random.default_rng(seed).random((2, 3, 4, 6), dtype=np.float32)


def literal_ungained(pixel, red, blue, brightness):
    gains = np.array([1 / red, 1, 1 / blue]) / brightness
    mask = (max(pixel.mean() - 0.9, 0) / (1 - 0.9)) ** 2
    return pixel * np.maximum(mask + (1 - mask) * gains, gains)


def test_gains_are_undone_but_white_stays_white():
    camera = Camera(np.eye(3), red=2.1, blue=1.7, brightness=1.3)
    light = rgb()
    light[0, :, 0, :3] = [1.0, 0.97, 0.93]
    ours = remove_gains(light, camera.gains)
    for k, y, x in np.ndindex(2, 4, 6):
        np.testing.assert_allclose(ours[k, :, y, x], literal_ungained(light[k, :, y, x], 2.1, 1.7, 1.3), rtol=1e-4)
    np.testing.assert_allclose(ours[0, :, 0, 0], 1, rtol=1e-5)


def test_colours_are_a_matrix_product():
    matrix = np.random.default_rng(1).random((3, 3))
    np.testing.assert_allclose(apply_colour_matrix(rgb(), matrix), np.einsum("ij,njyx->niyx", matrix, rgb()), rtol=1e-5)


def test_a_camera_keeps_white_and_draws_its_gains_in_range():
    cameras = [draw_camera(np.random.default_rng(seed)) for seed in range(300)]
    for camera in cameras:
        np.testing.assert_allclose(camera.matrix @ np.ones(3), 1)
        assert 1.9 <= camera.red <= 2.4 and 1.5 <= camera.blue <= 1.9
    dim = np.array([1 / camera.brightness for camera in cameras])
    assert dim.mean() == pytest.approx(0.8, abs=0.03) and dim.std() == pytest.approx(0.1, abs=0.02)


def test_a_grey_scene_gives_planes_in_the_ratio_of_the_gains():
    camera = draw_camera(np.random.default_rng(0))
    planes = camera.expose(np.full((1, 3, 4, 4), 0.5, np.float32))
    assert planes.shape == (1, 4, 2, 2)
    expected = 0.5 / camera.brightness * np.array([1 / camera.red, 1, 1, 1 / camera.blue])
    np.testing.assert_allclose(planes[0, :, 0, 0], expected, rtol=1e-5)


def test_camera_noise_follows_the_regression():
    levels = [camera_noise(np.random.default_rng(seed)) for seed in range(2000)]
    log_shot, log_read = (
        np.log([getattr(level, name) ** power for level in levels]) for name, power in (("shot", 1), ("read", 2))
    )
    assert math.log(1e-4) <= log_shot.min() and log_shot.max() <= math.log(0.012)
    slope, offset = np.polyfit(log_shot, log_read, 1)
    assert slope == pytest.approx(2.18, abs=0.02) and offset == pytest.approx(1.20, abs=0.15)
    assert (log_read - slope * log_shot - offset).std() == pytest.approx(0.26, abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_colours_are_separated_by_a_share_and_white_stays_white(share):
    """Of a linear camera, what is recorded is linear in the share between the camera's matrix and none."""
    camera = draw_camera(np.random.default_rng(4))
    light = 0.5 * rgb()
    mixed, apart = camera.record(light), Camera(np.eye(3), camera.red, camera.blue, camera.brightness).record(light)
    found = camera.separate_colours(share).record(light)
    np.testing.assert_allclose(found, share * apart + (1 - share) * mixed, rtol=1e-4, atol=1e-6)
    white = np.ones((3, 1, 1), np.float32)
    np.testing.assert_allclose(camera.separate_colours(share).record(white), 1, rtol=1e-5)
