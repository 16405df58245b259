"""Windows at one place of aligned images. Oracle: a slow literal correlation, closed forms, and a mark put there."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.detectors.aligned_windows import (
    LEAST_DEVIATION,
    RANDOM_CLASSES,
    SOFT,
    AlignedWindows,
    match_same_place,
    standardise_details,
)
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.detectors.natural_windows import measure_alignment
from klarsicht.audit.verdicts.detectors.reference_classes import compare_aligned
from klarsicht.numerics.statistics.split_half import draw_halves

N, SIDE, W = 60, 32, 5
LETTER = 255.0 * np.array([[1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 1, 0]])


def aligned(rng, count, common):
    """Images of one anatomy (count, SIDE, SIDE, 1): what is common, at varying contrast, and smooth noise."""
    noise = gaussian_filter(rng.normal(0, 60, (count, SIDE, SIDE, 1)), (0, 2, 2, 0))
    fine = rng.normal(0, 4, (count, SIDE, SIDE, 1))
    return np.clip(120 + rng.uniform(0.7, 1.3, (count, 1, 1, 1)) * common + noise + fine, 0, 255).astype(np.uint8)


def beside(own, other):
    pool = ImageStack(np.concatenate([own, other]))
    half = draw_halves(len(own), np.random.default_rng(1))
    others = np.arange(len(pool)) >= len(own)
    return ClassImages(ImageStack(own), pool, others, half, np.arange(len(own)), aligned=True)


@pytest.fixture(scope="module")
def classes():
    rng = np.random.default_rng(0)
    common = gaussian_filter(rng.normal(0, 200, (SIDE, SIDE, 1)), (1, 1, 0))
    own, other = aligned(rng, N, common), aligned(rng, N, common)
    assert measure_alignment(own) > 0.1
    marked = own.copy()
    marked[:8, 2:7, 25:30, 0] = LETTER
    return own, marked, other


def test_a_mark_on_eight_of_sixty_is_called_with_its_images_and_its_place(classes):
    _, marked, other = classes
    found, test = compare_aligned(beside(marked, other))
    best = next(one for one in found if one.name == test.sign)
    assert test.p <= 0.05 < test.left and best.members.tolist() == list(range(8))
    centre = (best.places + np.array(best.extent) / 2) * SIDE
    assert (np.abs(centre - (4.5, 27.5)) <= W).all()


@pytest.mark.slow
def test_aligned_images_without_a_mark_and_a_mark_of_both_classes_are_not_called(classes):
    own, marked, other = classes
    shared = other.copy()
    shared[:8, 2:7, 25:30, 0] = LETTER
    for pair in ((own, other), (marked, shared)):
        assert compare_aligned(beside(*pair))[1].p > 0.05


def test_the_largest_correlation_at_a_place_is_that_of_a_literal_search():
    rng = np.random.default_rng(2)
    rest = rng.normal(0, 1, (6, 12, 11, 1)).astype(np.float32)
    owner, places = np.array([0, 3, 3]), np.array([[0, 0], [4, 3], [7, 6]])
    found = match_same_place(rest, owner, places, 1)
    wide = np.pad(rest[..., 0], ((0, 0), (1, 1), (1, 1)))

    def vector(image, a, b):
        window = wide[image, a + 1 : a + 1 + W, b + 1 : b + 1 + W]
        centred = (window - window.mean()).ravel()
        return centred / np.sqrt((centred**2).sum() + W * W * SOFT**2)

    for s, (i, (a, b)) in enumerate(zip(owner, places, strict=True)):
        for j in range(len(rest)):
            near = [vector(j, a + x, b + y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
            assert found[s, j] == pytest.approx(max(float(vector(i, a, b) @ one) for one in near), abs=1e-5)


def test_what_all_images_have_in_common_is_taken_off():
    rng = np.random.default_rng(3)
    common = rng.uniform(0, 255, (1, 9, 9, 3))
    assert np.abs(standardise_details(np.repeat(common, 5, 0))).max() < 1e-4
    varied = standardise_details(common + rng.normal(0, 40, (400, 9, 9, 3)))
    assert np.abs(varied.mean(0)).max() < 1e-5
    assert (varied.std(0) < 1).all() and varied.std(0).mean() > 1 - LEAST_DEVIATION / 40


@pytest.mark.slow
def test_random_classes_are_as_large_as_the_class_and_always_the_same(classes):
    own, _, other = classes
    detector = AlignedWindows()
    images = beside(own, other)
    scores = detector.score_random_classes(images)
    assert scores.shape == (RANDOM_CLASSES, len(list(detector(images, "aligned")))) and (scores >= 0).all()
    assert (detector.score_random_classes(beside(own, other)) == scores).all()
    assert np.median(scores.max(1)) < 3  # by chance the half of a class that holds no seed gives few nats
