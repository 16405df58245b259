"""Sinograms against sorted projections of turned points, written out; and laws of the least over rotations."""

import numpy as np
import pytest

from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.sinograms import ANGLES, QUANTILES, Sinograms
from klarsicht.numerics.transport.sliced import quantile_means


def clouds(n, P=64, seed=0):
    rng = np.random.default_rng(seed)
    spread = np.eye(2) + rng.normal(0, 0.5, (n, 2, 2))
    return PointMeasures.of(rng.standard_normal((n, P, 2)) ** 3 @ spread).scale()


def turn(points, angle, mirror=False):
    c, s = np.cos(angle), np.sin(angle)
    points = points * (1, -1) if mirror else points
    return points @ np.array([[c, s], [-s, c]])


def shadows(points, angles):
    """(A, QUANTILES): projections of (P, 2), sorted and averaged, one direction at a time."""
    means = quantile_means(len(points), QUANTILES)
    return np.stack([np.sort(points @ (np.cos(a), np.sin(a))) @ means for a in angles])


def literal(x, y, turns):
    """Least over turns of 2 mean over directions and quantiles of squared differences."""
    circle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    there = shadows(y, circle)
    return min(2 * ((shadows(turn(x, *t), circle) - there) ** 2).mean() for t in turns)


COARSE = [2 * np.pi * s / ANGLES for s in range(ANGLES)]


@pytest.mark.parametrize("reflection", [False, True])
def test_distances_equal_the_literal_least_over_coarse_turns(reflection):
    measures = clouds(7)
    found = Sinograms.of(measures).distances(slice(1, 4), reflection).numpy()
    points = measures.points.astype(np.float64)
    turns = [(a, m) for a in COARSE for m in ((False, True) if reflection else (False,))]
    expected = [[literal(points[i], points[j], turns) for j in range(7)] for i in range(1, 4)]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
def test_align_is_near_a_search_in_quarter_degrees_and_never_above_the_coarse_one():
    measures = clouds(10, seed=1)
    sinograms, (i, j) = Sinograms.of(measures), np.triu_indices(10, 1)
    cost = sinograms.refined_distances(i, j)
    coarse = sinograms.distances(slice(0, 10)).numpy()[i, j]
    assert (cost <= coarse + 1e-5).all()
    points, fine = measures.points.astype(np.float64), [(np.deg2rad(q / 4),) for q in range(1440)]
    some = slice(0, 45, 5)
    best = [literal(points[a], points[b], fine) for a, b in zip(i[some], j[some], strict=True)]
    np.testing.assert_allclose(cost[some], best, rtol=0.02, atol=1e-3)


def test_a_turned_measure_costs_nothing_between_the_steps():
    measures, angle = clouds(6, seed=2), np.linspace(-3, 3, 6)
    moved = [turn(p, a) for p, a in zip(measures.points, angle, strict=True)]
    both = Sinograms.of(PointMeasures.of(np.concatenate([measures.points, moved])))
    assert both.refined_distances(np.arange(6), np.arange(6, 12)).max() < 1e-3


def test_multiples_of_the_step_cost_nothing_and_between_them_little():
    """11.25 degrees and their multiples within 1e-5; in between, a small part of what other shapes are away."""
    measures = clouds(8, seed=3)
    step = 2 * np.pi / ANGLES
    others = Sinograms.of(measures).distances(slice(0, 8)).numpy()
    np.fill_diagonal(others, np.inf)
    nearest = others.min(1)
    for angle, share in ((5 * step, 0), (5.5 * step, 0.35), (5.25 * step, 0.25)):
        moved = np.stack([turn(p, angle) for p in measures.points])
        both = Sinograms.of(PointMeasures.of(np.concatenate([measures.points, moved])))
        own = both.distances(slice(0, 8)).numpy()[np.arange(8), np.arange(8, 16)]
        assert (own <= share * nearest + 1e-5).all()
