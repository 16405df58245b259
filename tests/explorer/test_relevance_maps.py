"""Relevance maps of a run: their mean, which of them are read, and whether they are hints."""

import re

import numpy as np
import pytest
from tests.explorer.made_run import EACH
from tests.explorer.requests import ask, read_picture

from klarsicht.audit.explanation.relevance.conservation import ABSORBED_BOUND
from klarsicht.explorer import relevance_maps
from klarsicht.explorer.app import make_app
from klarsicht.ground.pictures.colour_maps import diverging_colours, overlay


def test_a_mean_is_that_of_the_maps(app):
    """Maps differ only in one cell; the mean of an even and an odd row is drawn as any single map, and counted."""
    one = ask(app, "/api/mean", {"rows": [0], "side": 32})
    two = ask(app, "/api/mean", {"rows": [0, 1, 1], "side": 32})
    assert (one.headers["x-images"], two.headers["x-images"]) == ("1", "2")
    np.testing.assert_array_equal(read_picture(one), read_picture(two))
    assert ask(app, "/api/mean", {"rows": []}).status == 400
    assert ask(app, "/api/mean", {"rows": [3 * EACH]}).status == 400


def test_an_image_is_described_with_the_relevance_at_the_ends_of_its_colour_bar(app):
    """Of 64 cells one is 1, in the next image 2, and all others 0: 99.5 % of them lie below 0.685 of the largest."""
    (first, second) = ask(app, "/api/images?rows=0,1").json
    assert (first["bound"], second["bound"]) == pytest.approx((0.685, 1.37))


def test_the_colour_bars_of_the_page_have_the_colours_of_the_maps(app):
    sheet = ask(app, "/static/style.css").content.decode()
    colours = diverging_colours([-1, -0.5, 0, 0.5, 1], 1).tolist()
    bar = re.search(r"\.colours\.relevance {(.*?)}", sheet)[1]
    assert [[*map(int, one.split())] for one in re.findall(r"rgb\((.*?)\)", bar)] == colours
    ends = overlay(np.full((1, 2, 3), 255, np.uint8), [[-1, 1]], 1)[0]
    bar = re.search(r"\.colours\.overlay {(.*?)}", sheet)[1]
    seen = [(np.array(one.split()[:3], float), float(one.split("/")[1])) for one in re.findall(r"rgb\((.*?)\)", bar)]
    blue, red = (colour * opacity + 255 * (1 - opacity) for colour, opacity in (seen[0], seen[-1]))
    np.testing.assert_allclose([blue, red], ends, atol=0.5)


@pytest.mark.parametrize(("n", "count"), [(1, 1), (511, 511), (512, 512), (513, None), (700, None), (100_000, 512)])
def test_runs_of_rows_are_chosen_at_equal_steps(n, count):
    """From the first to the last; of few rows runs overlap, and are fewer than asked for."""
    rows = 3 * np.arange(n)
    chosen = relevance_maps.choose_runs(rows, 512)
    assert set(chosen) <= set(rows) and (np.diff(chosen) > 0).all()
    assert {rows[0], rows[-1]} <= set(chosen)
    assert len(chosen) == count if count else 448 <= len(chosen) <= 512


def test_maps_that_hardly_conserve_are_hints(explored):
    assert relevance_maps.ABSORBED_SHARE == ABSORBED_BOUND
    assert not ask(make_app(explored), "/api/classes/0").json["hints"]  # .02 absorbed
    images = explored.reader.images()
    for share, hints in ((0.91, True), (-0.95, True), (0.89, False), (None, False)):
        object.__setattr__(images, "absorbed", share)
        assert explored.maps.are_hints is hints
