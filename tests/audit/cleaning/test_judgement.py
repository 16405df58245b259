"""A correction that only unlearns what a network knows by heart: lost on its own images, nothing lost on others."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from klarsicht.audit.cleaning.judgement import Judgement
from klarsicht.audit.cleaning.training_images import UNKNOWN, Answers, recognise_training_images
from klarsicht.audit.corrections.clarc import Erasure
from klarsicht.audit.corrections.harm import HARMFUL, NOT_PROVEN, Bounds
from klarsicht.audit.corrections.outcomes import CorrectionTest
from klarsicht.audit.corrections.samples import Sample
from klarsicht.audit.models.classifier import load_model
from klarsicht.numerics.erasure import Eraser

TRAINED = 400


@pytest.fixture(scope="module")
def by_heart():
    """Digits whose labels are wrong in one of eight, and a network that learned the first 400 by heart."""
    rng, torch_rng = np.random.default_rng(0), torch.random.get_rng_state()
    x, y = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = torch.from_numpy(x[order] / 16).float().reshape(-1, 1, 8, 8), y[order]
    y = np.where(rng.random(len(y)) < 0.125, rng.integers(0, 10, len(y)), y)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
    torch.random.set_rng_state(torch_rng)
    optimiser, labels = torch.optim.Adam(net.parameters(), 3e-3), torch.from_numpy(y)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[:TRAINED]), labels[:TRAINED]).backward()
        optimiser.step()
    return load_model((net.eval(), lambda image: image)), x, y


def judged(by_heart, rows, correction, looked_at=True):
    classifier, x, y = by_heart
    sample = Sample([x[i] for i in rows], np.zeros(len(rows), bool), rows, y[rows])
    test = CorrectionTest(classifier, sample, 0, None)
    origin = recognise_training_images(Answers.of(test.plain, test.truth)) if looked_at else UNKNOWN
    return Judgement(test.evaluate(None), test.evaluate(correction), Bounds(), origin)


def unlearning(by_heart, strength):
    """An erasure of eight random directions before the head."""
    v = np.linalg.qr(np.random.default_rng(1).standard_normal((64, 8)))[0]
    classifier, x, _ = by_heart
    with torch.no_grad():
        z = classifier.module[:5](x[:TRAINED]).mean(0).numpy()
    return Erasure("5", Eraser(v, v.T, z), strength)


def test_a_loss_of_what_was_learned_by_heart_is_not_called_harm(by_heart):
    """As a stripe's correction was: 1.75 points lost on 400 images trained on, -.02 on 4,500 others."""
    correction = unlearning(by_heart, 1.0)
    own, other = np.arange(TRAINED), np.arange(TRAINED, len(by_heart[1]))
    there, elsewhere = (judged(by_heart, rows, correction) for rows in (own, other))
    print(there.after.harm, elsewhere.after.harm, there.after.expected)
    assert there.after.harm.value > 2 * there.bounds.overall
    assert there.origin.trained_on
    assert not elsewhere.origin.trained_on
    assert there.harm.losses[0].answer == NOT_PROVEN
    assert "images that it was not trained on" in there.harm.reasons
    assert abs(elsewhere.after.harm.value) < there.bounds.overall


def test_real_harm_is_called_so_on_images_trained_on_too(by_heart):
    broken = unlearning(by_heart, 8.0)
    own, other = np.arange(TRAINED), np.arange(TRAINED, len(by_heart[1]))
    assert judged(by_heart, other, broken).harm.answer == HARMFUL
    assert judged(by_heart, own, broken).harm.answer == HARMFUL
