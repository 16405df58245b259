"""Families that an artifact resembles: cosines in closed form, under an embedding of two mean levels."""

from types import SimpleNamespace

import numpy as np
import pytest

from klarsicht.audit.verdicts.detectors import family_resemblance
from klarsicht.audit.verdicts.detectors.family_resemblance import cosine, family_cosines, name_resembled_families

SIDE = 16


class HalfMeans:
    """Embeds an image as the mean levels of its left and of its right half."""

    def embed(self, levels):
        return np.stack([levels[:, :, : SIDE // 2].mean((1, 2, 3)), levels[:, :, SIDE // 2 :].mean((1, 2, 3))], 1)


def family(change):
    def artifact(image, rng):
        return SimpleNamespace(pixels=change(image.astype(int)).astype(np.uint8))

    return lambda rng: artifact


def left_black(image):
    return np.concatenate([0 * image[:, : SIDE // 2], image[:, SIDE // 2 :]], 1)


@pytest.fixture
def families(monkeypatch):
    known = {"darker": family(lambda x: x - 30), "lighter": family(lambda x: x + 10), "left": family(left_black)}
    monkeypatch.setattr(family_resemblance, "FAMILIES", known)
    monkeypatch.setattr(family_resemblance, "taught_families", lambda channels: tuple(known))


def class_with(change, carriers=10):
    levels = np.random.default_rng(0).integers(100, 120, (40, SIDE, SIDE, 3)).astype(np.uint8)
    carries = np.arange(40) < carriers
    levels[carries] = change(levels[carries].astype(int))
    return levels, carries


def test_cosines_are_those_of_the_shifts(families):
    levels, carries = class_with(lambda x: x - 50)
    found = family_cosines(HalfMeans(), levels, carries, seed=0)
    assert found["darker"] == pytest.approx(1, abs=1e-3)
    assert found["lighter"] == pytest.approx(-1, abs=1e-3)
    assert found["left"] == pytest.approx(np.sqrt(0.5), abs=5e-3)


def test_only_families_that_shift_alike_are_named(families):
    assert name_resembled_families(HalfMeans(), *class_with(lambda x: x - 50), seed=0) == ("darker",)
    halved = class_with(lambda x: np.concatenate([x[:, :, : SIDE // 2] - 60, x[:, :, SIDE // 2 :] - 30], 2))
    both = name_resembled_families(HalfMeans(), *halved, seed=0)  # shift (-60, -30): .95 from darker, .89 from left
    assert both == ("darker", "left")


def test_nothing_is_named_where_all_or_none_carry(families):
    levels, _ = class_with(lambda x: x)
    assert name_resembled_families(HalfMeans(), levels, np.ones(40, bool), 0) == ()
    assert name_resembled_families(HalfMeans(), levels, np.zeros(40, bool), 0) == ()


def test_cosine_of_no_shift_is_zero():
    assert cosine(np.zeros(2), np.ones(2)) == 0
    assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(24 / 25)
