"""The learned embedding: its loss rewritten slowly, its batches, its training in stages, and what it learns."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.detectors import artifact_embedding as embedding
from klarsicht.audit.verdicts.detectors.artifact_embedding import EmbeddingTraining, contrastive_loss, draw_batch
from klarsicht.audit.verdicts.detectors.bank import DETECTORS
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import plant_on_levels
from klarsicht.audit.verdicts.synthetic.unnamed_changes import UNNAMED
from klarsicht.numerics.statistics.split_half import draw_halves


def scenes(n, seed=0, channels=3, side=32):
    rng = np.random.default_rng(seed)
    layers = [gaussian_filter(rng.normal(0, 70 * s, (n, side, side, channels)), (0, s, s, 0)) for s in (0.7, 2, 5)]
    return np.clip(120 + sum(layers), 0, 255).round().astype(np.uint8)


@pytest.fixture
def short(monkeypatch):
    """A training of few steps on few images."""
    for name, value in {"STEPS": 6, "STAGES": 3, "CONTENT_GROUPS": 2, "DRAWS": 2}.items():
        monkeypatch.setattr(embedding, name, value)


def test_loss_is_the_mean_log_share_of_images_with_the_same_label():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(9, 5))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    label = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    total = 0.0
    for i in range(9):
        others = sum(math.exp(z[i] @ z[k] / 0.1) for k in range(9) if k != i)
        alike = [k for k in range(9) if k != i and label[k] == label[i]]
        total -= sum(math.log(math.exp(z[i] @ z[k] / 0.1) / others) for k in alike) / len(alike)
    found = contrastive_loss(torch.tensor(z), torch.tensor(label))
    assert found.item() == pytest.approx(total / 9, rel=1e-9)


def test_gradient_of_the_loss_is_finite_where_images_are_the_same():
    z = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    contrastive_loss(torch.nn.functional.normalize(z, dim=1), torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(z.grad).all()


def test_every_artifact_of_a_group_is_on_the_same_content():
    images = scenes(40)
    shown, label = draw_batch(images, ("stripe",), np.random.default_rng(0))
    size, draws = embedding.CONTENTS, embedding.DRAWS
    assert len(shown) == len(label) == embedding.CONTENT_GROUPS * size * (draws + 1)
    assert sorted(set(label)) == list(range(embedding.CONTENT_GROUPS * draws + 1))
    plain = shown[:size]
    assert label[:size] == [0] * size
    known = {image.tobytes() for flip in (images, images[:, :, ::-1]) for image in flip}
    assert all(image.tobytes() in known for image in plain)
    for draw in range(1, draws + 1):
        marked = shown[size * draw : size * (draw + 1)]
        changed = (marked != plain).any(3)
        assert len({one.tobytes() for one in changed}) == 1  # a stripe lies at one place in all images
        assert 0 < changed.mean() < 0.6


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_planted_without_families_of_colour(channels):
    grey = embedding.taught_families(channels)
    assert set(embedding.taught_families(3)) - set(grey) == {"hue", "white-balance"}
    images = scenes(8, channels=channels)
    rng = np.random.default_rng(0)
    for name in grey:
        assert plant_on_levels(images[0], FAMILIES[name](rng), rng).shape == (32, 32, channels)
    shown, _ = draw_batch(images, grey, rng)
    assert shown.shape[1:] == (32, 32, channels)
    assert embedding.ArtifactEmbedding(channels).embed(shown[:5]).shape == (5, 64)


def test_a_third_of_the_draws_have_no_name_and_the_families_are_drawn_alike():
    names = embedding.drawn_in_training(3)
    assert all(names.count(family) == 1 for family in FAMILIES if family != "mirror")
    unnamed = [name for name in names if name not in FAMILIES]
    assert set(unnamed) == set(UNNAMED) and len(unnamed) * 3 == len(names)
    assert len(embedding.drawn_in_training(1)) == len(names) - 2  # without hue and white balance


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_unnamed_change_is_on_all_images_of_its_group(channels):
    images = scenes(8, channels=channels)
    for name in UNNAMED:
        shown, label = draw_batch(images, (name,), np.random.default_rng(0), groups=2)
        assert shown.shape == (2 * embedding.CONTENTS * (embedding.DRAWS + 1), 32, 32, channels)
        groups = shown.reshape(2, embedding.DRAWS + 1, embedding.CONTENTS, *shown.shape[1:])
        assert (groups[:, 1:] != groups[:, :1]).any((3, 4, 5)).all() and max(label) == 2 * embedding.DRAWS


def test_rate_rises_to_its_peak_and_falls_to_nothing():
    rates = np.array([embedding.learning_rate(step, 1500) for step in range(1500)])
    top = int(rates.argmax())
    assert rates[top] == pytest.approx(3e-3, rel=1e-4) and top == pytest.approx(0.3 * 1500, abs=1)
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    assert rates[0] == pytest.approx(3e-3 / 20) and rates[-1] < 1e-7


def test_training_that_goes_on_from_a_stage_is_the_same_to_the_bit(short):
    images = scenes(30)
    whole, parts = (EmbeddingTraining(images, ("stripe", "random-tag"), 5) for _ in range(2))
    for stage in range(3):
        whole.run_stage(stage)
        parts.run_stage(stage)
        state, parts = parts.state(), EmbeddingTraining(images, ("stripe", "random-tag"), 5)
        parts.restore(state)
    assert whole.state() == parts.state()
    again = embedding.load_embedding(state)
    assert np.array_equal(again.embed(images), whole.network.embed(images))


def test_the_judge_does_not_shape_the_embedding(short):
    """Trained without it, the weights are the same to the bit."""
    images = scenes(30)
    with_judge, without = (EmbeddingTraining(images, ("stripe", "random-tag"), 5) for _ in range(2))
    without.network.judge = None
    for training in (with_judge, without):
        training.run_stage(0)
    judged, plain = with_judge.network.state_dict(), without.network.state_dict()
    assert all(torch.equal(judged[name], weights) for name, weights in plain.items())
    assert {name.split(".")[0] for name in judged.keys() - plain.keys()} == {"judge"}


def test_a_training_that_was_begun_without_a_judge_goes_on_without_one(short):
    """As of a run that was killed, and goes on by a version that has one: the same to the bit as if it had none."""
    images = scenes(30)
    begun, resumed = (EmbeddingTraining(images, ("stripe", "random-tag"), 5) for _ in range(2))
    begun.network.judge = None
    begun.optimizer = torch.optim.Adam(begun.network.parameters())
    begun.run_stage(0)
    resumed.restore(begun.state())
    for training in (begun, resumed):
        training.run_stage(1)
    assert resumed.state() == begun.state() and embedding.load_embedding(resumed.state()).judge is None


def test_the_log_odds_are_those_of_the_weights():
    """Rewritten: means and maxima over places, standardised, through two layers."""
    network = embedding.ArtifactEmbedding().eval()
    with torch.no_grad():
        network.judge[0].running_mean.uniform_(-1, 1), network.judge[0].running_var.uniform_(1, 2)
        images = scenes(7)
        fields = network.body((embedding.as_input(images) - 128) / 64).double().numpy()
    norm, first, _, last = network.double().judge
    x = np.concatenate([fields.mean((2, 3)), fields.max((2, 3))], 1)
    mean, variance = norm.running_mean.numpy(), norm.running_var.numpy()
    x = (x - mean) / np.sqrt(variance + norm.eps)
    x = np.maximum(x @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    expected = (x @ last.weight.detach().numpy().T + last.bias.detach().numpy())[:, 0]
    np.testing.assert_allclose(network.float().log_odds(images, block=3), expected, atol=1e-5)
    assert network.log_odds(images[:0]).shape == (0,)


def test_weights_without_a_judge_are_loaded_without_one():
    """Those that come along, and those of runs of earlier versions."""
    assert embedding.load_shipped_embedding().judge is None
    network = embedding.ArtifactEmbedding(4, judges=False)
    again = embedding.make_network(network.state_dict())
    images = scenes(5, channels=4)
    assert again.judge is None and np.array_equal(again.embed(images), network.embed(images))


@pytest.mark.parametrize(("images", "steps"), [(10_000, 1500), (1200, 1500), (400, 500), (8, 10)])
def test_no_image_is_shown_more_than_forty_times(images, steps):
    training = EmbeddingTraining(np.zeros((images, 28, 28, 3), np.uint8), ("stripe",), 0)
    contents = embedding.CONTENT_GROUPS * embedding.CONTENTS
    assert training.steps == steps and steps * contents <= 40 * images + contents


@pytest.mark.parametrize("file", [embedding.SHIPPED_FILE, embedding.REFERENCE_EMBEDDING_FILE])
def test_the_files_that_come_along_are_those_of_their_cards(file):
    card = json.loads(file.with_suffix(".json").read_text())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == card["sha256"] and file.stat().st_size == card["bytes"]
    assert set(card["families"]) == set(embedding.taught_families(3)) and card["bytes"] < 2**18


@pytest.mark.parametrize("levels", [4, 6])
def test_posterised_pictures_lie_together_though_no_family_posterises(levels):
    """Whatever they show. By chance the posterised one of two others would be the nearer as often as not."""
    network, plain = embedding.load_shipped_embedding(), scenes(40)
    marked = (np.rint(plain / (255 / levels)) * (255 / levels)).astype(np.uint8)
    a, b, clean = network.embed(marked[:20]), network.embed(marked[20:]), network.embed(plain[20:])
    assert ((a @ b.T) > (a @ clean.T)).mean() > 0.9
    np.testing.assert_allclose(np.linalg.norm(clean, axis=1), 1, rtol=1e-5)


def test_the_global_generator_is_left_alone(short):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    EmbeddingTraining(scenes(10), ("stripe",), 0).run_stage(0)
    assert torch.equal(before, torch.get_rng_state())


def test_embedding_does_not_depend_on_the_block_and_restores_the_mode():
    network, images = embedding.ArtifactEmbedding(), scenes(10)
    network.train()
    whole, blocks = network.embed(images), network.embed(images, block=3)
    assert np.allclose(whole, blocks, atol=1e-6) and network.training
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    assert network.embed(images[:0]).shape == (0, 64)


@pytest.mark.slow
def test_images_with_the_same_artifact_are_alike_whatever_they_show(monkeypatch):
    """Taught on two families, tags, which were never taught, are nearer to each other than to clean images."""
    for name, value in {"STEPS": 40, "STAGES": 1, "CONTENT_GROUPS": 2, "DRAWS": 3}.items():
        monkeypatch.setattr(embedding, name, value)
    training = EmbeddingTraining(scenes(300), ("caption", "logo"), 0)
    untrained = training.network.embed(scenes(80, 1))
    training.run_stage(0)
    rng, fresh = np.random.default_rng(1), scenes(80, 1)
    artifact = FAMILIES["random-tag"](rng)
    marked = np.stack([artifact(image, rng).pixels for image in fresh[:20]])
    z = training.network.embed(np.concatenate([marked, fresh[20:]]))
    similarity = z[:10] @ z[10:].T  # ten carriers with ten others, and with 60 clean images
    carriers, clean = similarity[:, :10], similarity[:, 10:]
    assert (carriers.ravel()[:, None] > clean.ravel()).mean() > 0.9
    assert not np.allclose(untrained[20:], z[20:])
    odds = training.network.log_odds(np.concatenate([marked, fresh[20:]]))
    assert (odds[:20, None] > odds[20:]).mean() > 0.9


class Marks(embedding.ArtifactEmbedding):
    """Stands for a network that has learned: places images by the level of their first pixel."""

    def embed(self, levels, block=256):
        rng = np.random.default_rng(0)
        place = rng.normal(0, 0.1, (len(levels), 8))
        place[:, 0] += levels[:, 0, 0, 0] == 255
        return place


def test_carriers_that_the_embedding_sets_apart_are_named():
    rng = np.random.default_rng(0)
    own, pool = rng.integers(0, 200, (100, 30, 30, 3), np.uint8), rng.integers(0, 200, (600, 30, 30, 3), np.uint8)
    own[:12, 0, 0] = 255
    stacks = ImageStack(own), ImageStack(pool)
    images = ClassImages(*stacks, np.ones(600, bool), draw_halves(100, rng), np.arange(100), embedding=Marks())
    strict, lenient = DETECTORS["embedding"](images, "embedding")
    assert [strict.name, lenient.name] == ["embedding 0.002", "embedding 0.01"]
    (means,) = DETECTORS["embedding-means"](images, "embedding-means")
    for found in (strict, lenient):
        assert found.members.tolist() == list(range(12)) and found.score > 5
    assert (means.name, means.members.tolist()) == ("embedding-means 0.002", list(range(12))) and means.score > 0


def test_an_artifact_that_other_classes_hold_is_seen_by_the_lenient_edge_only():
    rng = np.random.default_rng(0)
    own, pool = rng.integers(0, 200, (100, 30, 30, 3), np.uint8), rng.integers(0, 200, (1000, 30, 30, 3), np.uint8)
    own[:20, 0, 0], pool[:6, 0, 0] = 255, 255
    stacks = ImageStack(own), ImageStack(pool)
    images = ClassImages(*stacks, np.ones(1000, bool), draw_halves(100, rng), np.arange(100), embedding=Marks())
    strict, lenient = DETECTORS["embedding"](images, "embedding")
    assert lenient.score > 5 > strict.score and lenient.members.tolist() == list(range(20))


def test_carriers_of_one_other_class_hide_no_difference_of_means_where_classes_are_known():
    """Twenty carriers lie in one of twenty other classes, which is left out, or one in each, as in any class."""
    rng = np.random.default_rng(0)
    own, pool = rng.integers(0, 200, (100, 30, 30, 3), np.uint8), rng.integers(0, 200, (1000, 30, 30, 3), np.uint8)
    own[:20, 0, 0], pool[:20, 0, 0] = 255, 255
    halves, number = draw_halves(100, rng), np.arange(100)

    def score(name, classes):
        stacks = ImageStack(own), ImageStack(pool)
        images = ClassImages(*stacks, np.ones(1000, bool), halves, number, embedding=Marks(), pool_classes=classes)
        return next(iter(DETECTORS[name](images, name))).score

    together, apart = np.arange(1000) // 50, np.arange(1000) % 20
    assert score("embedding-means", together) > 5 > score("embedding-means", apart)
    assert score("embedding", together) == score("embedding", apart) == score("embedding", None)


def test_without_an_embedding_nothing_is_found():
    own = ImageStack(scenes(30))
    images = ClassImages(own, own, np.ones(30, bool), draw_halves(30, np.random.default_rng(0)), np.arange(30))
    assert [(d.score, len(d.members)) for d in DETECTORS["embedding"](images, "embedding")] == [(0, 0), (0, 0)]
