"""Shadows and starting rotations against direct sums over turned point sets."""

import numpy as np
import pytest
from numba import njit

from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.rotations import (
    ANGLES,
    QUANTILES,
    Shapes,
    best_rotations,
    correlate,
    minimum_over_rotations,
    pick,
    rotate_points,
)
from klarsicht.numerics.transport.sliced import quantile_means


def turn(points, angle, sign=1):
    """Rows (x, y) -> R (sign x, y)."""
    R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points * [sign, 1]) @ R.T


@njit
def _correlate(S, T):
    score = np.empty((2, len(S)), np.float32)
    correlate(S, T, score)
    return score


@njit
def _pick(score, mirrors, n):
    turns = np.zeros((n, 3), np.float32)
    pick(score, mirrors, np.float32(1), np.float32(np.inf), turns)
    return turns


def sliced_product(x, y):
    """sum over half a circle of the products of quantile means of sorted projections."""
    angles = 2 * np.pi * np.arange(ANGLES // 2) / ANGLES
    u = np.stack([np.cos(angles), np.sin(angles)])
    a, b = (np.sort(z @ u, 0).reshape(QUANTILES, -1, ANGLES // 2).mean(1) for z in (x, y))
    return (a * b).sum()


@pytest.mark.parametrize("mirror", [0, 1])
def test_a_shift_is_a_rotation_and_a_mirror_reads_backwards(mirror):
    x, y = np.random.default_rng(0).standard_normal((2, 64, 2))
    shapes = Shapes.of(PointMeasures.of(np.stack([x, y])))
    score = _correlate(shapes.projections[0], shapes.projections[1])[mirror]
    direct = [sliced_product(turn(x, -2 * np.pi * s / ANGLES, 1 - 2 * mirror), y) for s in range(ANGLES)]
    np.testing.assert_allclose(score, direct, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0, -1.3])
def test_the_best_turn_undoes_a_turn_to_two_degrees(angle, sign):
    x = np.random.default_rng(1).standard_normal((64, 2)) * [3, 1] + np.linspace(0, 1, 64)[:, None] ** 2
    shapes = Shapes.of(PointMeasures.of(np.stack([x, turn(x, angle, sign)])).centre())
    cos, sin, found = best_rotations(shapes, np.array([0]), np.array([1]), reflection=True, n_starts=1)[0, 0]
    assert found == sign
    assert abs(np.angle(complex(cos, sin) / np.exp(1j * angle))) < np.deg2rad(2)


@pytest.mark.parametrize("within", [1.0, 1.2, 1.5, 3.0])
def test_starts_are_those_within_a_factor_of_the_least_sliced_distance(within):
    """Against sums over turned points at every step of the circle; a summit between steps is a little lower."""
    x = np.random.default_rng(3).standard_normal((2, 64, 2)) * [2, 1]
    shapes = Shapes.of(PointMeasures.of(x).centre())
    x, y = shapes.points.astype(float)
    all_turns = best_rotations(shapes, np.array([0]), np.array([1]), reflection=True, n_starts=8)[0]
    full = (sliced_product(x, x) + sliced_product(y, y)) / 2
    far = np.array(
        [full - sliced_product(turn(x, np.arctan2(s, c), m), y) for c, s, m in all_turns[all_turns[:, 2] != 0]]
    )
    assert (np.abs(far / (within * far[0]) - 1) > 0.02).all() or within == 1  # no start is on the edge
    found = best_rotations(shapes, np.array([0]), np.array([1]), reflection=True, n_starts=8, within=within)[0]
    kept = max(1, int((far <= within * far[0]).sum()))
    assert np.count_nonzero(found[:, 2]) == kept
    np.testing.assert_array_equal(found[:kept], all_turns[:kept])


def test_turns_come_highest_first_and_no_more_than_there_are_summits():
    score = np.zeros((2, ANGLES), np.float32)
    score[0], score[1] = -np.abs(np.arange(ANGLES) - 8), -1 - np.abs(np.arange(ANGLES) - 16)
    turns = _pick(score, 2, 8)
    np.testing.assert_allclose(turns[:2], [[0, -1, 1], [-1, 0, -1]], atol=1e-6)
    assert (turns[2:] == 0).all() and (_pick(score, 1, 8)[1:] == 0).all()


def test_equal_scores_still_give_a_turn():
    assert _pick(np.zeros((2, ANGLES), np.float32), 2, 3)[0, 2] == 1


def test_turned_is_a_matrix_product():
    rng = np.random.default_rng(3)
    points, angles, signs = rng.standard_normal((4, 2, 9, 2)), rng.uniform(0, 7, 4), np.array([1, -1, -1, 1])
    turns = np.stack([np.cos(angles), np.sin(angles), signs], 1)
    wanted = [[turn(x, a, s) for x in both] for both, a, s in zip(points, angles, signs, strict=True)]
    np.testing.assert_allclose(rotate_points(points, turns), wanted)


def test_least_over_leaves_out_what_is_no_turn():
    turns = np.zeros((3, 2, 3))
    turns[:, 0], turns[1, 1] = (1, 0, 1), (0, 1, -1)
    asked = []

    def value(pairs, turn):
        asked.append(pairs.tolist())
        return pairs + 10.0 - 5 * turn[:, 1]

    np.testing.assert_array_equal(minimum_over_rotations(turns, value), [10, 6, 12])
    assert asked == [[0, 1, 2], [1]]


@pytest.mark.parametrize(("P", "q"), [(1, 1), (5, 3), (64, 16), (50, 16)])
def test_quantile_means_keep_the_mean_and_are_integrals(P, q):
    """Against a fine sampling of the step function."""
    x = np.sort(np.random.default_rng(P).standard_normal(P))
    fine = x[np.arange(P * q * 20) // (q * 20)].reshape(q, -1).mean(1)
    np.testing.assert_allclose(x @ quantile_means(P, q), fine, atol=1e-6)
