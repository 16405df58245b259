"""Colours of maps. Oracles: scikit-image's CIELAB, bilinear interpolation written out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import deltaE_ciede2000, rgb2lab

from klarsicht.ground.pictures import colour_maps

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = COLOUR[..., 0]


def lightness(colours):
    return rgb2lab(colours[None] / 255)[0, :, 0]


def test_diverging_ends_and_middle():
    blue, white, red = colour_maps.diverging_colours([-2.0, 0.0, 2.0]).astype(int)
    assert white.tolist() == [255, 255, 255]
    assert blue[2] > blue[0] + 60
    assert red[0] > red[2] + 60


def test_diverging_lightness_falls_evenly_on_both_sides():
    left, right = lightness(colour_maps.BLUE_WHITE_RED[:129]), lightness(colour_maps.BLUE_WHITE_RED[128:])
    assert (np.diff(left) >= 0).all()
    assert (np.diff(right) <= 0).all()
    assert np.abs(left - right[::-1]).max() < 3  # of 100


def test_sequential_lightness_rises_from_black_to_white_without_jumps():
    L = lightness(colour_maps.DARK_TO_BRIGHT)
    assert (np.diff(L) > -0.5).all()  # half a step of 8-bit rounding
    assert L[0] < 5
    assert L[-1] > 93
    lab = rgb2lab(colour_maps.DARK_TO_BRIGHT[None, ::16] / 255)[0]
    steps = deltaE_ciede2000(lab[1:], lab[:-1])
    assert steps.max() < 3 * steps.min()


@given(arrays(np.float64, (4, 5), elements=st.floats(-1e6, 1e6)))
def test_diverging_mirrors_signs_and_ignores_scale(values):
    colours = colour_maps.diverging_colours(values)
    assert (colours.shape, colours.dtype) == ((4, 5, 3), np.uint8)
    np.testing.assert_array_equal(colour_maps.diverging_colours(values * 4), colours)
    rank = {tuple(colour): i for i, colour in enumerate(colour_maps.BLUE_WHITE_RED.tolist())}
    order = [rank[tuple(colour)] for row in colours.tolist() for colour in row]
    mirror = [rank[tuple(colour)] for row in colour_maps.diverging_colours(-values).tolist() for colour in row]
    assert np.abs(np.add(order, mirror) - 256).max() <= 1  # a tie of rounding


def test_a_lone_spike_hides_nothing():
    values = np.ones((32, 32))
    values[3, 3] = 1e9
    assert colour_maps.diverging_colours(values)[0, 0].tolist() == colour_maps.BLUE_WHITE_RED[-1].tolist()


def test_empty_constant_and_unfinite_maps_have_colours():
    assert (colour_maps.diverging_colours(np.zeros((2, 2))) == 255).all()
    assert (colour_maps.diverging_colours([np.nan, np.inf, -np.inf]) == 255).all()
    assert colour_maps.diverging_colours(np.zeros((0, 2))).shape == (0, 2, 3)
    assert colour_maps.sequential_colours([np.nan, 5.0], 5, 5).tolist() == [colour_maps.DARK_TO_BRIGHT[0].tolist()] * 2


def bilinear(values, height, width):
    """The textbook, pixel by pixel: centres at half-integers, edges repeated."""
    h, w = values.shape
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            a, b = int(y), int(x)
            c, d = min(a + 1, h - 1), min(b + 1, w - 1)
            s, t = y - a, x - b
            upper, lower = (
                (1 - t) * values[a, b] + t * values[a, d],
                (1 - t) * values[c, b] + t * values[c, d],
            )
            out[i, j] = (1 - s) * upper + s * lower
    return out


def test_enlarging_is_bilinear():
    values = RNG.normal(size=(4, 6))
    np.testing.assert_allclose(colour_maps.resize_bilinear(values, (13, 17)), bilinear(values, 13, 17), atol=1e-6)


def test_overlay_of_nothing_is_the_picture_in_its_colours():
    np.testing.assert_array_equal(colour_maps.overlay(COLOUR, np.zeros((2, 2))), COLOUR)


def test_a_picture_of_relevance_has_a_bar_of_its_colours_from_against_to_for():
    """White, whole factor 56: the bar is the overlay of a ramp on white, as wide as the picture."""
    white, ramp = np.full((4, 6, 3), 255, np.uint8), np.array([[-2.0, 1.0]])
    picture = np.asarray(colour_maps.draw_relevance(white, ramp)).astype(int)
    large = np.full((224, 336, 3), 255, np.uint8)
    bound = np.quantile(np.abs(ramp), 0.995)
    np.testing.assert_array_equal(picture[:224], colour_maps.overlay(large, ramp, bound))
    bar = picture[224 + colour_maps.BAR // 2 + 1]
    assert picture.shape[1] == 336 and (bar[0, 2] - bar[0, 0] > 60) and (bar[-1, 0] - bar[-1, 2] > 60)
    assert (bar[167:169] >= 250).all()


def test_overlay_is_red_for_and_blue_against():
    picture = np.full((8, 8), 128, np.uint8)
    drawn = colour_maps.overlay(picture, [[1.0, 0.0], [0.0, -1.0]], strength=1).astype(int)
    assert drawn.shape == (8, 8, 3)
    assert drawn[0, 0, 0] > drawn[0, 0, 2] + 60
    assert drawn[-1, -1, 2] > drawn[-1, -1, 0] + 60
    np.testing.assert_array_equal(colour_maps.overlay(picture, [[1.0, -1.0]], strength=0), 128)
