"""Batch sizes that are chosen: by the shapes of activations, once for a run."""

import json

import pytest
import torch
from tests.audit.conftest import network, write_corpus
from torch import nn

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.batch_size import (
    HELD_ACTIVATIONS,
    LARGEST_BATCH,
    activation_bytes,
    choose_batch_size,
    first_image,
)
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.ground.errors import RunMismatch

IMAGE = torch.rand(3, 8, 8)
BYTES = 4 * (3 * 64 + 5 * 36 + 5 * 36 + 180 + 2)  # input, convolution, ReLU, flat, logits, in float32


def small():
    return load_model(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 2)).eval())


def test_bytes_of_activations_are_those_of_their_shapes():
    """Oracle: shapes counted by hand."""
    assert activation_bytes(small(), IMAGE) == BYTES


@pytest.mark.parametrize(
    ("images", "chosen"), [(0.5, 1), (1, 1), (1.99, 1), (2, 2), (7.9, 4), (8, 8), (1e6, LARGEST_BATCH)]
)
def test_the_largest_power_of_two_within_the_bound_is_chosen(images, chosen):
    memory = images * HELD_ACTIVATIONS * BYTES * (1 + 1e-9) / 1e9
    assert choose_batch_size(small(), IMAGE, memory) == chosen


def test_the_first_readable_image_is_taken(tmp_path):
    write_corpus(tmp_path / "data", per_class=2)
    (tmp_path / "data" / "a" / "000.png").write_text("no image")
    audit = Audit.of(AuditSettings(model="mine", data=str(tmp_path / "data")), load_model(network()))
    assert torch.equal(first_image(audit.corpus, audit.classifier, 6), audit.classifier.image(audit.corpus.decode(1)))
    assert first_image(audit.corpus, audit.classifier, 1) is None


def test_a_run_keeps_the_batch_size_that_was_chosen_when_it_began(tmp_path):
    """Another bound chooses another size, but a run that exists keeps its own, and refuses one that is given."""
    write_corpus(tmp_path / "data", per_class=4)
    settings = AuditSettings(model="mine", data=str(tmp_path / "data"), batch=0, batch_memory=1e-4, map_side=8)
    classifier = load_model(network())
    pipeline.run(settings, tmp_path / "run", classifier=classifier)
    kept = json.loads((tmp_path / "run" / "manifest.json").read_text())["settings"]
    chosen = choose_batch_size(classifier, torch.zeros(3, 12, 12), 1e-4)
    assert 1 < chosen < LARGEST_BATCH and kept["batch"] == chosen and "batch_memory" not in kept
    other = settings.with_values(batch_memory=1.0)
    assert Audit.of(other, classifier).with_batch().settings.batch > chosen
    pipeline.run(other, tmp_path / "run", classifier=classifier)
    with pytest.raises(RunMismatch, match="batch"):
        pipeline.run(settings.with_values(batch=chosen + 1), tmp_path / "run", classifier=classifier)
