"""Batches that are read ahead, with the same images one after another as oracle, and their size, by activations."""

import json
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tests.audit.conftest import network, write_corpus
from torch import nn

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance import image_batches
from klarsicht.audit.explanation.relevance.image_batches import (
    HELD_ACTIVATIONS,
    LARGEST_BATCH,
    BatchReader,
    PendingBatch,
    WaitingTime,
    activation_bytes,
    choose_batch_size,
    first_image,
    read_ahead,
)
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.ground.errors import RunMismatch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches") / "data"
    write_corpus(folder, per_class=12)
    files = sorted(folder.rglob("*.png"))
    files[3].write_bytes(b"no picture")
    Image.new("RGB", (20, 12), (9, 99, 199)).save(files[7])  # another shape, where the transform does not resize
    return Corpus.from_folder(folder)


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_batches_are_those_of_one_thread_in_their_order(corpus, readers):
    classifier, facts = load_model(network()), {}
    got = list(BatchReader(corpus, classifier, 5, readers).batches(range(2, 30), facts))
    shapes, expected = {}, []
    for row in [row for row in range(2, 30) if row != 3]:  # batches by shape, each given out when it is full
        image = classifier.image(Image.open(corpus.paths[row]))
        same = shapes.setdefault(image.shape, [])
        same.append((row, image))
        if len(same) == 5:
            expected.append(shapes.pop(image.shape))
    expected += shapes.values()
    assert [rows for rows, _ in got] == [[row for row, _ in some] for some in expected]
    for (_, batch), some in zip(got, expected, strict=True):
        assert torch.equal(batch, torch.stack([image for _, image in some]))
    assert list(facts) == [3] and "skipped" in facts[3]


class Inside:
    """A transform that knows how many threads were in it at once; they leave it together."""

    def __init__(self):
        self.inside, self.most, self.lock = 0, 0, threading.Lock()
        self.together, self.transformed = threading.Barrier(1), threading.Semaphore(0)

    def __call__(self, picture):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.together.wait(timeout=600)
        with self.lock:
            self.inside -= 1
        self.transformed.release()
        return torch.zeros(3, 12, 12)


def test_what_the_network_waits_for_images_is_counted(corpus, monkeypatch):
    """By a clock that goes on by 1 for each image, and by 10 while the network computes: 16 images in batches of 4."""
    clock = [0.0]
    monkeypatch.setattr(image_batches, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def transform(picture):
        clock[0] += 1
        return torch.zeros(3, 12, 12)

    reader = BatchReader(corpus, load_model((network(), transform)), 4, readers=0)
    before = clock[0]
    for _ in reader.batches(range(8, 24), {}):
        clock[0] += 10
    assert reader.time == WaitingTime(seconds=16 + 40, waiting_seconds=16) and clock[0] == before + 56


def test_images_are_read_while_the_network_computes(corpus):
    """The network takes a batch only when the next one is there: were they read when they are asked for, it would wait
    for ever."""
    inside = Inside()
    model = load_model((network(), inside))
    for number, _ in enumerate(BatchReader(corpus, model, 4, readers=1).batches(range(8, 24), {}), start=1):
        for _ in range({1: 8, 4: 0}.get(number, 4)):  # after batch n the images of batch n + 1 are transformed
            assert inside.transformed.acquire(timeout=600)


@pytest.mark.parametrize("readers", [1, 3])
def test_as_many_threads_transform_as_there_are_readers(corpus, readers):
    """Each transform waits until as many are inside."""
    inside, facts = Inside(), {}
    model = load_model((network(), inside))
    inside.together = threading.Barrier(readers)
    assert sum(len(rows) for rows, _ in BatchReader(corpus, model, 4, readers).batches(range(8, 23), facts)) == 15
    assert facts == {} and inside.most == readers


def test_an_error_of_a_thread_is_raised_where_the_items_are_taken():
    def items():
        yield 1
        raise MemoryError("too little")

    taken = read_ahead(items(), 2)
    assert next(taken) == 1
    with pytest.raises(MemoryError, match="too little"):
        next(taken)


def test_items_are_made_no_further_ahead_than_asked_and_the_thread_ends_with_the_iteration():
    made, before = [], threading.active_count()

    def items():
        for number in range(100):
            made.append(number)
            yield number

    taken = read_ahead(items(), 2)
    assert next(taken) == 0
    time.sleep(0.3)
    assert len(made) <= 4  # one taken, two waiting, one in the hand of the thread
    taken.close()
    assert threading.active_count() == before


def test_shares_of_waiting_add_up():
    total = sum([WaitingTime(2, 1), WaitingTime(6, 1)], WaitingTime())
    assert (total.seconds, total.waiting_seconds, total.share) == (8, 2, 0.25)
    assert WaitingTime().share == 0


def test_a_batch_is_full_by_its_own_shape():
    pending = PendingBatch(2)
    assert pending.add(0, torch.zeros(1, 2, 2)) is None and pending.add(1, torch.zeros(1, 3, 3)) is None
    assert pending.add(2, torch.ones(1, 2, 2))[0] == [0, 2]
    assert [rows for rows, _ in pending.flush()] == [[1]]


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
