"""Changes without a name: exact masks, laws of their masks and curves, warps as long as they say, grey as of colour."""

import numpy as np
import pytest
from scipy.stats import binomtest

from klarsicht.audit.verdicts.synthetic import unnamed_changes
from klarsicht.audit.verdicts.synthetic.unnamed_changes import UNNAMED, draw_curve, draw_soft_light, draw_warp

SHAPES = ((28, 28), (32, 32, 3), (40, 64, 3), (90, 70))


def rng(seed=0):
    return np.random.default_rng(seed)


def scene(shape, seed=0):
    return rng(seed).integers(30, 220, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", UNNAMED)
def test_the_mask_is_exactly_what_changed_and_a_seed_draws_the_same(name, shape):
    for seed in range(6):
        pixels = scene(shape, seed)
        before = pixels.tobytes()
        found = UNNAMED[name](rng(seed))(pixels, rng(seed))
        assert pixels.tobytes() == before
        assert found.pixels.shape == shape and found.pixels.dtype == np.uint8
        np.testing.assert_array_equal(found.mask, (found.pixels != pixels).reshape(*shape[:2], -1).any(2))
        assert found.mask.any()
        assert UNNAMED[name](rng(seed))(pixels, rng(seed)).pixels.tobytes() == found.pixels.tobytes()


@pytest.mark.parametrize("name", UNNAMED)
def test_a_grey_image_is_changed_as_one_of_equal_channels(name):
    for seed in range(20):
        grey = scene((32, 40), seed)
        colour = UNNAMED[name](rng(seed))(np.repeat(grey[..., None], 3, 2), rng(seed)).pixels
        alone = UNNAMED[name](rng(seed))(grey, rng(seed)).pixels
        assert abs(colour.mean(2) - alone).max() <= 1  # three roundings against one


def test_half_of_the_curves_rise_by_construction_and_others_fall_somewhere():
    curves = [draw_curve(rng(seed)) for seed in range(400)]
    assert all(curve.shape == (256,) and curve.min() >= 0 and curve.max() <= 255 for curve in curves)
    rising = sum(bool((np.diff(curve) >= -1e-9).all()) for curve in curves)
    assert 170 <= rising <= 340  # 200 in the mean, and those of which noise left the points in order


def test_an_unclipped_curve_goes_through_its_points():
    """Of a draw that rises: increments of 255 by a Dirichlet draw, at three to six levels evenly apart."""
    for seed in range(60):
        known = rng(seed)
        knots = np.linspace(0, 255, int(known.integers(3, 7)))
        if known.random() < 0.5:
            through = np.cumsum(known.dirichlet(np.full(len(knots), 2.0))) * 255
            found = np.interp(knots, np.arange(256), draw_curve(rng(seed)))
            whole = knots == np.rint(knots)
            np.testing.assert_allclose(found[whole], through[whole], atol=1e-9)


def test_soft_light_enters_at_every_side_alike(monkeypatch):
    """On an even image, by symmetry each side of the frame is changed as much as the others in the mean."""
    monkeypatch.setattr(unnamed_changes, "pick", lambda *_: lambda x: x + 100)
    even = np.full((32, 32, 3), 100, np.uint8)
    sides = []
    for seed in range(600):
        opacity = (draw_soft_light(rng(seed))(even, rng(10_000 + seed)).pixels[..., 0] - 100.0) / 100
        assert opacity.min() >= 0 and opacity.max() <= 1
        sides.append([opacity[:6].mean(), opacity[-6:].mean(), opacity[:, :6].mean(), opacity[:, -6:].mean()])
    sides = np.array(sides)
    apart = sides - sides.mean(1, keepdims=True)
    assert (abs(apart.mean(0)) < 4 * apart.std(0) / np.sqrt(len(apart))).all()
    assert (sides.max(1) - sides.min(1) > 0.3).mean() > 0.5  # though each draw lies at some side


def test_a_mask_covers_the_share_that_was_drawn(monkeypatch):
    """Of a form that is not inverted, the middle line of the edge holds 12 to 70 % of the image; otherwise the rest."""
    monkeypatch.setattr(unnamed_changes, "pick", lambda *_: lambda x: x + 100)
    even = np.full((40, 40, 3), 100, np.uint8)
    for seed in range(80):
        covered = (draw_soft_light(rng(seed))(even, rng(seed)).pixels[..., 0] > 150).mean()
        assert 0.12 - 0.03 <= covered <= 0.88 + 0.03


def test_two_masks_in_three_lie_elsewhere_in_every_image(monkeypatch):
    monkeypatch.setattr(unnamed_changes, "pick", lambda *_: lambda x: x + 100)
    even = np.full((28, 28, 3), 100, np.uint8)
    moved = 0
    for seed in range(200):
        put = draw_soft_light(rng(seed))
        moved += put(even, rng(1)).pixels.tobytes() != put(even, rng(2)).pixels.tobytes()
    assert binomtest(moved, 200, 0.65).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(64, 64), (48, 96)], ids=str)
def test_a_warp_shifts_by_what_its_bounds_say(shape):
    """Read off two ramps, which linear interpolation reproduces: the place from which each pixel comes. Beyond the
    edge nothing comes from, so of the pixels that stay inside the shift is at most that of all, and it is smooth."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([2 * rows, 2 * columns, 0 * rows], -1).astype(np.uint8)
    for seed in range(20):
        moved = draw_warp(rng(seed))(pixels, rng(0)).pixels.astype(float) / 2
        away = moved[..., :2] - np.stack([rows, columns], -1)
        inside = ((moved[..., :2] > 0.5) & (moved[..., :2] < np.array(shape) - 1.5)).all(-1)
        rms = np.sqrt((away[inside] ** 2).sum(-1).mean()) / min(shape)
        assert 0.003 < rms < 0.09
        second = away[2:, :, :] - 2 * away[1:-1] + away[:-2]
        steady = inside[2:] & inside[1:-1] & inside[:-2]
        assert abs(second[steady]).max() < 1.5  # half a level of rounding, thrice, and the curvature
