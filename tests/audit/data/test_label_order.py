"""Labels numbered otherwise than the model's outputs are noticed; a poor model is not blamed for it."""

from itertools import permutations

import numpy as np
import pytest
import torch
from tests.audit.conftest import write_corpus
from torch import nn

from klarsicht.audit import pipeline
from klarsicht.audit.data.label_order import Order
from klarsicht.audit.models import classifier
from klarsicht.audit.report import page
from klarsicht.audit.settings import AuditSettings


def test_the_best_order_is_that_of_all_permutations():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    best = max(np.mean(np.array(order)[labels] == predicted) for order in permutations(range(4)))
    found = Order.of(labels, predicted, 4)
    assert found.best == pytest.approx(best)
    assert found.right == pytest.approx(np.mean(labels == predicted))
    assert not found.doubtful


@pytest.mark.parametrize(("share", "doubtful"), [(0.9, True), (0.3, False)])
def test_only_an_order_in_which_most_are_right_is_better(share, doubtful):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 2000)
    predicted = np.where(rng.random(2000) < share, (labels + 1) % 10, rng.integers(0, 10, 2000))
    assert Order.of(labels, predicted, 10).doubtful is doubtful


@pytest.mark.parametrize(("names", "told"), [(["a", "b", "c"], 0), (["b", "c", "a"], 1)])
def test_the_page_says_so(tmp_path, names, told):
    """The network tells a, b and c by their brightest channel, in this order."""
    first, head = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 3)
    with torch.no_grad():
        first.weight.copy_(torch.eye(3)[:, :, None, None])
        head.weight.copy_(torch.eye(3))
        head.bias.zero_()
    net = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    write_corpus(tmp_path / "data")
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), neighbours=6, metric=("euclidean",))
    store = pipeline.run(settings, tmp_path / "run", classifier=classifier.load_model(net, classes=names))
    notes = page.notes(store, store.table("images", "attribution"))
    assert sum("another order" in note for note in notes) == told
    assert ("--class-map" in (tmp_path / "run" / "report.html").read_text()) == bool(told)
