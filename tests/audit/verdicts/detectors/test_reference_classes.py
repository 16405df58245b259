"""A class beside reference classes. Oracle: ranks of made scores, Fisher's method, and marks on some images."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.detectors import reference_classes
from klarsicht.audit.verdicts.detectors.artifact_embedding import load_reference_embedding
from klarsicht.audit.verdicts.detectors.bank import ALL_DETECTORS, change_of
from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.verdicts.detectors.reference_classes import (
    ReferenceClasses,
    ReferenceTest,
    detect_described,
    find_standing_out,
    shipped_reference,
)
from klarsicht.numerics.statistics.split_half import draw_halves

N, SIDE = 90, 32


def scenes(rng, count):
    """Photographs of a kind (count, SIDE, SIDE, 3): smooth noise of three scales."""
    layers = [gaussian_filter(rng.normal(0, 60 * s, (count, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.8, 2, 5)]
    return np.clip(120 + sum(layers), 0, 255)


def class_images(own, other):
    pool = ImageStack(np.concatenate([own, other]).astype(np.uint8))
    others = np.arange(len(pool)) >= len(own)
    half = draw_halves(len(own), np.random.default_rng(1))
    return ClassImages(ImageStack(own.astype(np.uint8)), pool, others, half, np.arange(len(own)))


def made(score, count=450):
    images = np.zeros((count, 4, 4, 3))
    return class_images(images, images), [
        Detection("frame 0.002", score, np.arange(3)),
        Detection("veil 0.002", 0.0, np.arange(2)),
    ]


@pytest.mark.parametrize(("score", "above"), [(17.5, 2), (15.5, 4)])
def test_p_is_the_rank_among_reference_classes_over_its_share_of_the_level(score, above):
    scores = np.stack([np.arange(20.0), np.zeros(20)], 1)  # of 20 classes, 0 to 19 nats
    known = ReferenceClasses(450, tuple(map(str, range(20))), ("frame 0.002", "veil 0.002"), scores)
    best, p = find_standing_out(*made(score), known)
    assert best.name == "frame 0.002" and p == pytest.approx((1 + above) / 21 / 0.8)
    larger = find_standing_out(*made(2 * score, 900), known)[1]  # twice the images have twice the surprisal
    assert larger == pytest.approx((1 + above) / 21 / 0.8)
    assert known.without(["3", "19"]).scores.shape == (18, 2)


def test_the_reference_that_comes_along_knows_all_detections_that_are_no_windows():
    known, rng = shipped_reference(), np.random.default_rng(0)
    found = detect_described(class_images(scenes(rng, 30), scenes(rng, 30)))
    assert {one.name for one in found} == set(known.signs)
    assert known.scores.shape == (len(known.names), len(known.signs)) and np.isfinite(known.scores).all()
    assert len(known.names) >= 40 and known.scores.min() >= 0 and known.images == 450
    assert not {one.name.split()[0] for one in found} - ALL_DETECTORS.keys()
    assert change_of("shipped-embedding 0.002") == "shared"


@pytest.mark.slow
def test_a_border_on_a_quarter_stands_apart_and_leaves_nothing():
    rng = np.random.default_rng(0)
    own, other = scenes(rng, N), scenes(rng, N)
    own[:22, :3] = own[:22, -3:] = own[:22, :, :3] = own[:22, :, -3:] = (250, 20, 40)
    images = class_images(own, other)
    found = ReferenceTest.of(images, detect_described(images))
    assert found.p <= 0.05 < found.left


def test_two_groups_of_a_class_leave_one(monkeypatch):
    """Where what is left stands out as well, the class has groups by nature."""
    images, found = made(40.0)
    rest = [Detection("frame 0.002", 40.0, np.arange(3)), found[1]]
    monkeypatch.setattr(reference_classes, "detect_described", lambda images: rest)
    scores = np.stack([np.linspace(0, 1, 60), np.zeros(60)], 1)
    known = ReferenceClasses(450, tuple(map(str, range(60))), ("frame 0.002", "veil 0.002"), scores)
    two = ReferenceTest.of(images, found, known)
    assert two.p <= 0.05 and two.left <= 0.05
    images, found = made(0.4)
    clean = ReferenceTest.of(images, found, known)
    assert clean.p > 0.05 and np.isnan(clean.left)


def test_the_embedding_of_the_reference_sets_marked_images_apart():
    rng = np.random.default_rng(0)
    plain = scenes(rng, 60)
    marked = plain.copy()
    marked[:, :3] = marked[:, -3:] = marked[:, :, :3] = marked[:, :, -3:] = (20, 200, 30)
    network = load_reference_embedding()
    a, b = network.embed(plain.astype(np.uint8)), network.embed(marked.astype(np.uint8))
    np.testing.assert_allclose((a**2).sum(1), 1, rtol=1e-5)
    together = b[:30] @ b[30:].T
    assert together.mean() > 0.5 > (a @ b.T).mean()  # whatever they show, they lie together, and away from the others
