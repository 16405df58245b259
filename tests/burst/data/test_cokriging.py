"""Interpolation behind X-Trans and Bayer mosaics: laws, the variance that the weights minimise written out, and
scipy."""

import numpy as np
import pytest
from scipy.interpolate import griddata
from scipy.linalg import null_space
from skimage import data
from tests.burst.conftest import X_TRANS

from klarsicht.burst.data import cokriging
from klarsicht.burst.data.cokriging import (
    MOSAICS,
    cokriging_weights,
    interpolate_mosaic,
    is_x_trans,
    measured_mask,
    predict_samples,
    sample_weights,
    take_samples,
)

LETTERS = np.array(["RGB".index(letter) for letter in X_TRANS]).reshape(6, 6)
CELLS = [X_TRANS, "RGGB", "GBRG"]


def sampled(rgb, cell=X_TRANS):
    H, W = rgb.shape[1:]
    side = {36: 6, 4: 2}[len(cell)]
    letters = np.array(["RGB".index(letter) for letter in cell]).reshape(side, side)
    colours = np.tile(letters, (H // side + 1, W // side + 1))[:H, :W]
    return np.take_along_axis(rgb, colours[None], 0)[0], colours


def test_a_cell_has_eight_red_twenty_green_and_eight_blue():
    assert is_x_trans(X_TRANS)
    assert not is_x_trans("RGGB") and not is_x_trans("RGGB" * 9) and not is_x_trans(X_TRANS.replace("R", "W"))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("gains", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.5)])
