"""Marks of known colours, at places and of sizes drawn for each image, are found to the pixel."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.detectors.shared_colours import (
    RARE_SHARE,
    colour_occurrence,
    find_shared_colours,
    log_ratios,
)

COLOURS = np.array([[230, 40, 200], [20, 220, 90]])


def scenes(n, seed, side=32):
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(0, 150, (n, side, side, 3)), (0, 2, 2, 0))
    return np.clip(120 + smooth + rng.normal(0, 25, (n, 1, 1, 1)), 20, 235).round().astype(np.uint8)


def marked(x, seed):
    """A disc of two colours, of 5 to 12 of 32 pixels, in each image."""
    rng, masks = np.random.default_rng(seed), np.zeros(x.shape[:3], bool)
    out, side = x.copy(), x.shape[1]
    rows, columns = np.mgrid[:side, :side]
    for image, mask in zip(out, masks, strict=True):
        radius = rng.uniform(2.5, 6) * side / 32
        y, x0 = rng.uniform(radius, side - radius, 2)
        mask[:] = np.hypot(rows - y, columns - x0) < radius
        image[mask] = COLOURS[0]
        image[mask & (columns < x0)] = COLOURS[1]
    return out, masks


def find(carriers, others, elsewhere, seed=0):
    return find_shared_colours(carriers, others, elsewhere, np.random.default_rng(seed))


@pytest.mark.parametrize("side", [32, 96])
def test_discs_of_two_colours_are_found_at_any_place_and_size(side):
    carriers, masks = marked(scenes(20, 1, side), 5)
    found = find(carriers, scenes(30, 2, side), scenes(20, 3, side))
    assert found.area > 0.95
    np.testing.assert_array_equal(found.rows, np.arange(20))
    both, either = (found.masks & masks).sum((1, 2)), (found.masks | masks).sum((1, 2))
    assert (both / either).min() > 0.6 and (both / either).mean() > 0.8


def test_random_groups_share_no_colours():
    for seed in range(3):
        x = scenes(60, 10 + seed)
        assert find(x[:20], x[20:], x[:0], seed) is None


def test_what_other_images_show_as_well_is_nothing_of_the_carriers():
    carriers, others, elsewhere = scenes(20, 1), scenes(30, 2), scenes(20, 3)
    assert find(marked(carriers, 5)[0], marked(others, 6)[0], elsewhere) is None
    assert find(marked(carriers, 5)[0], others, marked(elsewhere, 7)[0]) is None


def test_a_colour_of_the_whole_image_is_no_region():
    tinted = scenes(20, 1)
    tinted[..., 2] = 250
    assert find(tinted, scenes(30, 2), scenes(20, 3)) is None


def test_grey_images_and_few_carriers_are_left_alone():
    carriers, others = marked(scenes(20, 1), 5)[0], scenes(30, 2)
    assert find(carriers[..., :1], others[..., :1], others[:0, ..., :1]) is None
    assert find(carriers[:7], others, others[:0]) is None


def test_ratios_are_of_shares_of_images():
    own, other, far = (np.array(share)[:, None, None, None] for share in ([1, 1, 0, 0], [1, 0, 0, 0], [0, 0]))
    expected = np.log((0.5 + RARE_SHARE) / (0.25 + RARE_SHARE))
    assert log_ratios(own, other, far)[0, 0, 0] == pytest.approx(expected)
    assert log_ratios(own, far, other)[0, 0, 0] == pytest.approx(expected)
    assert log_ratios(own, other, far[:0])[0, 0, 0] == pytest.approx(expected)


def test_colours_occur_where_they_fill_their_share():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, :16] = 255
    found = colour_occurrence(image)[0]
    assert found[0, 0, 0] == found[-1, -1, -1] == 1 and found[8, 8, 8] == 0
