"""Own places and exceptions on drawn sets whose truth is known; log-odds and parts against other code."""

import numpy as np
import pytest
from scipy.special import logsumexp
from skimage.measure import label as label_parts

from klarsicht.audit.verdicts.own_places import own_places
from klarsicht.audit.verdicts.own_places.own_places import (
    OwnPlaces,
    enlarge,
    find_own_places,
    is_mark,
    largest_parts,
    without_marks,
)
from klarsicht.audit.verdicts.own_places.place_network import margin


def draw_squares(n, exceptions, rng, side=48):
    """Images of two classes, dark and bright squares in a grey frame on dark and bright surroundings, after Bykov et
    al.: uint8 (n, side, side, 3), labels, exceptions and the squares."""
    labels, odd = np.arange(n) % 2, np.zeros(n, bool)
    odd[:exceptions] = True
    light = np.where(odd, 1 - labels, labels)
    images, own = np.zeros((n, side, side, 3)), np.zeros((n, side, side), bool)
    for i in range(n):
        images[i] = rng.integers(128, 256) if light[i] else rng.integers(0, 128)
        top, left = rng.integers(0, side - 12, 2)
        own[i, top : top + 12, left : left + 12] = True
        images[i, top : top + 12, left : left + 12] = 127
        inner = rng.integers(150, 256) if labels[i] else rng.integers(50, 110)
        images[i, top + 2 : top + 10, left + 2 : left + 10] = (inner, 0, 0)
    images += rng.normal(0, 20, images.shape)
    return np.clip(images, 0, 255).astype(np.uint8), labels, odd, own


@pytest.mark.slow
def test_exceptions_of_a_shortcut_and_their_own_places_are_found():
    images, labels, odd, own = draw_squares(400, 10, np.random.default_rng(0))
    found = find_own_places(images, labels)
    assert found.exceptional[odd].all()
    assert found.exceptional[~odd].mean() < 0.05
    assert found.followed > 0.4
    overlap = (found.own & own).sum((1, 2)) / (found.own | own).sum((1, 2))
    assert np.median(overlap) > 0.5


def test_classes_of_the_same_image_have_no_own_places():
    """All images are on one side then, so half of them are exceptions, and nothing tells which."""
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    found = find_own_places(np.stack([image] * 8), np.arange(8) % 2)
    assert found.exceptional.mean() == 0.5
    assert not found.own.any()
    assert found.separate == 0


@pytest.mark.slow
def test_own_places_are_asked_what_they_tell_only_where_the_answer_can_matter():
    """A `least` of 1 is never exceeded: places are not outlined then, and `separate` is at least what it is without."""
    images, labels, _, own = draw_squares(400, 10, np.random.default_rng(0))
    found, other = find_own_places(images, labels), find_own_places(images, labels, least=1.0)
    assert found.told is not None and other.told is None
    np.testing.assert_array_equal(found.side, other.side)
    outlined, before = ((one.own & own).sum((1, 2)) / (one.own | own).sum((1, 2)) for one in (found, other))
    assert np.median(outlined) > np.median(before) + 0.05
    assert found.followed == other.followed and found.separate <= other.separate == 2 * other.followed - 1


@pytest.mark.parametrize(
    ("judged", "followed", "separate"),
    [((0.8, 0.7), 0.75, 0.5), ((0.6, 1.0), 0.8, 0.6), ((0.52, 0.44), 0.48, 0.0), ((0.5, 1.0), 0.5, 0.0)],
)
def test_composites_are_asked_before_and_after_own_places_are_outlined(judged, followed, separate, monkeypatch):
    """The mean of both answers is taken; where no more than chance follows before, nothing is outlined."""
    answers, turns = list(judged), []
    monkeypatch.setattr(
        own_places, "share_that_follows", lambda found, own, seed, count=None: answers.pop(0) if count else 0.9
    )
    monkeypatch.setattr(
        own_places, "learn_again", lambda found, own, seed, by_colours=False: turns.append(by_colours) or own
    )
    monkeypatch.setattr(own_places, "share_told_by_own_places", lambda found, own, seed: 0.9)
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48, 3), np.uint8)
    found = find_own_places(images, np.arange(8) % 2)
    assert found.followed == pytest.approx(followed) and found.separate == pytest.approx(separate)
    assert any(turns) == (judged[0] > 0.5)


