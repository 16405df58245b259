"""Pictures for looking at: which bursts are shown, and that a sheet is the pictures and nothing else."""

import numpy as np
import pytest
import torch

from klarsicht.burst.network.inference import denoise_burst
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.burst.synthesis.synthesis import Recipe
from klarsicht.burst.training.previews import PICTURE_GAP, Preview, draw_examples, make_preview, preview_sheet, to_rgb
from klarsicht.numerics.imaging.sensor_noise import GAINS
from klarsicht.numerics.imaging.tone import tone_curve

RECIPE = Recipe(geometry=Geometry(scale=1, height=32, width=40, reach=4), frames=3, min_frames=3)


@pytest.fixture(scope="module")
def shown_bursts():
    scene = np.random.default_rng(1).uniform(0, 1, (1, 80, 90)).astype(np.float32)
    return draw_examples((scene,), RECIPE, seed=0)


def resting_network():
    """Kernels that leave every frame as it is: its output is the mean of the aligned frames."""
    network = build_network(NetworkSettings(preset="kpn", width=0.125, frames=3), 0).eval()
    torch.nn.init.zeros_(network.head.taps.weight)
    return network


def test_there_is_one_burst_a_gain_with_that_noise(shown_bursts):
    assert {gain: one.burst.noise for gain, one in shown_bursts.items()} == GAINS
    assert all(one.burst.count == 3 for one in shown_bursts.values())


def test_a_burst_without_motion_is_restored_to_its_mean_by_kernels_at_rest(plain_kernels):
    rng = np.random.default_rng(2)
    from klarsicht.burst.data.burst import Burst

    scene = np.kron(rng.uniform(0.1, 0.9, (4, 4)), np.ones((10, 10))).astype(np.float32)
    frames = (scene + rng.normal(0, 0.01, (3, 1, 40, 40))).astype(np.float32)
    picture = denoise_burst(resting_network(), Burst(frames, GAINS[1]))
    assert np.abs(picture - frames.mean(0)).max() < 0.01  # taps may be bfloat16


def test_what_is_shown_is_seen_through_the_curve_and_measured_there(shown_bursts):
    one = make_preview(resting_network(), shown_bursts[4])
    w, truth = shown_bursts[4].exposure, shown_bursts[4].truth.astype(float)
    assert one.truth == pytest.approx(np.clip(tone_curve(truth / w), 0, 1)[:, 8:-8, 8:-8], abs=1e-6)
    assert one.psnr == pytest.approx(-10 * np.log10(np.mean((one.output - one.truth) ** 2)))


def test_a_sheet_is_its_pictures_with_white_between():
    rng = np.random.default_rng(0)
    rows = [Preview(*rng.uniform(0, 1, (3, 1, 5, 7))) for _ in range(2)]
    page = preview_sheet(rows)
    assert page.shape == (2 * 5 + PICTURE_GAP, 3 * 7 + 2 * PICTURE_GAP, 3)
    assert (page[5 : 5 + PICTURE_GAP] == 255).all()
    for i, one in enumerate(rows):
        for j, picture in enumerate((one.noisy, one.output, one.truth)):
            y, x = i * (5 + PICTURE_GAP), j * (7 + PICTURE_GAP)
            assert np.array_equal(page[y : y + 5, x : x + 7, 1], np.rint(255 * picture[0].astype(np.float32)))


def test_planes_of_a_mosaic_are_shown_in_colour():
    planes = np.array([0.2, 0.4, 0.8, 1.0])[:, None, None] * np.ones((4, 2, 2))
    assert to_rgb(planes)[0, 0].tolist() == [51, 153, 255]
