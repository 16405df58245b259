"""A turn of channels, whose inverse is known: images that are recognised get their answers back, others keep theirs."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from tests.audit.shortcut import TARGET, classifier, place, sample

from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.clarc import Gate, channel_features, open_gate
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.restoration import (
    CARRIER_FALSE_ALARMS,
    RIDGE_OF_SCORES,
    LayerRows,
    feature_axes,
    fit_discriminant,
    fit_restoration,
    read_rows,
)
from klarsicht.ground.errors import InputError

TURN = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # of channels 0 to 2


@dataclass(frozen=True)
class Turned:
    """Turns channels of every pixel, and adds a constant: affine, over the whole frame."""

    def fits(self, image):
        return True

    def put(self, images, rng):
        return torch.einsum("cd,ndhw->nchw", TURN, images) + 0.5, images


def put(images):
    return list(Turned().put(torch.stack(list(images)), None)[0])


def bench(insertion=None, **more):
    return FittingData(classifier(), TARGET, sample(300), insertion or Turned(), **more)


def rows_of(images, layer="last"):
    return read_rows(classifier(), images, layer, np.eye(4))


def opening(gate, a):
    return open_gate(a, {name: torch.as_tensor(value, dtype=a.dtype) for name, value in gate.parts.items()})


def test_the_map_gives_marked_activations_back_what_they_were():
    """The first convolution passes channels on, so the change is affine there, and its inverse is known."""
    images = sample(200, seed=1, members=0.0).images
    plain, marked = rows_of(images), rows_of(put(images))
    found = fit_restoration("last", plain, marked, np.zeros(200, bool), np.eye(4), np.random.default_rng(0))
    np.testing.assert_allclose(found.eraser(marked.positions), plain.positions, atol=0.02)
    assert np.abs(marked.positions - plain.positions).mean() > 0.3


def test_recognised_images_get_their_answers_back_and_others_keep_theirs_to_the_bit():
    made, images = (
        CLOSED["restore"].make(bench(), CorrectionParameters("last")),
        sample(400, seed=2, members=0.0).images,
    )
    net, under = classifier(), put(images)
    plain, marked = (compute_logits(net, some) for some in (images, under))
    after, restored = (compute_logits(net, some, made) for some in (images, under))
    assert (after == plain).all(1).mean() > 1 - 3 * CARRIER_FALSE_ALARMS
    known = (restored != marked).any(1)
    assert known.mean() > 0.9
    np.testing.assert_allclose(restored[known], plain[known], atol=0.1)
    np.testing.assert_array_equal(restored[~known], marked[~known])


def test_a_mark_in_the_corner_is_taken_away_too():
    data = FittingData(classifier(), TARGET, sample(300), place())
    test = CorrectionTest(classifier(), sample(300, seed=1), TARGET, place())
    found = test.evaluate(CLOSED["restore"].make(data, CorrectionParameters("last")))
    assert test.evaluate(None).flips.value > 0.5
    assert found.flips.value < 0.05
    assert found.harm.value <= 0.02


def test_more_strength_recognises_more_and_the_threshold_is_that_of_the_scores():
    data, images = bench(), put(sample(100, seed=3, members=0.0).images)
    made = [CLOSED["restore"].make(data, CorrectionParameters("last", 1, s)) for s in (0.5, 1.0, 20.0)]
    biases = [one.gate.bias for one in made]
    assert biases == sorted(biases)
    known = data._restorations["last"]
    share = CARRIER_FALSE_ALARMS * 20
    expected = max(np.quantile(known.scores, 1 - share), np.quantile(known.scores[known.own], 1 - 2 * share))
    assert -biases[2] == pytest.approx(expected)
    opened = [float(opening(one.gate, torch.stack(images).flatten(2).movedim(1, 2)).mean()) for one in made]
    assert opened == sorted(opened)


def test_features_are_means_maxima_and_correlations_of_numpy():
    a = np.random.default_rng(0).standard_normal((3, 20, 4)).astype(np.float32)
    axes = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    found = channel_features(torch.from_numpy(a), torch.from_numpy(axes)).numpy()
    for row, one in zip(found, a @ axes, strict=True):
        r = np.corrcoef(one.T)
        expected = [*one.mean(0), *(one.max(0) - one.mean(0)), r[0, 1], r[0, 2], r[1, 2]]
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_one_vector_an_image_has_means_alone():
    a = torch.rand(3, 1, 4)
    found = channel_features(a, torch.eye(4))
    torch.testing.assert_close(found[:, :4], a[:, 0])
    assert not found[:, 4:].any()
    gate = Gate(np.eye(1, 14, dtype=np.float32)[0], -0.5, np.eye(4, dtype=np.float32))
    assert torch.equal(opening(gate, a) > 0, a[:, 0, 0] > 0.5)


@pytest.mark.parametrize(("n", "features"), [(60, 7), (20, 50)])
def test_the_discriminant_is_scikit_learns_ridge(n, features):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, features)) * rng.uniform(0.1, 5, features) + 3, np.arange(n) % 3 == 0
    w, b = fit_discriminant(X, y)
    unit = (X - X.mean(0)) / X.std(0)
    theirs = Ridge(alpha=RIDGE_OF_SCORES * n).fit(unit, np.where(y, 1.0, -1.0))
    np.testing.assert_allclose(X @ w + b, theirs.predict(unit), atol=1e-6)


def test_pairs_are_read_at_the_same_positions():
    """Of an image more than 32 positions are drawn; a constant that is added is then the difference of all rows."""
    images = [torch.rand(4, 8, 9) for _ in range(5)] + [torch.rand(4, 9, 8) for _ in range(3)]
    plain, marked = rows_of(images), rows_of([image + 2 for image in images])
    assert plain.positions.shape == (8 * 32, 4)
    np.testing.assert_allclose(marked.positions - plain.positions, 2, atol=1e-5)
    whole = torch.stack(images[:5]).flatten(2)
    np.testing.assert_allclose(plain.features[:5, :4], whole.mean(2), atol=1e-5)


def test_many_channels_are_seen_along_the_artifacts_directions_and_the_largest_variances():
    rng = np.random.default_rng(0)
    variances = rng.permutation(100) + 1.0
    direction = np.zeros((100, 1))
    direction[variances.argmin()] = 1
    axes = feature_axes(np.diag(variances), direction)
    assert axes.shape == (100, 64)
    np.testing.assert_allclose(axes.T @ axes, np.eye(64), atol=1e-8)
    held = (axes**2).sum(1) > 0.5
    assert set(np.flatnonzero(held)) == {variances.argmin(), *np.argsort(-variances)[:63]}
    np.testing.assert_array_equal(feature_axes(np.diag(variances[:5]), direction[:5]), np.eye(5))


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(InputError, match="cannot be inserted into images"):
        CLOSED["restore"].make(FittingData(classifier(), TARGET, sample(60), None), CorrectionParameters("last"))
    few = LayerRows(np.zeros((19, 14)), np.zeros((19, 4)), np.zeros((19, 0, 4)), 1)
    with pytest.raises(InputError, match="at least 20"):
        fit_restoration("last", few, few, np.zeros(19, bool), np.eye(4), np.random.default_rng(0))
    same = LayerRows(np.zeros((30, 14)), np.zeros((30, 4)), np.zeros((30, 0, 4)), 1)
    with pytest.raises(InputError, match="changes nothing"):
        fit_restoration("last", same, same, np.zeros(30, bool), np.eye(4), np.random.default_rng(0))
