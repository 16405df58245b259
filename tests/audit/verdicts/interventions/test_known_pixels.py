"""Pixels by which an embedding knows an artifact: they are where it lies, and nothing else is put on."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.words import KNOWN_SHARES
from klarsicht.audit.verdicts.interventions import known_pixels
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.known_pixels import KnownPixels, integrate_gradients, select_largest

SCALE = PixelScale(np.zeros(3, np.float32), np.ones(3, np.float32))
SIDE = 5  # pixels of the mark
DARK = 77  # level of green that no other image has


def noise(n, seed=0):
    return np.random.default_rng(seed).integers(90, 150, (n, 32, 32, 3)).astype(np.uint8)


def marked(images, seed=1):
    """A red square at a place of its own in each, and its upper left pixels."""
    places, out = np.random.default_rng(seed).integers(0, 32 - SIDE, (len(images), 2)), images.copy()
    for x, (a, b) in zip(out, places, strict=True):
        x[a : a + SIDE, b : b + SIDE] = 250, 0, 0
    return out, places


class Redness(nn.Module):
    """Embedding that knows red, the mean over the image of red less green beyond 100, and blue."""

    def forward(self, x):
        red = torch.relu(x[:, 0] - x[:, 1] - 100).mean((1, 2))
        return torch.stack([red, x[:, 2].mean((1, 2)) / 100], 1)

    def embed(self, levels):
        with torch.no_grad():
            return self(torch.from_numpy(levels).permute(0, 3, 1, 2).float()).double().numpy()


class Nothing(Redness):
    def embed(self, levels):
        return np.random.default_rng(0).normal(size=(len(levels), 4))


@pytest.fixture(scope="module")
def examples():
    carriers, places = marked(noise(40))
    return ArtifactExamples(carriers, noise(60, 2), np.zeros((0, 2), np.intp), (0, 0)), places


@pytest.fixture(scope="module")
def ways(examples):
    return KnownPixels.ways(examples[0], SCALE, Redness())


def test_what_is_kept_lies_on_the_artifact(examples, ways):
    """The smallest mask has 5 % of the pixels, 51; the mark 25."""
    way, places = ways["known pixels"], examples[1]
    assert way.masks.mean((1, 2)) == pytest.approx(0.05, abs=0.012)
    inside = [m[a : a + SIDE, b : b + SIDE].mean() for m, (a, b) in zip(way.masks, places, strict=False)]
    assert len(inside) == known_pixels.GIVERS and np.mean(inside) > 0.9


def test_the_artifact_is_put_on_and_the_control_shows_others_under_the_same_masks(examples, ways):
    way, images = ways["more known pixels"], SCALE.inputs(noise(30, 5))
    with_artifact, control = way.put(images, np.random.default_rng(3))
    giver = np.random.default_rng(3).integers(len(way.donors), size=30)
    under = torch.from_numpy(way.masks[giver])[:, None].expand_as(images)
    assert torch.equal(with_artifact[~under], images[~under]) and torch.equal(control[~under], images[~under])
    assert torch.equal(with_artifact[under], SCALE.inputs(examples[0].carriers[giver])[under])
    red = [Redness().embed(np.stack([SCALE.levels(one) for one in some]))[:, 0] for some in (with_artifact, control)]
    assert red[0].min() > 0.5 * Redness().embed(examples[0].carriers)[:, 0].mean() and red[1].max() < 0.1


def test_rivals_show_one_other_image_under_the_masks(ways):
    way, images = ways["known pixels"], SCALE.inputs(noise(8, 5))
    rivals = list(way.rivals(images, np.random.default_rng(0), 3))
    assert len(rivals) == 3 and not torch.equal(rivals[0], rivals[1])
    changed = (rivals[0] != images).any(1).numpy()
    assert 0 < changed.mean((1, 2)).max() <= way.masks.mean((1, 2)).max()


def test_where_the_embedding_does_not_know_the_artifact_there_is_no_way(examples):
    assert KnownPixels.ways(examples[0], SCALE, Nothing()) == {}
    few = ArtifactExamples(examples[0].carriers[:3], examples[0].others, np.zeros((0, 2), np.intp), (0, 0))
    assert KnownPixels.ways(few, SCALE, Redness()) == {}


def test_a_share_at_which_the_artifact_is_not_recognised_is_no_way(examples):
    """By an embedding that is blind where a quarter to nine tenths of the pixels have the carriers' level of green."""

    class Forgetful(Redness):
        def embed(self, levels):
            pasted = (levels[..., 1] == DARK).mean((1, 2))
            return super().embed(levels) * np.where((pasted > 0.25) & (pasted < 0.9), 0, 1)[:, None]

    carriers = examples[0].carriers.copy()
    carriers[..., 1] = np.where(carriers[..., 1] > 0, DARK, 0)
    found = ArtifactExamples(carriers, examples[0].others, np.zeros((0, 2), np.intp), (0, 0))
    assert KnownPixels.ways(found, SCALE, Redness()).keys() == KNOWN_SHARES.keys()
    assert KnownPixels.ways(found, SCALE, Forgetful()).keys() == {"known pixels", "more known pixels"}


def test_larger_images_are_pasted_at_their_own_size():
    large = np.kron(marked(noise(12))[0], np.ones((1, 3, 3, 1), np.uint8))
    plain = np.kron(noise(20, 2), np.ones((1, 3, 3, 1), np.uint8))
    found = ArtifactExamples(large, plain, np.zeros((0, 2), np.intp), (0, 0))
    way = KnownPixels.ways(found, SCALE, Redness())["known pixels"]
    red = large[..., 0] > 240
    assert way.masks.shape == (12, 96, 96) and (way.masks & red[:12]).sum() > 0.8 * red.sum()


def test_a_share_of_the_pixels_is_selected():
    values = np.arange(100.0).reshape(1, 10, 10)
    assert np.flatnonzero(select_largest(values, 0.2)).tolist() == list(range(80, 100))


class Squares(nn.Module):
    """Embedding by the mean of each channel's square, in levels."""

    def forward(self, x):
        return (x**2).mean((2, 3))


def test_parts_of_the_pixels_add_up_to_the_move():
    """Completeness (Sundararajan et al. 2017): of a square the part is the difference of the squares, and the midpoint
    rule integrates a linear gradient exactly."""
    images, direction = noise(3), np.array([1.0, -2.0, 0.5])
    parts = integrate_gradients(images, Squares(), direction)
    blurred = gaussian_filter(images.astype(float), (0, known_pixels.BLANKING_BLUR, known_pixels.BLANKING_BLUR, 0))
    expected = ((images.astype(float) ** 2 - blurred**2) @ direction) / 32**2
    np.testing.assert_allclose(parts, expected, atol=1e-3)