def test_uniform_colours_and_samples_come_back(gains, cell):
    colour = np.array([0.2, 0.5, 0.9], np.float32)[:, None, None]
    mosaic, _ = sampled(np.broadcast_to(colour, (3, 40, 51)), cell)
    np.testing.assert_allclose(interpolate_mosaic(mosaic, cell, gains), np.broadcast_to(colour, (3, 40, 51)), 1e-5)
    noise = np.random.default_rng(0).random((3, 40, 51)).astype(np.float32)
    mosaic, colours = sampled(noise, cell)
    found = interpolate_mosaic(mosaic, cell, gains)
    np.testing.assert_allclose(np.take_along_axis(found, colours[None], 0)[0], mosaic, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_only_the_cell_counts_and_not_the_strip(monkeypatch, cell):
    """Cut off by whole cells, the mosaic gives the same inside; so it does in other strips."""
    mosaic = np.random.default_rng(1).random((60, 66)).astype(np.float32)
    whole = interpolate_mosaic(mosaic, cell, white=0.7)
    part = interpolate_mosaic(mosaic[12:48, 6:60], cell, white=0.7)
    np.testing.assert_allclose(part[:, 3:-3, 3:-3], whole[:, 15:45, 9:57], atol=1e-6)
    monkeypatch.setattr(cokriging, "STRIP_CELLS", 2)
    np.testing.assert_allclose(interpolate_mosaic(mosaic, cell, white=0.7), whole, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_beyond_a_border_the_mosaic_is_repeated_from_whole_cells_inside(cell):
    """The same as of the mosaic with four cells more on each side, copied from those at the border."""
    side = {36: 6, 4: 2}[len(cell)]
    mosaic = np.random.default_rng(4).random((24, 30)).astype(np.float32)
    cells = mosaic.reshape(24 // side, side, 30 // side, side)
    wide = np.pad(cells, ((4, 4), (0, 0), (4, 4), (0, 0)), mode="edge").reshape(24 + 8 * side, 30 + 8 * side)
    inside = (slice(None), slice(4 * side, -4 * side), slice(4 * side, -4 * side))
    np.testing.assert_allclose(interpolate_mosaic(mosaic, cell), interpolate_mosaic(wide, cell)[inside], atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_light_above_white_is_white_in_its_colour_whatever_the_others_are(cell):
    """Green far above white, in a disc; red and blue are below it, and noisy, from which green would be told lower."""
    y, x = np.mgrid[:48, :60]
    disc = np.hypot(y - 24, x - 30) < 14
    light = np.where(disc, [[[0.4]], [[3.0]], [[0.5]]], 0.2) + np.random.default_rng(5).normal(0, 0.1, (3, 48, 60))
    mosaic, colours = sampled(light.astype(np.float32), cell)
    found = interpolate_mosaic(mosaic, cell, (2.0, 1.0, 1.5), white=1.0)
    assert found.max() == 1
    assert (found[1][np.hypot(y - 24, x - 30) < 12] == 1).all()
    assert (found[1][np.hypot(y - 24, x - 30) > 16] < 1).all() and found[0].mean() < 0.4
    np.testing.assert_allclose(np.take_along_axis(found, colours[None], 0)[0], np.minimum(mosaic, 1), atol=2e-4)


def error_variance(weights, places, colours, colour):
    """Of sum_i w_i z_i - x_c(0), pair by pair: twice the mean variogram to the place, less that among samples."""

    def variogram(p, c, q, d):
        return np.hypot(*(p - q)) ** 1.25 * (1.1 if c == d else 1.0)

    origin, total = np.zeros(2), 0.0
    for w, p, c in zip(weights, places, colours, strict=True):
        total += 2 * w * variogram(p, c, origin, colour)
        for v, q, d in zip(weights, places, colours, strict=True):
            total -= w * v * variogram(p, c, q, d)
    return total


@pytest.mark.parametrize(("y", "x", "colour"), [(0, 0, 0), (2, 4, 2), (5, 3, 1)])
def test_no_other_weights_have_less_variance(y, x, colour):
    """Along every direction that keeps the sums by colour, the literal variance is least at the weights."""
    places = np.array([(a, b) for a in range(-3, 4) for b in range(-3, 4)])
    colours = LETTERS[(y + places[:, 0]) % 6, (x + places[:, 1]) % 6]
    weights = cokriging_weights(X_TRANS)[y, x, :, colour]
    sums = np.array([weights[colours == c].sum() for c in range(3)])
    np.testing.assert_allclose(sums, np.arange(3) == colour, atol=1e-12)
    least = error_variance(weights, places, colours, colour)
    free = null_space(np.array([colours == c for c in range(3)], float))
    rng = np.random.default_rng(2)
    for _ in range(4):
        step = free @ rng.standard_normal(free.shape[1]) * 0.01
        up, down = (error_variance(weights + s * step, places, colours, colour) - least for s in (1, -1))
        assert up > 0 and down > 0
        np.testing.assert_allclose(up, down, rtol=1e-6)  # no slope: a least value, not only a low one


def test_it_is_nearer_to_the_photograph_than_linear_interpolation_of_each_colour():
    light = np.moveaxis((data.astronaut()[40:136, 150:270] / 255.0) ** 2.2, -1, 0).astype(np.float32)
    mosaic, colours = sampled(light)
    there = np.stack(np.nonzero(np.ones_like(mosaic)), -1)
    linear = [griddata(np.argwhere(colours == c), mosaic[colours == c], there, fill_value=0.5) for c in range(3)]
    inside = (slice(None), slice(8, -8), slice(8, -8))
    ours, theirs = (
        np.mean(np.square(np.asarray(x).reshape(light.shape) - light)[inside])
        for x in (interpolate_mosaic(mosaic, X_TRANS), linear)
    )
    assert ours < 0.6 * theirs


@pytest.mark.parametrize("cell", CELLS)
def test_noise_has_the_stated_variances_at_low_frequencies_and_of_a_pixel(cell):
    noise = np.random.default_rng(3).standard_normal((1440, 1440), np.float32)
    found = interpolate_mosaic(noise, cell)
    blocks = found[1].reshape(60, 24, 60, 24).mean((1, 3))
    assert blocks.var() * 24**2 == pytest.approx(cokriging.white_variance(cell), rel=0.08)
    grey = found.mean(0).reshape(60, 24, 60, 24).mean((1, 3))
    assert 3 * grey.var() * 24**2 == pytest.approx(cokriging.grey_variance(cell), rel=0.08)
    assert found.var() == pytest.approx(cokriging.pixel_variance(cell), rel=0.01)


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_weights_of_samples_are_what_impulses_leave_in_their_own_colour(cell):
    """In the mean over all places of the cell, of impulses in an empty mosaic."""
    side, total = int(len(cell) ** 0.5), np.zeros((7, 7))
    for k, letter in enumerate(cell):
        mosaic, (y, x) = np.zeros((36, 36), np.float32), (12 + k // side, 12 + k % side)
        mosaic[y, x] = 1
        total += interpolate_mosaic(mosaic, cell)["RGB".index(letter), y - 3 : y + 4, x - 3 : x + 4]
    np.testing.assert_allclose(sample_weights(cell), total / len(cell), atol=1e-6)
    assert sample_weights(cell)[3, 3] == pytest.approx(1)


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_what_is_measured_is_what_is_sampled(cell):
    light = np.random.default_rng(3).random((3, 30, 24)).astype(np.float32)
    mask = measured_mask(cell, (17, 11), 5, 8)
    there = light[:, 5:22, 8:19]
    np.testing.assert_array_equal(np.where(mask, there, 0).sum(0), take_samples(light, cell)[5:22, 8:19])
    assert (mask.sum(0) == 1).all()


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_samples_are_predicted_as_dubrule_says(cell):
    """The error of predicting a value from the others is that of the whole system's solution over its diagonal entry
    (Dubrule 1983); the system as the module's docstring has it."""
    samples, side = np.random.default_rng(4).random((24, 24)).astype(np.float32), int(len(cell) ** 0.5)
    found = predict_samples(samples, cell)
    letters = np.array(list(cell)).reshape(side, side)
    places = np.array([(y, x) for y in range(-3, 4) for x in range(-3, 4)])
    for y, x in ((6, 6), (7, 12), (13, 9), (10, 11)):
        colours = letters[(y + places[:, 0]) % side, (x + places[:, 1]) % side]
        g = np.linalg.norm(places[:, None] - places, axis=-1) ** 1.25 * (1 + 0.1 * (colours[:, None] == colours))
        member = (colours[:, None] == np.array(list("RGB"))).astype(float)
        system = np.block([[g, member], [member.T, np.zeros((3, 3))]])
        inverse = np.linalg.inv(system)
        z = samples[y - 3 : y + 4, x - 3 : x + 4].ravel()
        error = (inverse[24, :49] @ z) / inverse[24, 24]
        assert found[y, x] == pytest.approx(samples[y, x] - error, abs=1e-4)
