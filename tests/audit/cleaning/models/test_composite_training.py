"""Images that teach a model: how often each is drawn, and how fast the model learns."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tests.audit.cleaning.models.test_surroundings_correction import NAMES, Balance, Small
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from klarsicht.audit.cleaning.models.balanced_images import BalancedImages
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.composite_training import BalancedTask, CompositeTask, choose_rate
from klarsicht.audit.cleaning.models.group_accuracy import OwnImages
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.inputs import InputImages, PixelScale


class Attentive(nn.Module):
    """Tokens of patches that look at one another, by torch's attention or written out."""

    def __init__(self, written):
        super().__init__()
        self.written = written
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 2)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if self.written:
            seen = (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens
        else:
            seen = scaled_dot_product_attention(tokens, tokens, tokens)
        return self.head(seen.mean(1))


@pytest.mark.parametrize(
    ("network", "rate"), [(Small(), 3e-4), (Balance(), 3e-4), (Attentive(False), 1e-4), (Attentive(True), 1e-4)]
)
def test_a_network_with_attention_learns_at_a_lower_rate_unless_one_is_named(network, rate):
    classifier, example = load_model(network.eval(), classes=NAMES), torch.rand(1, 3, 8, 8)
    assert choose_rate(CleanSettings(), classifier, example) == rate
    assert choose_rate(CleanSettings(rate=2e-3), classifier, example) == 2e-3


class Recorded(OwnImages):
    """Images of which the sources of composites are counted."""

    def compose(self, pairs, rng):
        np.add.at(self.counts, pairs.sources, 1)
        return super().compose(pairs, rng)


def numbered(labels, odd=None):
    """Images (n, 8, 8, 3) whose level is their number, with own places in their middle, and the map to inputs."""
    n = len(labels)
    levels = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 8, 8, 3)).copy()
    own = np.zeros((n, 8, 8), bool)
    own[:, 3:5, 3:5] = True
    classifier = load_model(Balance().eval(), classes=NAMES)
    shown = InputImages(Corpus(("0",), ("0",), ("0",)), classifier, PixelScale.of(classifier), (8, 8))
    sides = labels if odd is None else np.where(odd, 1 - labels, labels)
    return levels, own, sides, shown


def numbers_of(inputs):
    """Numbers of numbered images, from inputs."""
    return torch.round(255 * inputs[:, 0, 0, 0]).int().numpy()


def test_every_image_of_a_class_is_as_often_a_source_and_every_side_as_often_shown_as_it_is():
    """4 of 40 images of a class are exceptions: a tenth of the sources, and half of the images as they are."""
    labels, n = np.repeat([0, 1], 40), 80
    odd = np.arange(n) % 10 == 0
    levels, own, sides, shown = numbered(labels, odd)
    images = Recorded(levels, own, labels, sides, np.zeros(n, int), shown)
    object.__setattr__(images, "counts", np.zeros(n, int))
    task, alone = CompositeTask(images, 32, 0), np.zeros(n, int)
    for step in range(500):
        inputs, truth = task.batch(step, 0)
        as_they_are = numbers_of(inputs[16:])
        assert (labels[as_they_are] == truth[16:].numpy()).all()
        np.add.at(alone, as_they_are, 1)
    assert images.counts.sum() == alone.sum() == 8000
    assert chisquare(images.counts).pvalue > 1e-3
    assert chisquare(alone, np.where(odd, 500, 4000 / 72)).pvalue > 1e-3


def test_classes_of_balanced_images_are_as_often_shown_and_are_half_of_the_images_as_they_are():
    """30 images of one class and 10 of the other; one in five does not teach."""
    labels, of_run = np.repeat([0, 1], [30, 10]), np.repeat([0, 1], 20)
    levels, own, _, shown = numbered(labels)
    teaches, counts = np.arange(40) % 5 > 0, np.zeros(40, int)
    fair = BalancedImages("", "", levels, labels, teaches, shown)
    images = OwnImages(255 - levels, own, of_run, of_run, np.zeros(40, int), shown)
    mixed, alone = CompositeTask(images, 32, 0, fair), BalancedTask(fair, 32, 0)
    for step in range(300):
        for (inputs, truth), expected in ((mixed.batch(step, 0), 8), (alone.batch(step, 0), 32)):
            rows = numbers_of(inputs)[-expected:]
            assert (labels[rows] == truth[-expected:].numpy()).all() and len(inputs) == 32
            np.add.at(counts, rows, 1)
        assert (numbers_of(mixed.batch(step, 0)[0])[:24] > 200).all()  # composites and images of the run
    assert counts[~teaches].sum() == 0
    assert chisquare(counts[teaches], 300 * 40 * np.repeat([1 / 48, 1 / 16], [24, 8])).pvalue > 1e-3
