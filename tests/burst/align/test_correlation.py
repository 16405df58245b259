"""Correlations against literal sums, peaks against known sub-pixel shifts, probabilities against closed forms."""

import math

import numpy as np
import pytest
import torch

from klarsicht.burst.align.correlation import TAPER, best_shift, confidence, correlate, correlate_tiles, shift_prior


def taper(length):
    ends = [min(p + 0.5, length - p - 0.5) / (TAPER * length) for p in range(length)]
    return np.array([0.5 - 0.5 * math.cos(math.pi * min(1, end)) for end in ends])


def literal_sum(t, f, dy, dx):
    H, W = t.shape
    pairs = (t[y, x] * f[y + dy, x + dx] for y in range(H) for x in range(W) if 0 <= y + dy < H and 0 <= x + dx < W)
    return sum(pairs)


def test_scores_are_sums_over_the_overlap():
    rng = np.random.default_rng(0)
    t, f = rng.standard_normal((2, 14, 17)).astype(np.float32)
    prior = torch.from_numpy(rng.standard_normal((7, 7)).astype(np.float32))
    scores = correlate(torch.from_numpy(t), torch.from_numpy(f), 3, prior).scores
    tapered = t * taper(14)[:, None] * taper(17)
    expected = [[literal_sum(tapered, f, dy, dx) for dx in range(-3, 4)] for dy in range(-3, 4)]
    np.testing.assert_allclose(scores - prior, expected, atol=1e-4)


def test_tile_scores_are_their_sums():
    rng = np.random.default_rng(1)
    tile, wide = rng.standard_normal((6, 6)).astype(np.float32), rng.standard_normal((10, 10)).astype(np.float32)
    scores = correlate_tiles(torch.from_numpy(tile), torch.from_numpy(wide), torch.tensor(0.3))
    for dy in range(5):
        for dx in range(5):
            window = wide[dy : dy + 6, dx : dx + 6]
            assert scores[dy, dx].item() == pytest.approx((tile * window).sum() - 0.15 * (window**2).sum(), abs=1e-4)


def spot(y, x, size=48, width=2.5):
    rows, columns = np.arange(size)[:, None] - size / 2 - y, np.arange(size) - size / 2 - x
    return torch.from_numpy(np.exp(-(rows**2 + columns**2) / (2 * width**2)).astype(np.float32))


@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (0.5, -0.5), (3.3, -2.7), (-5.49, 4.01)])
def test_the_peak_is_found_between_pixels(y, x):
    fit = correlate(spot(0, 0), spot(y, x), 8, torch.zeros(17, 17))
    np.testing.assert_allclose(fit.best_shift(), [y, x], atol=2e-3)


def test_a_parabola_is_found_exactly():
    d = torch.arange(-4.0, 5)
    scores = -((d[:, None] - 1.3) ** 2) - 2 * (d + 2.2) ** 2
    np.testing.assert_allclose(best_shift(scores), [1.3, -2.2], atol=1e-5)


def test_flat_scores_move_nothing_between_pixels():
    assert torch.isfinite(best_shift(torch.zeros(2, 9, 9))).all()
    blank = correlate(torch.zeros(1, 16, 16), torch.zeros(1, 16, 16), 4, shift_prior(4, 1.0, 1.0, torch.zeros(2)))
    np.testing.assert_array_equal(blank.best_shift(), [[0, 0]])


def test_sureness_is_the_share_of_probability():
    scores = torch.full((9, 9), -1000.0)
    scores[2, 2], scores[2, 3], scores[7, 7] = math.log(5), math.log(1), math.log(2)
    assert confidence(scores).item() == pytest.approx(6 / 8)
    assert confidence(torch.zeros(9, 9)).item() == pytest.approx(
        4 / 81
    )  # ties: the first, a corner with its neighbours


def test_the_prior_is_its_formula():
    prior = shift_prior(2, 3.0, 1.5, torch.tensor([0.25, -0.5]))
    for y, x in ((2, 2), (0, 3), (4, 1)):
        away = (y - 2 - 0.25) ** 2 + (x - 2 + 0.5) ** 2
        assert prior[y, x].item() == pytest.approx(-1.5 * math.log(1 + away / 9))
