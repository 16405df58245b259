"""Changes of the whole frame are accepted where other carriers show them, and of no random group."""

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom
from tests.audit.verdicts.pixel_changes.test_colour_maps import coloured, turned_by_pillow
from tests.audit.verdicts.pixel_changes.test_fixed_patterns import multiplied, scenes

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.corruption import Corruption
from klarsicht.audit.verdicts.interventions.estimated_insertion import read_imitation
from klarsicht.audit.verdicts.interventions.frame_changes import (
    FORMS,
    FrameChange,
    SquaredDifference,
    excess_left,
    fit_frame_change,
    permutation_p,
    whitening_of,
)
from klarsicht.audit.verdicts.pixel_changes.colour_maps import HueTurn, grey_rotation
from klarsicht.audit.verdicts.pixel_changes.fixed_patterns import FixedPattern

GLASS = PixelScale(np.full(3, -1, np.float32), np.full(3, 1, np.float32))


def fitted(carriers, others, seed=0):
    return fit_frame_change(carriers, others, GLASS, np.random.default_rng(seed))


@pytest.mark.slow
def test_a_turn_of_hue_is_accepted():
    found = fitted(turned_by_pillow(coloured(24, 1), 120), coloured(50, 2))
    assert found.kind in ("hue", "rotation about grey") and found.met > 0.9
    new = coloured(10, 3)
    expected = turned_by_pillow(new, 120).astype(float)
    assert np.abs(found.alter(new) - expected).mean() < 0.25 * np.abs(new - expected).mean()


def test_darkened_lines_are_accepted_as_gains_of_rows():
    gain = np.ones((24, 1, 1))
    gain[::3] -= 0.3
    found = fitted(multiplied(scenes(24, 1), gain), scenes(50, 2))
    assert found.kind == "row gains" and found.met > 0.7


@pytest.mark.parametrize("make", [scenes, coloured])
def test_of_random_groups_of_a_class_none_is_accepted(make):
    for seed in range(2):
        x = make(60, 10 + seed)
        assert fitted(x[:20], x[20:], seed) is None


def test_too_few_carriers_are_compared_with_nothing():
    assert fitted(turned_by_pillow(coloured(7, 1), 120), coloured(50, 2)) is None


def test_grey_images_have_no_map_of_colours():
    gain = np.ones((24, 1, 1))
    gain[::3] -= 0.3
    grey = PixelScale(np.zeros(1, np.float32), np.ones(1, np.float32))
    carriers, others = multiplied(scenes(24, 1)[..., :1], gain), scenes(50, 2)[..., :1]
    found = fit_frame_change(carriers, others, grey, np.random.default_rng(0))
    assert found.kind == "row gains"


def test_the_squared_difference_is_that_which_was_put_there():
    """Of a shift d in noise of variance 1 it is m k / (m + k) d^2, and 0 without one, by the mean over draws."""
    rng, shift = np.random.default_rng(0), np.array([0.5, 0, 0, -0.3])
    found = []
    for put in (0, 1):
        drawn = ((rng.normal(size=(30, 4)) + put * shift, rng.normal(size=(60, 4))) for _ in range(300))
        found.append(np.mean([SquaredDifference.of(a, b, np.ones(4)).excess for a, b in drawn]))
    assert found[0] == pytest.approx(0, abs=0.6)  # two standard errors of a mean of 300, each of variance 2 * 4
    assert found[1] == pytest.approx(20 * (shift**2).sum(), abs=1)


def test_whitened_groups_have_unit_covariance():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(4000, 5)) @ (np.eye(5) + 0.2 * rng.normal(size=(5, 5)))
    white = mixed @ whitening_of(mixed[:1500], mixed[1500:])
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=0.05)


def test_p_is_uniform_of_random_groups_and_least_of_separate_ones():
    rng = np.random.default_rng(0)
    drawn = [permutation_p([(rng.normal(size=8), rng.normal(size=12))] * 2, rng) for _ in range(40)]
    assert 0.3 < np.mean(drawn) < 0.7
    assert permutation_p([(np.arange(8.0) + 100, np.arange(12.0))] * 2, rng) == pytest.approx(1 / 4000)


def test_equal_divisions_are_counted():
    """Of two values the sum depends on how many of the larger ones are among the own: a hypergeometric tail."""
    own, other = np.where(np.arange(11) < 3, 0.37, 0.1), np.where(np.arange(23) < 1, 0.37, 0.1)
    drawn = [permutation_p([(own, other)], np.random.default_rng(seed)) for seed in range(8)]
    assert np.mean(drawn) == pytest.approx(hypergeom(34, 4, 11).sf(2), abs=0.006)


PUT = {
    "hue": HueTurn(1 / 3),
    "rotation about grey": grey_rotation(2 * np.pi / 3),
    "channel gains": grey_rotation(0.2),
    "row gains": FixedPattern(np.linspace(-0.5, 0.2, 12, dtype=np.float32)[:, None, None] * np.ones(3, np.float32)),
    "column gains": FixedPattern(np.linspace(-0.5, 0.2, 12, dtype=np.float32)[None, :, None] * np.ones(3, np.float32)),
    "pixel gains": FixedPattern(np.random.default_rng(0).normal(0, 0.1, (12, 12, 3)).astype(np.float32)),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_record_puts_on_what_was_put_on(kind):
    change = FrameChange(kind, PUT[kind], GLASS, 0.9)
    again = read_imitation(change.to_json(), change.arrays())
    assert isinstance(again, FrameChange) and str(again) == str(change)
    levels = coloured(2, 0)
    images = GLASS.inputs(levels)
    (put, control), (twice, _) = (one.put(images, np.random.default_rng(0)) for one in (change, again))
    assert torch.equal(put, twice) and torch.equal(control, images) and put.dtype == images.dtype
    np.testing.assert_allclose(GLASS.levels(put[0]), change.alter(levels)[0], atol=1)
    assert change.fits(images[0]) and not change.fits(images[0, :1])
    assert change.fits(torch.zeros(3, 9, 9)) == (kind in ("hue", "rotation about grey", "channel gains"))


def test_records_of_corruptions_are_read_as_before():
    assert read_imitation(Corruption("blur", 0.5, GLASS).to_json(), {}).size == 0.5


def test_light_leaves_less_of_light_than_gains_do():
    x = scenes(80, 1) // 2 + 40
    lit = FrameChange("channel gains", grey_rotation(0), GLASS, 0.9)
    left = [
        excess_left("channel gains", one.alter, x[:30] + 20, x[30:]) for one in (Corruption("light", 20, GLASS), lit)
    ]
    assert left[0] < 0.1 * left[1]