@pytest.mark.parametrize(
    ("classes", "followed", "told", "separate"),
    [
        (2, 0.5, 0.96, 0),
        (2, 1, 0.05, 0.1),
        (2, 0.8, 0.5, 0.6),
        (2, 0.75, 0.9, 0.5),
        (2, 0.75, 0.2, 0.4),
        (2, 0.4, 1, 0),
        (10, 0.37, 0.4, 0.3),
        (10, 0.91, 0.25, 0.5),
        (10, 0.37, None, 0.3),
        (2, 0.4, None, 0),
    ],
)
def test_classes_are_separate_by_the_lesser_share_above_chance_of_which_what_is_told_counts_twice(
    classes, followed, told, separate
):
    labels, own = np.arange(classes), np.zeros((classes, 4, 4), bool)
    found = OwnPlaces(labels, labels, np.ones(classes), own, followed, told, "side")
    assert found.separate == pytest.approx(separate)


def test_log_odds_are_those_of_the_class_against_all_others():
    logits = np.random.default_rng(0).normal(size=(5, 4, 3, 2))
    chosen = np.array([0, 3, 1, 2, 2])
    found = margin(logits, chosen)
    for n in range(5):
        for i in range(3):
            for j in range(2):
                values = logits[n, :, i, j]
                share = np.exp(values - logsumexp(values))[chosen[n]]
                assert found[n, i, j] == pytest.approx(np.log(share / (1 - share)))


def test_the_largest_connected_part_is_that_of_scikit_image():
    places = np.random.default_rng(0).random((20, 12, 12)) < 0.35
    for before, after in zip(places, largest_parts(places), strict=True):
        parts = label_parts(before, connectivity=2)
        assert after.sum() == np.bincount(parts.ravel())[1:].max()
        assert len(np.unique(parts[after])) == 1
    assert not largest_parts(places & False).any()


def test_places_are_enlarged_to_blocks():
    places = np.zeros((1, 4, 4), bool)
    places[0, 1, 2] = True
    assert np.array_equal(enlarge(places, (8, 8), 0)[0], np.kron(places[0], np.ones((2, 2), bool)))
    assert enlarge(places, (8, 8), 1).sum() == 36


def test_a_mark_is_at_the_same_spot_with_the_same_pixels_and_an_object_is_not():
    """A literal count over images and pixels of what is usual there."""
    rng, n = np.random.default_rng(0), 40
    images = rng.integers(0, 256, (2 * n, 16, 16, 3)).astype(np.uint8)
    labels, corner, centre = np.repeat([0, 1], n), np.zeros((2 * n, 16, 16), bool), np.zeros((2 * n, 16, 16), bool)
    corner[:, 1:5, 1:5] = centre[:, 6:12, 6:12] = True
    images[labels == 0, 1:5, 1:5] = rng.integers(0, 256, (4, 4, 3))  # a tag on all images of a class
    images[labels == 0, 1:5, 1:5] ^= 3  # as a lossy file changes it
    kept, gone = without_marks(images, centre, labels), without_marks(images, corner, labels)
    assert (kept == centre).all() and not gone.any()  # of the other class, too: together they tell nothing

    wide = corner | centre  # 16 of 52 own pixels are the tag's
    assert (without_marks(images, wide, labels) == wide).all()
    for of_class, expected in ((0, True), (1, False)):
        rows, count = labels == of_class, 0
        usual = np.median(images[rows], 0)
        for image, own in zip(images[rows], corner[rows], strict=True):
            count += sum(np.abs(image[y, x] - usual[y, x]).max() <= 8 for y, x in zip(*np.nonzero(own), strict=True))
        assert is_mark(images[rows], corner[rows]) == expected == (count > corner[rows].sum() / 2)
    assert not is_mark(images[labels == 0], np.zeros((n, 16, 16), bool))
    moved = np.array([np.roll(one, i, 1) for i, one in enumerate(corner[labels == 0])])
    tags = np.array([np.roll(one, i, 1) for i, one in enumerate(images[labels == 0])])
    assert not is_mark(tags, moved)  # what moves may be an object, though it looks the same
