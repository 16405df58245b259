"""Outlines by colours on drawn objects whose truth is known; likelihoods and means against other code."""

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from klarsicht.audit.verdicts.own_places.colour_outlines import (
    Colours,
    describe_pixels,
    find_colours,
    outline_by_colours,
)

SIDE = 32


def draw_discs(n, rng, channels=3):
    """Images of a disc of two bright colours on surroundings of three dark ones, in bands: uint8 (n, SIDE, SIDE,
    channels), and the discs."""
    y, x = np.mgrid[:SIDE, :SIDE]
    images, own = np.zeros((n, SIDE, SIDE, channels)), np.zeros((n, SIDE, SIDE), bool)
    for image, places in zip(images, own, strict=True):
        dark, bright = rng.integers(0, 90, (3, channels)), rng.integers(160, 256, (2, channels))
        (top, left), radius = rng.integers(12, 20, 2), rng.integers(6, 9)
        places[:] = (y - top) ** 2 + (x - left) ** 2 < radius**2
        image[:] = dark[(x // 11).clip(0, 2)]
        image[places] = bright[(y % 8 < 4)[places].astype(int)]
    return np.clip(images + rng.normal(0, 4, images.shape), 0, 255).astype(np.uint8), own


def overlap(found, true):
    return (found & true).sum((1, 2)) / (found | true).sum((1, 2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("change", "least"), [(binary_dilation, 0.75), (binary_erosion, 0.95)])
def test_places_that_are_too_wide_or_too_narrow_end_where_colours_do(channels, change, least):
    """Of places too wide, surroundings are a part, so that they are told apart from the rest less surely."""
    images, own = draw_discs(20, np.random.default_rng(0), channels)
    start = np.stack([change(places, iterations=2) for places in own])
    found = outline_by_colours(images, start, np.where(start, 1.0, -1.0)[:, ::2, ::2], 0)
    assert np.median(overlap(start, own)) < 0.65
    assert np.median(overlap(found, own)) > least


def test_what_is_as_bright_is_outlined_by_its_roughness():
    rng = np.random.default_rng(1)
    images, own = np.full((8, SIDE, SIDE, 1), 128.0), np.zeros((8, SIDE, SIDE), bool)
    own[:, 9:23, 8:24] = True
    images[own] += rng.choice([-45, 45], (int(own.sum()), 1))
    start = np.stack([binary_dilation(places, iterations=3) for places in own])
    found = outline_by_colours(images.astype(np.uint8), start, np.zeros((8, 16, 16)), 0)
    assert (overlap(found, own) > overlap(start, own) + 0.1).all()


@pytest.mark.parametrize("column", [10, 11])
@pytest.mark.parametrize("width", [1, 2])
def test_a_line_is_outlined_in_odd_columns_as_in_even_ones(column, width):
    """Colours are found on every second pixel, of which a line of one pixel may have none: it then stays as it is."""
    rng, own = np.random.default_rng(0), np.zeros((1, 48, 48), bool)
    own[0, 10:30, column : column + width] = True
    image = np.where(own[..., None], (230, 30, 30), (90, 110, 90)) + rng.normal(0, 6, (1, 48, 48, 3))
    found = outline_by_colours(np.clip(image, 0, 255).astype(np.uint8), own, np.zeros((1, 24, 24)), 0)
    assert (found & own).sum() >= 0.9 * own.sum() and (found & ~own).sum() <= 0.01 * own.size


def test_images_are_outlined_one_by_one():
    """Every image has its own colours; draws of the others do not matter where the means are sure."""
    images, own = draw_discs(6, np.random.default_rng(2))
    odds = np.where(own, 1.0, -1.0)[:, ::2, ::2]
    found = outline_by_colours(images, own, odds, 0)
    other = outline_by_colours(images[::-1], own[::-1], odds[::-1], 0)[::-1]
    assert (overlap(found, other) > 0.95).all()


@pytest.mark.parametrize("pixels", [0, 9, SIDE * SIDE - 9, SIDE * SIDE])
def test_an_image_with_too_few_pixels_on_a_side_stays(pixels):
    images, _ = draw_discs(1, np.random.default_rng(3))
    own = (np.arange(SIDE * SIDE) < pixels).reshape(1, SIDE, SIDE)
    assert np.array_equal(outline_by_colours(images, own, np.full((1, 16, 16), -1.0), 0), own)


def test_likelihoods_are_those_of_a_mixture_of_normals():
    rng = np.random.default_rng(0)
    points, means, shares = rng.normal(size=(2, 3, 4, 2)), 2 * rng.normal(size=(2, 5, 2)), rng.dirichlet([1] * 5, 2)
    found = Colours(means, np.log(shares)).log_likelihood(points)
    for image in range(2):
        each = [multivariate_normal(mean).logpdf(points[image]) for mean in means[image]]
        of_point = (points[image] ** 2).sum(-1) / 2 + np.log(2 * np.pi)  # the same on both sides of an outline
        wanted = logsumexp(np.moveaxis(each, 0, -1) + np.log(shares[image]), axis=-1) + of_point
        np.testing.assert_allclose(found[image], wanted, atol=1e-4)


def test_means_are_those_of_scipy_where_colours_are_sure():
    """Six tight groups, far from each other: wherever the rounds begin within them, they end in the means of scipy."""
    rng = np.random.default_rng(0)
    middles = 50 * np.array([[i, (2 * i) % 6] for i in range(6)], float)
    colours = rng.integers(6, size=(40, 40))
    points = (middles[colours] + 0.01 * rng.normal(size=(40, 40, 2))).astype(np.float32)[None]
    found = find_colours(points, np.ones((1, 40, 40), bool), np.random.default_rng(5))
    taught = points[0, ::2, ::2].reshape(-1, 2)
    wanted, _ = kmeans2(taught, found.means[0], iter=1, minit="matrix")
    np.testing.assert_allclose(found.means[0], wanted, atol=1e-2)
    group, shares = cdist(found.means[0], middles).argmin(1), np.exp(found.log_shares[0])
    nearest = cdist(taught, found.means[0]).argmin(1)
    for colour in np.unique(group):
        pixels = np.isin(nearest, np.flatnonzero(group == colour)).sum()
        assert shares[group == colour].sum() == pytest.approx((pixels + (group == colour).sum()) / (len(taught) + 6))


def test_a_pixel_is_described_by_its_colour_and_how_rough_it_is_around():
    flat = np.full((1, 8, 8, 3), 64, np.uint8)
    np.testing.assert_allclose(describe_pixels(flat)[0, 4, 4], [2, 2, 2, 0], atol=1e-5)
    checks = flat.copy()
    checks[0, (np.indices((8, 8)).sum(0) % 2) == 1] = 0
    rough = describe_pixels(checks)[0, 4, 4, 3]
    # of nine pixels four or five are bright, so each is 4/9 of 64 levels from the mean: 32 levels are one deviation
    assert rough == pytest.approx(2 * 2 * 4 / 9, rel=0.02)
