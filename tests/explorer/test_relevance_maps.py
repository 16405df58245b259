"""Relevance maps of a run: their mean, which of them are read, and whether they are hints."""

import numpy as np
import pytest
from tests.explorer.made_run import EACH
from tests.explorer.requests import ask, read_picture

from klarsicht.audit.explanation.relevance.conservation import ABSORBED_BOUND
from klarsicht.explorer import relevance_maps
from klarsicht.explorer.app import make_app


def test_a_mean_is_that_of_the_maps(app):
    """Maps differ only in one cell; the mean of an even and an odd row is drawn as any single map, and counted."""
    one = ask(app, "/api/mean", {"rows": [0], "side": 32})
    two = ask(app, "/api/mean", {"rows": [0, 1, 1], "side": 32})
    assert (one.headers["x-images"], two.headers["x-images"]) == ("1", "2")
    np.testing.assert_array_equal(read_picture(one), read_picture(two))
    assert ask(app, "/api/mean", {"rows": []}).status == 400
    assert ask(app, "/api/mean", {"rows": [3 * EACH]}).status == 400


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
