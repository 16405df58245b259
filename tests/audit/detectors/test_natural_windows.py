"""Windows that a class shares by nature. Oracle: classes that are aligned, or hold one glyph, by construction."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.audit.detectors.bank import detect_windows
from klarsicht.audit.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.detectors.natural_windows import ALIGNED, SILENT, SharedWindows
from klarsicht.numerics.statistics.split_half import draw_halves

N, SIDE = 60, 32
GLYPH = np.kron(np.random.default_rng(5).permutation(np.repeat([0.0, 255.0], 8)).reshape(4, 4), np.ones((2, 2)))


def scenes(rng, count):
    """Photographs of a kind (count, SIDE, SIDE, 3): smooth noise of three scales."""
    layers = [gaussian_filter(rng.normal(0, 60 * s, (count, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.8, 2, 5)]
    return np.clip(120 + sum(layers), 0, 255)


def put_glyph(images, rng):
    """Put the glyph at a place of its own in each image."""
    out = images.copy()
    for one in out:
        a, b = rng.integers(0, SIDE - 8, 2)
        one[a : a + 8, b : b + 8] = GLYPH[..., None]
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
    return images, SharedWindows.of(images, detect_windows(images))


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


def test_a_glyph_that_is_left_without_the_members_is_nature_and_so_is_one_of_most_images():
    rng = np.random.default_rng(0)
    own = scenes(rng, N)
    own[:24] = put_glyph(own[:24], rng)
    images, _ = measured(own, rng)
    strongest = max(detect_windows(images), key=lambda one: one.score)
    some = SharedWindows.of(images, [replace(strongest, members=strongest.members[:8])])
    assert some.left > SILENT and some.natural
    most = SharedWindows.of(images, [replace(strongest, members=np.arange(N // 2 + 1))])
    assert most.left == strongest.score and most.natural


@pytest.mark.parametrize(
    ("correlation", "left"), [(ALIGNED, 0.0), (0.0, SILENT), (float("nan"), 0.0), (0.0, float("nan"))]
)
def test_what_was_not_measured_counts_as_nature(correlation, left):
    assert SharedWindows(correlation, left).natural
    assert not SharedWindows(0.0, 0.0).natural
