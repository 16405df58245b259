"""The robust affine field against a slow rewrite with numpy's least squares, and its laws."""

import numpy as np
import pytest
import torch

from klarsicht.burst.align.regularise import (
    FRAME_WEIGHT,
    NO_ROTATION_WEIGHT,
    OUTLIER_DISTANCE,
    REWEIGHTINGS,
    regularise_shifts,
)

Y, X = 6, 9


def turned(rng, offset=0.0):
    """An affine field (Y, X, 2)."""
    y, x = np.linspace(-1, 1, Y)[:, None], np.linspace(-1, 1, X)
    slopes = rng.normal(0, 0.6, (2, 2))
    return np.stack([offset + a * y + b * x for a, b in slopes], -1)


def literal(found, sureness):
    """Prior and tiles as rows of one system, each times the root of its weight."""
    y, x = np.meshgrid(np.linspace(-1, 1, Y), np.linspace(-1, 1, X), indexing="ij")
    rows = np.stack([np.ones(Y * X), y.ravel(), x.ravel()], -1)
    d, weight = found.reshape(-1, 2), sureness.ravel().copy()
    roots = np.sqrt([FRAME_WEIGHT, NO_ROTATION_WEIGHT, NO_ROTATION_WEIGHT])
    for _ in range(REWEIGHTINGS):
        system = np.concatenate([np.sqrt(weight)[:, None] * rows, np.diag(roots)])
        answer = np.concatenate([np.sqrt(weight)[:, None] * d, np.zeros((3, 2))])
        field = rows @ np.linalg.lstsq(system, answer, rcond=None)[0]
        weight = sureness.ravel() / (1 + ((d - field) ** 2).sum(-1) / OUTLIER_DISTANCE**2) ** 2
    r = d - field
    kept = (r**2).sum(-1, keepdims=True) ** 2 / OUTLIER_DISTANCE**4
    return (field + r * kept / (1 + kept)).reshape(found.shape)


def test_it_is_least_squares_reweighted():
    rng = np.random.default_rng(0)
    found = turned(rng) + rng.normal(0, 0.4, (2, 3, Y, X, 2))
    sureness = rng.random((2, 3, Y, X))
    ours = regularise_shifts(torch.from_numpy(found).float(), torch.from_numpy(sureness).float())
    for b in range(2):
        for n in range(3):
            np.testing.assert_allclose(ours[b, n], literal(found[b, n], sureness[b, n]), atol=1e-4)


@pytest.mark.parametrize("deviation", [0.1, 0.25])
def test_what_a_camera_does_is_told_far_more_exactly_than_by_tiles(deviation):
    rng = np.random.default_rng(1)
    field = turned(rng)
    found = field + rng.normal(0, deviation, field.shape)
    ours = regularise_shifts(torch.from_numpy(found)[None, None].float(), torch.ones(1, 1, Y, X))[0, 0].numpy()
    assert np.square(ours - field).mean() < 0.25 * np.square(found - field).mean()


def test_things_that_move_by_themselves_stay_where_they_are_and_move_nothing_else():
    rng = np.random.default_rng(2)
    field = turned(rng)
    found = field.copy()
    found[2:4, 3:6] += (4.0, -3.0)
    ours = regularise_shifts(torch.from_numpy(found)[None, None].float(), torch.ones(1, 1, Y, X))[0, 0].numpy()
    moving = np.zeros((Y, X), bool)
    moving[2:4, 3:6] = True
    assert np.abs(ours - found)[moving].max() < 0.02
    assert np.abs(ours - field)[~moving].max() < 0.15


def test_tiles_that_show_nothing_stay_with_their_frame():
    found = torch.full((1, 1, Y, X, 2), 0.3)
    assert regularise_shifts(found, torch.zeros(1, 1, Y, X)).abs().max() < 0.05
