"""Labels numbered otherwise than the model's outputs are noticed; a poor model is not blamed for it."""

import json
from itertools import permutations

import numpy as np
import pytest
import torch
from tests.audit.conftest import write_corpus
from torch import nn

from klarsicht.audit.explanation import doctor, pipeline
from klarsicht.audit.explanation.data.label_order import Order
from klarsicht.audit.explanation.models import classifier
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.audit.verdicts.quantification.sufficiency import measure_sufficiency
from klarsicht.ground.errors import CorpusError

REQUIRE_GIVEN = Order.require_given  # as it is before any test begins


@pytest.fixture(autouse=True)
def the_check_itself(monkeypatch):
    """Other tests let runs accept every order."""
    monkeypatch.setattr(Order, "require_given", REQUIRE_GIVEN)


def test_the_best_order_is_that_of_all_permutations():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    best = max(np.mean(np.array(order)[labels] == predicted) for order in permutations(range(4)))
    found = Order.of(labels, predicted, 4)
    assert found.best == pytest.approx(best)
    assert found.right == pytest.approx(np.mean(labels == predicted))
    assert not found.doubtful


@pytest.mark.parametrize("share", [0.9, 0.3])
def test_an_order_shifted_by_one_is_named_however_poor_the_model(share):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 2000)
    predicted = np.where(rng.random(2000) < share, (labels + 1) % 10, rng.integers(0, 10, 2000))
    (found,) = Order.of(labels, predicted, 10).permuted
    assert found.outputs == tuple(range(10))
    assert found.images == 2000
    assert found.moved == np.sum(predicted == (labels + 1) % 10)
    assert found.own == np.sum(predicted == labels)


def simulated(rng, accuracy, order, n=40):
    """Labels and predictions of a model that is right at a rate, else predicts by a bias of its own."""
    classes = len(order)
    truth = np.repeat(np.arange(classes), n)
    bias = rng.dirichlet(np.ones(classes))
    predicted = np.where(rng.random(len(truth)) < accuracy, truth, rng.choice(classes, len(truth), p=bias))
    return np.array(order)[truth], predicted


@pytest.mark.parametrize("order", [(0, 4, 2, 3, 1, 5), (0, 1, 3, 2, 5, 4), (1, 2, 0, 3, 4, 5)])
def test_some_labels_of_six_permuted_are_named_and_the_others_not(order):
    """Oracle: the cycles of the permutation itself; label order[k] means output k."""
    found = Order.of(*simulated(np.random.default_rng(0), 0.8, order), 6)
    moves = {label: output for output, label in enumerate(order) if label != output}
    told = {a: b for one in found.permuted for a, b in zip(one.outputs, np.roll(one.outputs, -1), strict=True)}
    assert told == moves
    assert found.doubtful


@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.3, 0.6])
def test_weak_models_are_not_blamed(accuracy):
    """At LEVEL .05 at most 10 of 200 expected; the test is conservative, and none are found."""
    rng = np.random.default_rng(2)
    alarms = [bool(Order.of(*simulated(rng, accuracy, range(k), n), k).permuted) for k in (2, 6, 30) for n in (5, 40)
              for _ in range(40)]  # fmt: skip
    assert sum(alarms) <= 2


def test_a_model_that_always_says_one_class_permutes_nothing():
    labels = np.repeat(np.arange(4), [1000, 50, 50, 50])
    found = Order.of(labels, np.full(len(labels), 2), 4)
    assert found.permuted == ()


def test_the_sentence_names_the_labels_the_shares_and_the_interval():
    """Clopper-Pearson for 36 of 40, from tables: .763 to .972."""
    labels = np.repeat([0, 1, 2], 20)
    predicted = np.array([1] * 18 + [0, 2] + [0] * 18 + [2, 2] + [2] * 20)
    order = Order.of(labels, predicted, 3)
    assert order.describe(["hen", "cock", "duck"]) == (
        "labels look permuted; predicted are hen as cock, cock as hen: 90% of their 40 images (76% to 97%), as their "
        "own label 2%"
    )
    with pytest.raises(CorpusError, match=r"hen as cock.*--class-map; or, if the labels are right, --accept-labels"):
        order.require_given(["hen", "cock", "duck"])
    assert Order.from_json(json.loads(json.dumps(order.to_json()))) == order


@pytest.fixture
def reader():
    """A network that recognises a, b and c by their brightest channel, in this order."""
    first, head = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3, 3)
    with torch.no_grad():
        first.weight.copy_(torch.eye(3)[:, :, None, None])
        head.weight.copy_(torch.eye(3))
        head.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


@pytest.mark.parametrize(
    ("names", "permuted"),
    [
        pytest.param(["a", "b", "c"], "", marks=pytest.mark.slow),
        pytest.param(["b", "c", "a"], "b as c, c as a, a as b", marks=pytest.mark.slow),
        (["a", "c", "b"], "c as b, b as c"),
    ],
)
def test_doctor_and_run_refuse_permuted_labels_and_a_run_resumes_where_they_are_accepted(
    tmp_path, reader, names, permuted, monkeypatch
):
    write_corpus(tmp_path / "data")
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), neighbours=6, metric=("euclidean",))
    model, out = classifier.load_model(reader, classes=names), tmp_path / "run"
    opened = Audit.of(settings, model)
    with monkeypatch.context() as patched:
        patched.setattr(doctor.Audit, "of", lambda *_: opened)
        refused = doctor.diagnose(settings).refused
    if not permuted:
        assert refused is None
        pipeline.run(settings, out, classifier=model)
        assert "permuted" not in (out / "report.html").read_text()
        return
    assert isinstance(refused, CorpusError) and permuted in str(refused)
    with pytest.raises(CorpusError, match=permuted):
        pipeline.run(settings, out, classifier=model)
    for judge in (quantify, measure_sufficiency):  # at once, and not at their end
        with pytest.raises(CorpusError, match=rf"{permuted}.*`audit run` as `class_map`; .*`accept_labels`"):
            judge(out, classifier=model)
        assert not any(out.glob("tables/[st]*")) and not (out / "report.html").exists()
    attributed = {file: file.stat().st_mtime_ns for file in out.rglob("*") if "attribution" in file.name}
    pipeline.run(settings, out, classifier=model, accept_labels=True)
    assert permuted in (out / "report.html").read_text()
    assert attributed and all(file.stat().st_mtime_ns == written for file, written in attributed.items())
