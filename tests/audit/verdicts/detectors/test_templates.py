"""Templates: matching at every place against a loop over windows, and the mean against what was blended in."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.detectors.bank import FINE_GREY
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.detectors.patch_matches import W, Windows, relevance_density
from klarsicht.audit.verdicts.detectors.templates import (
    TemplateMatches,
    WindowField,
    one_per_source,
    select_distinct_seeds,
)
from klarsicht.numerics.imaging.patches import normalise_windows
from klarsicht.numerics.statistics.split_half import draw_halves

RNG = np.random.default_rng(0)
SEARCH = TemplateMatches(FINE_GREY, k=3, sides=(20,), thresholds=(0.8, 0.9))


def images(n, side=20):
    return RNG.integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def template(window):
    vector = np.asarray(window, np.float32).ravel()
    vector = vector - vector.mean()
    return vector / np.linalg.norm(vector)


def test_matching_is_a_loop_over_windows():
    x = images(3, 9).astype(np.float32)
    field = WindowField.of(x, FINE_GREY)
    templates = np.stack([template(RNG.normal(size=25)) for _ in range(2)])
    like, places = field.match(templates, np.arange(3))
    for t in range(2):
        for n in range(3):
            seen = FINE_GREY(x)[n]
            every = {
                (a, b): float(normalise_windows(seen[None, a : a + W, b : b + W], FINE_GREY.soft)[0] @ templates[t])
                for a in range(5)
                for b in range(5)
            }
            assert like[t, n] == pytest.approx(max(every.values()), abs=1e-5)
            assert tuple(places[t, n]) == max(every, key=every.get)


@pytest.mark.parametrize("by_evidence", [False, True])
def test_windows_of_many_images_are_those_of_all_at_once(monkeypatch, by_evidence):
    monkeypatch.setattr("klarsicht.audit.verdicts.detectors.patch_matches.WINDOW_BLOCK", 3)
    x, maps = images(8).astype(np.float32), RNG.normal(size=(8, 10, 10))
    density = relevance_density(maps, x.shape[1:3]) if by_evidence else FINE_GREY.density(x)
    whole = Windows.of(x, density, FINE_GREY, 2)
    found = Windows.of_many(x, FINE_GREY, 2, maps if by_evidence else None)
    np.testing.assert_array_equal(found.places, whole.places)
    np.testing.assert_array_equal(found.vectors, whole.vectors)


def test_the_mean_is_closer_to_the_mark_than_any_carrier():
    mark = RNG.choice([-40.0, 40.0], (5, 5, 1))
    x = RNG.normal(120, 3, (30, 20, 20, 3))
    x[:, 8:13, 6:11] += 0.35 * mark + RNG.normal(0, 6, (30, 5, 5, 3))
    field = WindowField.of(x.astype(np.float32), FINE_GREY)
    seed = field.extract(np.array([0]), np.array([[8, 6]]))
    mean = SEARCH.average_matches(field, seed, np.arange(30))
    clean = np.full((1, 20, 20, 3), 120.0)
    clean[0, 8:13, 6:11] += 0.35 * mark
    truth = template(FINE_GREY(clean.astype(np.float32))[0, 8:13, 6:11])
    carriers = field.extract(np.arange(30), np.full((30, 2), (8, 6)))
    assert mean[0] @ truth > (carriers @ truth).max()


def test_what_is_chosen_shares_no_image():
    like = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool)
    assert select_distinct_seeds(np.array([3.0, 2, 1, 0]), like, np.arange(4), 4) == [
        0,
        2,
    ]  # 1 is like 0; 3 is worth nothing


def test_one_image_of_each_source_counts():
    x = images(6)
    scene = ClassImages(
        ImageStack(x), ImageStack(x), np.ones(6, bool), draw_halves(6, RNG), np.array([4, 4, 2, 2, 2, 7])
    )
    np.testing.assert_array_equal(one_per_source(scene), [True, False, True, False, False, True])


def test_images_of_one_colour_have_no_template():
    flat = np.full((30, 20, 20, 3), 90, np.uint8)
    scene = ClassImages(
        ImageStack(flat), ImageStack(images(40)), np.ones(40, bool), draw_halves(30, RNG), np.arange(30)
    )
    (sign,) = SEARCH(scene, "template")
    assert sign.score == 0 and len(sign.members) == 0
