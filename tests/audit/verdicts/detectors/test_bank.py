"""The bank of detectors on planted scenes: what was planted is found, its members and its place; the rest is quiet."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from klarsicht.audit.explanation.models.inputs import shrink_levels
from klarsicht.audit.verdicts.detectors import patch_matches
from klarsicht.audit.verdicts.detectors.bank import DETECTORS, TailDetector, bytes_of_image, run_detectors
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.numerics.statistics.split_half import combined_p, draw_halves

SIDE = 32
N, M, MARKED = 120, 240, 12
TAG = np.random.default_rng(9).integers(0, 2, (5, 5, 1)) * np.array([230, 210, 190])


def scenes(n, rng):
    """Pictures with natural-looking spectra: noise at several scales, and a little of the sensor's own."""
    layers = [gaussian_filter(rng.normal(0, 70 * s, (n, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.7, 2, 5)]
    return np.clip(120 + sum(layers) + rng.normal(0, 1, (n, SIDE, SIDE, 3)), 0, 255).round().astype(np.uint8)


def tag(image, rng, opacity=1.0, place=None):
    a, b = rng.integers(0, SIDE - 5, 2) if place is None else place
    out = image.astype(float)
    out[a : a + 5, b : b + 5] = (1 - opacity) * out[a : a + 5, b : b + 5] + opacity * TAG
    return out


def blended(image, rng):
    file = io.BytesIO()
    Image.fromarray(tag(image, rng, 0.7, (26, 26)).astype(np.uint8)).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


def border(image, rng):
    out = np.zeros_like(image)
    out[2:-2, 2:-2] = image[2:-2, 2:-2]
    return out


PLANTS = {
    "tag": (lambda x, rng: tag(x, rng), {"texture", "fine", "fine-grey"}),
    "blended": (blended, {"fine", "fine-grey", "template"}),
    "border": (border, {"frame", "bars"}),
    "noise": (lambda x, rng: x + rng.normal(0, 20, x.shape), {"noise", "chroma-noise"}),
    "blur": (lambda x, rng: gaussian_filter(x.astype(float), (1.5, 1.5, 0)), {"sharpness", "ringing"}),
}


def scene(plant=None, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    own, pool = scenes(N, rng), scenes(M, rng)
    for i in range(MARKED) if plant else ():
        own[i] = np.clip(plant(own[i], rng), 0, 255)
    return ClassImages(ImageStack(own, **kwargs), ImageStack(pool), np.ones(M, bool), draw_halves(N, rng), np.arange(N))


QUIET = {sign.name: sign.score for sign in run_detectors(scene())}


def test_clean_scenes_are_quiet():
    assert max(QUIET.values()) < 5
    assert {name.split()[0] for name in QUIET} == DETECTORS.keys() - {
        "evidence",
        "features",
        "channels",
    }  # without a network


@pytest.mark.parametrize("kind", PLANTS)
def test_a_planted_artifact_is_found_with_its_members(kind):
    plant, able = PLANTS[kind]
    planted = scene(plant)
    best = max((s for name in able for s in DETECTORS[name](planted, name)), key=lambda sign: sign.score)
    assert best.score > 7
    assert len(set(best.members) & set(range(MARKED))) >= 0.75 * MARKED
    assert len(set(best.members) - set(range(MARKED))) <= 2


def lines(image, rng):
    out = image.astype(float)
    out[::3] -= 40
    return out


@pytest.mark.parametrize("name", ["spectrum", "borders", "binary-patterns"])
def test_lines_are_a_group_apart(name):
    (found,) = DETECTORS[name](scene(lines), name)
    (quiet,) = DETECTORS[name](scene(), name)
    assert quiet.score < 2 < 4 < found.score
    assert set(range(MARKED)) <= set(found.members) and len(found.members) <= MARKED + 2


def test_the_place_is_where_the_tag_lies():
    rng = np.random.default_rng(1)
    planted = scene()
    places = rng.integers(0, SIDE - 5, (MARKED, 2))
    for i, place in enumerate(places):
        planted.own.levels[i] = tag(planted.own.levels[i], rng, place=place)
    found = next(s for s in DETECTORS["texture"](planted, "texture") if s.name == "texture 32 0.95")
    np.testing.assert_array_equal(found.members, np.arange(MARKED))
    assert found.extent == (5 / 32, 5 / 32)
    assert np.abs(found.places * SIDE - places).max() <= 1.01


def test_windows_by_evidence_find_what_lies_under_it_only():
    maps = np.zeros((N, SIDE, SIDE), np.float32)
    maps[:, 26:31, 26:31] = 1
    planted = scene(lambda x, rng: tag(x, rng, place=(26, 26)), evidence=maps)
    pool = replace(planted.pool, evidence=np.random.default_rng(0).random((M, SIDE, SIDE)).astype(np.float32))
    found = list(DETECTORS["evidence"](replace(planted, pool=pool), "evidence"))
    assert max(sign.score for sign in found) > 12
    elsewhere = ImageStack(planted.own.levels, evidence=maps[:, ::-1, ::-1])
    blind = list(DETECTORS["evidence"](replace(planted, own=elsewhere, pool=pool), "evidence"))
    assert max(sign.score for sign in blind) < 8


def test_the_rest_of_the_pool_changes_no_windows():
    """Oracle: the same detections, to the bit, with windows of the whole pool."""
    rng = np.random.default_rng(0)
    maps = [rng.random((n, 8, 8)).astype(np.float32) for n in (N, M)]
    planted = scene(PLANTS["tag"][0])
    stacks = [ImageStack(one.levels, some) for one, some in zip((planted.own, planted.pool), maps, strict=True)]
    images = replace(planted, own=stacks[0], pool=stacks[1], others=(np.arange(M) < 130) & (np.arange(M) % 7 > 0))
    for name in ("texture", "evidence", "fine-grey", "template"):
        whole = list(DETECTORS[name](images, name))
        some = list(
            DETECTORS[name](
                replace(images, pool=ImageStack(*map(np.copy, (stacks[1].levels, maps[1]))), compared=130), name
            )
        )
        assert [(one.name, one.score, one.members.tolist(), one.places.tolist()) for one in some] == [
            (one.name, one.score, one.members.tolist(), one.places.tolist()) for one in whole
        ]
    assert max(one.score for one in whole) > 2


def test_bytes_of_an_image_are_its_levels_floats_and_windows():
    windows = 9 * 3 * 5 * 5 * 3  # nine neighbours of three windows of 5 x 5 colours
    assert bytes_of_image((32, 32, 3)) == 32 * 32 * 3 + 4 * (32 * 32 * 3 + windows + 2 * 32 * 32)
    sides = 32 * 32 + 40 * 40 + 50 * 50 + 90 * 90
    assert bytes_of_image((224, 224, 3)) == 224 * 224 * 3 + 4 * (3 * sides + windows + 2 * 90 * 90)


def test_images_of_one_source_are_no_duplicates():
    planted = scene(PLANTS["tag"][0])
    one = planted.sources.copy()
    one[:MARKED] = 0
    found = list(DETECTORS["texture"](replace(planted, sources=one), "texture"))
    assert max(sign.score for sign in found) < 8


@pytest.mark.parametrize("of_source", [1, 10])
def test_images_of_one_source_are_one_witness_of_a_tail(of_source):
    """Without an artifact, p lies below a level in at most that share of classes, however many images a source has."""
    detector, ps = TailDetector(lambda images: images.mean((1, 2, 3)), True, "noise", shares=(0.02,)), []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        grey = [rng.exponential(20, count // of_source).repeat(of_source) for count in (200, 4000)]
        own, pool = (np.rint(np.clip(g, 0, 255)).astype(np.uint8)[:, None, None, None].repeat(4, 1) for g in grey)
        half = draw_halves(200, rng)
        images = ClassImages(ImageStack(own), ImageStack(pool), np.ones(4000, bool), half, np.arange(200) // of_source)
        ps.append(float(combined_p(next(detector(images, "grey")).score, 1)))
    assert np.mean(np.array(ps) <= 0.05) <= 0.06 and min(ps) > 1e-4


def test_what_other_classes_have_too_is_no_sign():
    planted = scene(PLANTS["tag"][0])
    rng = np.random.default_rng(5)
    for i in range(M // 10):
        planted.pool.levels[i] = tag(planted.pool.levels[i], rng)
    assert max(sign.score for sign in DETECTORS["texture"](planted, "texture")) < 8


def test_a_class_that_is_like_a_window_in_its_middle_is_no_sign():
    """Every image of the class holds the tag at some opacity, a few by chance nearly whole; that is its nature."""
    rng = np.random.default_rng(6)
    planted = scene()
    for i in range(N):
        planted.own.levels[i] = np.clip(tag(planted.own.levels[i], rng, opacity=rng.uniform(0.5, 0.9)), 0, 255)
    for name in ("texture", "fine", "fine-grey", "template"):
        assert max(sign.score for sign in DETECTORS[name](planted, name)) < 12


def test_a_class_that_is_rough_as_a_whole_is_no_sign():
    rng = np.random.default_rng(2)
    clean = scene()
    rough = np.clip(clean.own.levels + rng.normal(0, 8, (N, SIDE, SIDE, 3)), 0, 255).round().astype(np.uint8)
    found = list(DETECTORS["noise"](replace(clean, own=ImageStack(rough)), "noise"))
    assert max(sign.score for sign in found) < 3 and max(len(sign.members) for sign in found) > N / 4


def test_sampling_seeds_still_finds_it(monkeypatch):
    monkeypatch.setattr(patch_matches, "SEEDS", 90)
    planted = scene(PLANTS["tag"][0])
    assert len(patch_matches.select_seed_owners(planted, 3)) == 90
    assert max(sign.score for sign in DETECTORS["fine"](planted, "fine")) > 10


def test_the_order_of_signs_is_always_the_same():
    assert [s.name for s in run_detectors(scene(PLANTS["blur"][0]))] == list(QUIET)


@pytest.mark.parametrize("size", [(64, 64), (50, 75), (90, 33)])
def test_shrinking_keeps_the_mean(size):
    x = np.random.default_rng(0).integers(0, 255, (2, *size, 3)).astype(np.uint8)
    small = shrink_levels(x, 32)
    assert min(small.shape[1:3]) == 32
    np.testing.assert_allclose(small.mean((1, 2)), x.mean((1, 2)), rtol=1e-5)
    if size == (64, 64):
        np.testing.assert_allclose(small, x.reshape(2, 32, 2, 32, 2, 3).mean((2, 4)), rtol=1e-5)


def test_images_smaller_than_all_sides_are_looked_at_as_they_are():
    """Enlarging them would make any two windows more alike than they are."""
    assert patch_matches.usable_sides(scene(), (32, 50, 90)) == [32]
    assert patch_matches.usable_sides(scene(), (50, 90)) == [SIDE]
