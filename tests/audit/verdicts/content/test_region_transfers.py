"""Regions of images, and what is laid on others: pixels by hand."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.content.region_transfers import (
    SHARE_ACTING,
    Trial,
    cut_region,
    frame_of,
    lay_regions,
    soften_border,
    transfer_regions,
)


def test_a_region_holds_its_share_of_the_relevance_and_no_pixel_could_be_spared():
    relevance = np.array([[9.0, 1.0], [-5.0, 0.5]])
    region = cut_region(relevance, (2, 2))
    assert region.tolist() == [[True, False], [False, False]]  # 9 of 10.5 is more than three quarters
    assert cut_region(np.ones((2, 2)), (2, 2)).mean() >= SHARE_ACTING


def test_without_relevance_the_region_is_the_whole_image():
    assert cut_region(-np.ones((3, 3)), (6, 6)).all()


def test_a_frame_is_that_of_the_largest_part_at_half_of_the_peak():
    relevance = np.zeros((10, 20))
    relevance[2:5, 10:15] = 4
    relevance[8, 1] = 5
    relevance[5:7, 10:15] = 1.5
    assert frame_of(relevance, (10, 20)) == pytest.approx((0.2, 0.5, 0.3, 0.25))
    assert frame_of(-relevance, (10, 20)) == (0, 0, 1, 1)


def test_what_is_laid_on_is_whole_inside_and_absent_far_away():
    region = np.zeros((64, 64), bool)
    region[24:40, 24:40] = True
    image, donor = np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 64, 64, 3), 200, np.uint8)
    out = lay_regions(image, donor, soften_border(region)[None])[0, :, :, 0]
    assert out[32, 32] == 200 and out[0, 0] == 0 and 80 <= out[24, 32] <= 120  # half at the edge
    assert (np.diff(out[32, :33].astype(int)) >= 0).all()


def test_pictures_get_the_regions_of_members_in_turn_and_the_control_those_of_lenders():
    """Pictures are constant, and the prediction is their mean: with whole regions the answers are the donors'."""
    levels = np.arange(10, dtype=np.uint8)

    def read(rows):
        return np.broadcast_to(levels[rows][:, None, None, None], (len(rows), 4, 4, 1))

    def predict(pixels):
        return pixels.reshape(len(pixels), -1).mean(1, keepdims=True)

    trial = Trial(np.array([0, 1, 2]), np.array([7, 8, 9]))
    own, control = transfer_regions(read, predict, np.array([5, 6]), np.ones((2, 4, 4), bool), trial)
    assert own.ravel().tolist() == [5, 6, 5] and control.ravel().tolist() == [7, 8, 9]


def test_lenders_are_other_pictures_where_there_are_enough():
    rng = np.random.default_rng(0)
    trial = Trial.draw(np.arange(20), np.arange(50), 20, rng)
    assert len(set(trial.receivers) | set(trial.lent)) == 40 and set(trial.receivers) == set(range(20))
    few = Trial.draw(np.arange(20), np.arange(20), 15, rng)
    assert sorted(few.receivers) == sorted(few.lent) and (few.receivers != few.lent).all()
