"""Squares of one colour on listed images, of a network whose answer to them is known in closed form."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.audit.verdicts.interventions.test_group_use import MARKED, SIDE, SQUARE, grey_images, with_squares
from torch import nn

from klarsicht.audit.cleaning.artifacts import listed_group
from klarsicht.audit.cleaning.artifacts.found_artifact import FoundArtifact
from klarsicht.audit.cleaning.artifacts.listed_group import put_listed_group
from klarsicht.audit.cleaning.artifacts.localisation import Localisation
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.results.seen_groups import SeenGroup

WEIGHT = 40.0
RISE = WEIGHT * SQUARE**2 / SIDE**2 * 200 / 255  # of the log odds, by a whole square on a grey image


class Reader(nn.Module):
    """Two classes; the first by what is red beyond green, times a weight."""

    def __init__(self, weight):
        super().__init__()
        self.head = nn.Linear(3, 2, bias=False)
        self.head.weight.data = torch.tensor([[weight, -weight, 0.0], [0.0, 0.0, 0.0]])

    def forward(self, x):
        return self.head(x.mean((2, 3)))


@pytest.fixture
def put(monkeypatch):
    """Put the listed images' square on others; `listed` are rows of the class."""

    def put(weight, listed, groups=()):
        rng = np.random.default_rng(0)
        own, _ = with_squares(grey_images(len(MARKED), rng), rng)
        levels = np.concatenate([own, grey_images(60, rng)])
        images = torch.from_numpy(levels.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        monkeypatch.setattr(
            listed_group, "read_images", lambda corpus, classifier, rows: (list(images[rows]), np.arange(len(rows)), ())
        )
        rows, labels = np.arange(len(own)), np.arange(len(levels)) // len(own)
        group = SimpleNamespace(target=0, name="mole", rows=rows)
        classifier = load_model(Reader(weight).eval(), classes=["mole", "other"])
        audited = SimpleNamespace(classifier=classifier, group=group, corpus=None, labels=labels, store=None)
        monkeypatch.setattr(listed_group, "load_seen_groups", lambda store: groups)
        found = FoundArtifact(audited, np.flatnonzero(listed), "list: squares.txt")
        place = Localisation(found, rows[::3], list(images[: len(own) : 3]), listed[::3], rows[:0])
        vars(place)["maps"] = rng.random((len(rows[::3]), 8, 8))
        return put_listed_group(place, rng), images[len(own) :]

    return put


def test_what_raises_the_class_is_put_on_by_the_part_to_fit_on_and_tested_on_all(put):
    (overlay, words), others = put(WEIGHT, MARKED)
    assert overlay is not None and len(overlay.masks) == 8  # of 24 listed images a third is fitted on
    pasted, plain = overlay.put(others, np.random.default_rng(0))
    with torch.no_grad():
        rise = (Reader(WEIGHT)(pasted) - Reader(WEIGHT)(plain))[:, 0].mean().item()
    assert 0.8 * RISE < rise <= RISE + 1e-4
    assert words.startswith("pasted into 60 images of other classes, it raises mole by ") and "uses it" in words
    assert 0.8 * RISE < float(words.split("by ")[1].split()[0]) <= RISE + 0.005


def test_what_lowers_the_class_is_told_and_not_put_on(put):
    (overlay, words), _ = put(-WEIGHT, MARKED)
    assert overlay is None and "lowers mole by" in words and "uses it" in words


def test_listed_images_at_random_are_refused(put):
    for seed in range(5):
        (overlay, words), _ = put(WEIGHT, np.random.default_rng(seed).permutation(MARKED))
        assert overlay is None and words.endswith(("no use of it is shown", "too few to say whether the model uses it"))


@pytest.mark.parametrize("is_used", [True, False])
@pytest.mark.parametrize("weight", [WEIGHT, 0.05])
def test_what_quantify_said_of_the_same_images_counts(put, is_used, weight):
    """Whatever another draw would say: a weight of 0.05 moves the class by hundredths of a logit."""
    rows = tuple(np.flatnonzero(MARKED).tolist())
    seen = SeenGroup("mole", 0, 60, "red", 0.01, "", "few classes", "", rows, (), "it was measured", is_used)
    (overlay, words), _ = put(weight, MARKED, (seen,))
    assert (overlay is not None, words) == (is_used, "it was measured")
    other = replace(seen, rows=rows[1:])
    (_, words), _ = put(weight, MARKED, (other,))
    assert words != "it was measured"
