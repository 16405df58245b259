"""Pictures are explained as their tensors, names as their numbers; predicted classes, overlays, printed results."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.explainer import Explainer, explain
from klarsicht.ground.errors import UsageError

NAMES = ["cat", "dog", "fox"]


def to_input(picture):
    return torch.from_numpy(np.array(picture, np.float32).transpose(2, 0, 1) / 255 - 0.5)


@pytest.fixture
def classifier():
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, len(NAMES))
    )
    return load_model((module, to_input), classes=NAMES)


def draw(seed, size=(20, 16)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8))


def test_pictures_and_names_are_explained_as_their_tensors_and_numbers(classifier):
    pictures = [draw(0), draw(1)]
    batch = torch.stack([to_input(one) for one in pictures])
    literal = explain(classifier, batch, torch.tensor([2, 0]))
    np.testing.assert_array_equal(explain(classifier, pictures, ["fox", "cat"]).maps, literal.maps)
    np.testing.assert_allclose(explain(classifier, pictures[0], "fox").maps, literal.maps[:1], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(explain(classifier, tuple(pictures), [2, "cat"]).maps, literal.maps)
    with Explainer(classifier) as explainer:
        np.testing.assert_array_equal(explainer(pictures, ["fox", 0]).maps, literal.maps)


def test_one_class_stands_for_all_and_none_for_the_predicted_ones(classifier):
    batch = torch.stack([to_input(draw(seed)) for seed in range(5)])
    assert explain(classifier, batch, 1).targets.tolist() == [1] * 5
    with torch.no_grad():
        predicted = classifier.module(batch).argmax(1)
    assert explain(classifier, batch).targets.tolist() == predicted.tolist()


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        ([draw(0), draw(1, (8, 8))], 0, "several sizes after the transform.*one by one"),
        (draw(0), "dogg", "unknown class.*Did you mean dog"),
        (draw(0), ["cat", "dog"], "one for each of 1 images"),
        (draw(0), 0.5, "not integers"),
        (draw(0), [object()], "not classes"),
        (draw(0), 17, "out of range; got 17; the model has classes 0 to"),
        (torch.full((2, 3, 16, 20), torch.nan), 0, "image 0 of a batch; got NaN or infinite.*transform"),
        ("a.png", 0, "got the path a.png"),
        ("a.png", 0, "a batch does not consist of numbers.*pictures of Pillow.*Open files first"),
        ([Path("a.png"), Path("b.png")], 0, r"a batch does not consist of numbers.*Image\.open"),
    ],
)
def test_what_cannot_be_explained_is_said_with_a_remedy(classifier, images, targets, message):
    with pytest.raises(UsageError, match=f"(?s){message}"):
        explain(classifier, images, targets)


def test_a_name_of_a_model_without_names_is_refused(classifier):
    nameless = load_model((classifier.module, to_input))
    with pytest.raises(UsageError, match=r"has no names.*number of the output"):
        explain(nameless, draw(0), "cat")


def test_an_overlay_shows_the_input_where_no_relevance_lies_and_red_where_it_speaks_for_the_class(classifier):
    """By the drawing's own definition: the largest relevance turns a pixel towards red, the least one towards blue."""
    found = explain(classifier, draw(0), "fox")
    np.testing.assert_array_equal(found.inputs[0], np.asarray(draw(0)))
    size = 14 * 20, 14 * 16  # enlarged by a whole factor, to 224 pixels at least
    large = np.asarray(draw(0).resize(size, Image.Resampling.NEAREST)).astype(int)
    picture = np.asarray(found.overlay())
    assert picture.shape[1] == size[0] and picture.shape[0] > size[1]
    added = picture[: size[1]].astype(int) - large
    rows, columns = found.maps.shape[1:]
    for value in (found.maps.max(), found.maps.min()):
        y, x = np.argwhere(found.maps[0] == value)[0]
        red, _, blue = added[int((y + 0.5) * size[1] / rows), int((x + 0.5) * size[0] / columns)]
        assert (red - blue) * np.sign(value) > 0


def test_a_result_prints_as_one_line_and_has_no_overlay_without_its_images(classifier):
    batch = torch.stack([to_input(draw(seed)) for seed in range(3)])
    assert (
        repr(explain(classifier, batch, [0, 2, 2]))
        == "Relevance(3 images, class cat, fox, maps (16, 16), by EpsilonPlusFlat)"
    )
    with Explainer(classifier) as explainer, pytest.raises(UsageError, match=r"audit\.explain"):
        explainer(batch, 0).overlay()
    with pytest.raises(UsageError, match="number of an image; got 3"):
        explain(classifier, batch, 0).overlay(3)
