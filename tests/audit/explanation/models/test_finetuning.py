"""A copy learns, the model stays: frozen parts, norms and the caller's state are what they must be."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.finetuning import TRAINING_BATCH, ClassificationTask, Training
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.ground.errors import ModelError, UsageError

N, SIDE = 80, 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Dark pictures and bright ones, two classes."""
    folder = tmp_path_factory.mktemp("shades")
    rng = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 60)):
        (folder / name).mkdir()
        for i in range(N // 2):
            pixels = np.clip(rng.normal(level, 20, (SIDE, SIDE)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return open_corpus(folder)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(4 * 36, 2)
    ).eval()


def taught(corpus, module, training=None, seed=0):
    classifier = load_model(module, classes=["bright", "dark"])
    lesson = ClassificationTask(InputImages.of(corpus, classifier), np.arange(N), np.repeat([0, 1], N // 2), seed)
    return lesson, (training or Training(8, 1e-2))(classifier, lesson)


def accuracy(classifier, lesson):
    with torch.no_grad():
        answers = classifier.logits(lesson.input_images.pixel_scale.inputs(lesson.input_images(lesson.rows))).argmax(1)
    return float((answers.numpy() == lesson.truth).mean())


def test_a_copy_learns_and_the_model_stays_as_it_was_to_the_bit(corpus):
    module = network()
    before, flags, random = copy.deepcopy(module.state_dict()), [m.training for m in module.modules()], torch.rand(1)
    torch.manual_seed(7)
    lesson, learned = taught(corpus, module)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(7)) != random
    assert accuracy(learned, lesson) == 1.0
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert [m.training for m in module.modules()] == flags and all(p.requires_grad for p in module.parameters())
    assert all(p.grad is None for p in module.parameters())
    assert not torch.equal(learned.module[1].running_mean, module[1].running_mean)  # norms are in training mode
    assert not any(m.training for m in learned.module.modules())


def test_the_same_seed_teaches_the_same_and_another_seed_otherwise(corpus):
    a, b, c = (taught(corpus, network(), Training(1), seed)[1].module[0].weight for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_what_is_frozen_stays_so(corpus):
    module = network()
    module[0].requires_grad_(False)
    _, learned = taught(corpus, module, Training(1))
    assert torch.equal(learned.module[0].weight, module[0].weight)
    assert not torch.equal(learned.module[5].weight, module[5].weight)


def test_every_image_is_shown_once_an_epoch(corpus):
    classifier = load_model(network())
    lesson = ClassificationTask(InputImages.of(corpus, classifier), np.arange(N), np.arange(N), 0)
    assert lesson.steps == N // TRAINING_BATCH
    for epoch in (0, 1):
        shown = np.concatenate([lesson.batch(epoch * lesson.steps + i, 0)[1].numpy() for i in range(lesson.steps)])
        assert len(np.unique(shown)) == lesson.steps * TRAINING_BATCH
    first = lesson.batch(0, 0)
    picture = np.asarray(Image.open(corpus.paths[int(first[1][3])]), np.float32) / 255
    np.testing.assert_allclose(first[0][3, 0].numpy(), picture, atol=1e-6)
    assert not torch.equal(first[1], lesson.batch(lesson.steps, 0)[1])


def frozen():
    return network().requires_grad_(False)


def scripted():
    return nn.Sequential(torch.jit.trace(network()[:4], torch.zeros(1, 1, SIDE, SIDE)), *network()[4:])


@pytest.mark.parametrize(("made", "told"), [(frozen, "no parameter that learns"), (scripted, "TorchScript")])
def test_a_model_that_cannot_be_trained_is_refused(corpus, made, told):
    with pytest.raises(ModelError, match=told):
        taught(corpus, made(), Training(1))


@pytest.mark.parametrize("wrong", [(0, 1e-3), (-1, 1e-3), (1, 0.0), (1, float("nan"))])
def test_no_epochs_and_no_rate_are_refused(wrong):
    with pytest.raises(UsageError, match="out of range"):
        Training(*wrong)
