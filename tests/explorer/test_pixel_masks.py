"""Masks by relevance, by a place and by windows, of what a model sees and of a file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.explorer.made_run import G

from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.explorer.pixel_masks import ExcessMasks, PlaceMasks, WindowMasks, mask_in_file
from klarsicht.explorer.thumbnails import crop_seen
from klarsicht.ground.pictures.seen_area import EXTENT_UNITS, SeenArea


def test_the_explorer_and_the_cleaning_cut_the_same_mask():
    rng = np.random.default_rng(0)
    maps, background = rng.random((3, G, G)).astype(np.float32), rng.random((G, G)) / G**2
    place = Overlay(np.ones((2, 30, 20), np.float32), np.ones((2, 3, 30, 20), np.float32), background)
    masks = ExcessMasks(background, lambda rows: maps[rows])
    for row in range(3):
        np.testing.assert_array_equal(masks(row, (30, 20)), place.mask_from_relevance(maps[row]))


def test_an_artifact_without_a_place_has_no_mask():
    """Members whose relevance exceeds that of the others nearly everywhere."""
    maps = np.ones((9, G, G), np.float32)
    maps[4:] = 0
    maps[4:, 0, 0] = 1
    read = lambda rows: maps[rows]  # noqa: E731
    assert ExcessMasks.of(read, np.arange(4), np.arange(4, 9)) is None
    assert ExcessMasks.of(read, np.arange(4, 9), np.arange(4)) is not None
    assert ExcessMasks.of(read, np.arange(4), np.arange(0)) is None


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    area=st.builds(
        SeenArea,
        st.sampled_from(EXTENT_UNITS),
        *[st.sampled_from([0.5, 0.875, 1.0, 13.0])] * 2,
        *[st.sampled_from([0.0, 0.5, 1.0])] * 2,
    ),
    window=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_mask_lies_within_what_the_model_sees(size, area, window):
    """Against the window's corners in pixels of the file, one by one."""
    mask = mask_in_file(WindowMasks({3: window}), 3, size, area)
    unit = {"side": size, "shorter": [min(size)] * 2, "longer": [max(size)] * 2, "pixels": [1, 1]}[area.unit]
    wide, high = area.width * unit[0], area.height * unit[1]
    left, top = area.left * (size[0] - wide), area.top * (size[1] - high)
    y, x = top + window[0] * high, left + window[1] * wide
    ends = y + min(window[2], 1 - window[0]) * high, x + min(window[3], 1 - window[1]) * wide
    first, last = (max(y, 0), max(x, 0)), (min(ends[0], size[1]), min(ends[1], size[0]))
    if mask is None:  # nothing of it lies on the file, or less than a pixel
        assert min(b - a for a, b in zip(first, last, strict=True)) <= 1
    else:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert [rows[0], columns[0]] == pytest.approx(first, abs=2)
        assert [rows[-1] + 1, columns[-1] + 1] == pytest.approx(last, abs=2)
        assert rows[0] >= top - 1 and rows[-1] <= top + high and columns[0] >= left - 1 and columns[-1] <= left + wide
        assert mask.sum() == len(rows) * len(columns)
    assert mask_in_file(WindowMasks({}), 3, size, area) is None
    assert mask_in_file(PlaceMasks(np.zeros((4, 4), bool)), 3, size, area) is None


def test_a_long_strip_padded_to_a_square_takes_no_square_of_memory():
    """40,000 x 12 pixels are 1.6 gigapixels as a square."""
    strip = Image.new("L", (40_000, 12), 255)
    seen = np.asarray(crop_seen(strip, SeenArea("longer")))
    assert seen.size <= 2 << 20 and seen.shape[0] == seen.shape[1]
    shapes = []

    def masks(row, shape):
        shapes.append(shape)
        return np.ones(shape, bool)

    mask = mask_in_file(masks, 0, strip.size, SeenArea("longer"))
    assert mask.shape == (12, 40_000) and mask.all() and np.prod(shapes[0]) <= 2 << 20
