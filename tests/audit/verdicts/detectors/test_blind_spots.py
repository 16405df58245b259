"""Detectors on drawn scenes of artifacts that earlier ones did not find: lines, stripes on one side, colours, light,
marks of all sizes and angles, and more carriers than a few. Photographs vary more: there, see the benchmarks."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import zoom
from tests.audit.verdicts.detectors.test_bank import MARKED, PLANTS, TAG, M, N, lines, scenes

from klarsicht.audit.verdicts.detectors.artifact_embedding import load_reference_embedding
from klarsicht.audit.verdicts.detectors.bank import ALL_DETECTORS
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging import image_statistics
from klarsicht.numerics.statistics.split_half import draw_halves

SOME = 24  # carriers, a fifth of a class


def best(name, images):
    return max(ALL_DETECTORS[name](images, name), key=lambda found: found.score)


@cache
def plain_scenes():
    """Scenes of a class, and those of other classes, whose measures are computed once."""
    rng = np.random.default_rng(0)
    return scenes(N, rng), ImageStack(scenes(M, rng))


def planted(plant, carriers, **more):
    """A class of scenes of which the first ones carry what `plant` puts on."""
    own, pool = plain_scenes()[0].copy(), plain_scenes()[1]
    for i in range(carriers):
        own[i] = np.clip(plant(own[i], np.random.default_rng(i)), 0, 255)
    halves = draw_halves(N, np.random.default_rng(1))
    return ClassImages(ImageStack(own), pool, np.ones(M, bool), halves, np.arange(N), **more)


def of_family(name, draw):
    artifact = FAMILIES[name](generator(draw, "probe"))
    return lambda x, rng: artifact(x.astype(np.uint8), rng).pixels


def f1(members, carriers):
    both = len(set(members.tolist()) & set(range(carriers)))
    return 2 * both / (len(members) + carriers)


def columns(image, rng):
    return lines(image.transpose(1, 0, 2), rng).transpose(1, 0, 2)


@pytest.mark.parametrize("plant", [lines, columns])
def test_lines_that_the_laplacian_cannot_see_are_seen_by_patterns(plant):
    """A second difference along a line is 0, so lines change no measure of noise."""
    plain = np.full((1, 32, 32, 3), 120.0)
    lined = plant(plain[0], None)[None]
    assert image_statistics.noise(lined) == image_statistics.noise(plain) == 0
    found = best("binary-patterns", planted(plant, MARKED))
    assert found.score > 4 and f1(found.members, MARKED) > 0.9


@pytest.mark.parametrize("side", [np.s_[:3], np.s_[-3:], np.s_[:, :3], np.s_[:, -3:]])
def test_a_stripe_on_any_one_side_is_seen(side):
    def stripe(image, rng):
        out = image.copy()
        out[side] = (200, 40, 90)
        return out

    images = planted(stripe, SOME)
    found = best("borders", images)
    assert found.score > 4 and f1(found.members, SOME) > 0.9
    carriers = images.own.levels[:SOME].astype(np.float32)
    assert (
        image_statistics.frame(carriers).max() <= 1 and image_statistics.bars(carriers).max() <= 1
    )  # of four, and two


@pytest.mark.parametrize(
    ("family", "draw", "name"),
    [("hue", 0, "channel-correlation"), ("white-balance", 0, "colours"), ("vignette", 0, "borders"),
     ("flare", 1, "channel-correlation")],
)  # fmt: skip
def test_colours_and_light_are_seen_where_scenes_vary_little(family, draw, name):
    found = best(name, planted(of_family(family, draw), SOME))
    assert found.score > 4 and f1(found.members, SOME) > 0.8


@pytest.mark.parametrize("size", [5, 14])
def test_marks_of_several_sizes_are_seen_in_larger_images(size):
    """A tag of 5 or 14 of 90 pixels is a window of 5 at one of the sides to which images are shrunk."""
    rng = np.random.default_rng(2)
    own, pool = (zoom(scenes(n, rng), (1, 90 / 32, 90 / 32, 1), order=1) for n in (32, 40))
    mark = zoom(TAG, (size / 5, size / 5, 1), order=0, grid_mode=True, mode="nearest")
    for i in range(8):
        a, b = rng.integers(0, 90 - size, 2)
        own[i, a : a + size, b : b + size] = mark
    halves = draw_halves(32, np.random.default_rng(1))
    found = best("texture", ClassImages(ImageStack(own), ImageStack(pool), np.ones(40, bool), halves, np.arange(32)))
    assert found.score > 4 and f1(found.members, 8) > 0.8


def test_a_ruler_at_a_new_angle_in_every_image_is_set_apart_by_the_embedding():
    images = planted(of_family("ruler", 0), SOME, embedding=load_reference_embedding())
    found = best("shipped-embedding", images)
    assert found.score > 4 and f1(found.members, SOME) > 0.7


@pytest.mark.parametrize(("kind", "name"), [("tag", "texture"), ("blended", "fine-grey"), ("border", "frame")])
def test_more_carriers_never_score_less_by_windows_and_borders(kind, name):
    scores = [best(name, planted(PLANTS[kind][0], n)).score for n in (6, 24, 48)]
    assert scores == sorted(scores) and scores[0] > 4


@pytest.mark.parametrize(
    ("plant", "name"),
    [(PLANTS["noise"][0], "noise"), (PLANTS["blur"][0], "sharpness"), (lines, "spectrum"), (lines, "binary-patterns")],
)
def test_up_to_a_fifth_of_a_class_more_carriers_never_score_less(plant, name):
    """Beyond, a class is its own background: what two fifths of it do begins to count as its nature."""
    scores = [best(name, planted(plant, n)).score for n in (6, 12, 24)]
    assert scores == sorted(scores) and scores[-1] > 4
