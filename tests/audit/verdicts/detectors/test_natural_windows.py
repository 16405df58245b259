"""Windows that a class shares by nature. Oracle: classes that are aligned, or hold one glyph, by construction."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.detectors.bank import detect_windows
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.detectors.natural_windows import (
    ALIGNED,
    SILENT,
    NaturalWindows,
    complete_members,
    complete_strongest,
    select_images,
    strongest_window,
)
from klarsicht.numerics.statistics.split_half import draw_halves

N, SIDE = 60, 32
GLYPH = np.kron(np.random.default_rng(5).permutation(np.repeat([0.0, 255.0], 8)).reshape(4, 4), np.ones((2, 2)))
OTHER = 255.0 * np.random.default_rng(6).integers(0, 2, (8, 8))


def scenes(rng, count):
    """Photographs of a kind (count, SIDE, SIDE, 3): smooth noise of three scales."""
    layers = [gaussian_filter(rng.normal(0, 60 * s, (count, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.8, 2, 5)]
    return np.clip(120 + sum(layers), 0, 255)


def put_glyph(images, rng, glyph=GLYPH):
    """Put a glyph at a place of its own in each image."""
    out = images.copy()
    for one in out:
        a, b = rng.integers(0, SIDE - 8, 2)
        one[a : a + 8, b : b + 8] = glyph[..., None]
    return out


def measured(own, rng):
    pool = np.concatenate([own, scenes(rng, N)]).astype(np.uint8)
    images = ClassImages(
        own=ImageStack(own.astype(np.uint8)),
        pool=ImageStack(pool),
        others=np.arange(len(pool)) >= len(own),
        half=draw_halves(len(own), rng),
        sources=np.arange(len(own)),
    )
    return images, NaturalWindows.of(images, detect_windows(images))


def test_photographs_share_none_and_a_mark_on_a_fifth_is_no_nature():
    rng = np.random.default_rng(0)
    own = scenes(rng, N)
    own[:12] = put_glyph(own[:12], rng)
    images, found = measured(own, rng)
    strongest = max(detect_windows(images), key=lambda one: one.score)
    assert strongest.score > 5 > SILENT > found.left  # the mark is found, and nothing is left without its carriers
    assert abs(found.correlation) < ALIGNED and not found.natural


def test_aligned_images_share_windows_by_nature():
    rng = np.random.default_rng(0)
    own = np.clip(scenes(rng, N) + gaussian_filter(rng.normal(0, 150, (SIDE, SIDE, 1)), (1, 1, 0)), 0, 255)
    found = measured(own, rng)[1]
    assert found.correlation > ALIGNED and found.natural


def test_members_are_completed_by_all_images_with_the_glyph_at_its_place():
    rng = np.random.default_rng(0)
    own = scenes(rng, N)
    own[:12] = put_glyph(own[:12], rng)
    images, _ = measured(own, rng)
    strongest = strongest_window(detect_windows(images))
    few = replace(strongest, members=strongest.members[:4], places=strongest.places[:4])
    whole = complete_members(images, few)
    assert set(strongest.members[4:]) & set(whole.members) and set(whole.members) <= set(range(12))
    assert len(whole.members) >= 11 and (np.diff(whole.members) > 0).all()
    height, width = np.rint(np.array(whole.extent) * SIDE).astype(int)
    for member, place in zip(whole.members, whole.places, strict=True):  # some of the glyph's pixels lie in the window
        a, b = np.rint(place * SIDE).astype(int)
        seen = own[member, a : a + height, b : b + width]
        assert np.isin(seen, (0.0, 255.0)).all(-1).mean() > 0.2
    found = [few, *(replace(one, score=0.0) for one in detect_windows(images))]
    (changed,) = (new for old, new in zip(found, complete_strongest(images, found), strict=True) if new is not old)
    assert changed.name == few.name and changed.members.tolist() == whole.members.tolist()
    silent = [replace(one, score=SILENT / 2) for one in found]
    assert complete_strongest(images, silent) == silent


def test_two_glyphs_are_no_nature_and_one_of_most_images_is():
    """Each on a tenth; the second is silent only when the first is taken away with all of its carriers."""
    rng = np.random.default_rng(0)
    own = scenes(rng, 2 * N)
    own[:12] = put_glyph(own[:12], rng)
    own[12:24] = put_glyph(own[12:24], rng, OTHER)
    images, found = measured(own, rng)
    strongest = strongest_window(detect_windows(images))
    assert strongest.score > SILENT > found.left and not found.natural
    kept = np.setdiff1d(np.arange(len(own)), complete_members(images, strongest).members)
    assert strongest_window(detect_windows(select_images(images, kept))).score > SILENT  # so it was, after one
    half = replace(strongest, members=np.arange(N + 1), places=np.zeros((N + 1, 2)))
    most = NaturalWindows.of(images, [half])
    assert most.left == strongest.score and most.natural


def test_further_windows_are_not_taken_away_beyond_a_quarter_of_the_class():
    rng = np.random.default_rng(0)
    own = scenes(rng, 2 * N)
    own[:24] = put_glyph(own[:24], rng)
    own[24:48] = put_glyph(own[24:48], rng, OTHER)
    found = measured(own, rng)[1]
    assert found.left > SILENT and found.natural


@pytest.mark.parametrize(
    ("correlation", "left"), [(ALIGNED, 0.0), (0.0, SILENT), (float("nan"), 0.0), (0.0, float("nan"))]
)
def test_what_was_not_measured_counts_as_nature(correlation, left):
    assert NaturalWindows(correlation, left).natural
    assert not NaturalWindows(0.0, 0.0).natural
