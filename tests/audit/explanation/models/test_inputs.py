"""Images as the model takes them: decoded once, whoever asks, in bounded memory."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import network, write_corpus
from torch import nn

from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.inputs import InputImages, PixelCache, PixelScale
from klarsicht.audit.explanation.models.transforms import PhotographTransform
from klarsicht.ground.pictures import stored_images


@pytest.fixture
def decoded(monkeypatch):
    """How often each file was decoded."""
    count, decode = Counter(), stored_images.decode

    def counting(path, *limits):
        count[path] += 1
        return decode(path, *limits)

    monkeypatch.setattr(stored_images, "decode", counting)
    return count


def test_an_image_is_decoded_once_whoever_asks(tmp_path, classifier, decoded):
    write_corpus(tmp_path / "data", per_class=10)
    images = InputImages.of(open_corpus(tmp_path / "data"), classifier)  # which decodes image 0, to see its shape
    rows = np.array([3, 7, 3, 29, 0])
    first, again = images(rows), images(rows[::-1])
    assert sum(decoded.values()) == len(decoded) == 4
    np.testing.assert_array_equal(first, again[::-1])
    plain = InputImages.of(images.corpus, classifier)
    for row, levels in zip(rows, first, strict=True):
        np.testing.assert_array_equal(plain([row])[0], levels)


def test_the_cache_is_bounded_and_pickled_empty(tmp_path, classifier, decoded):
    write_corpus(tmp_path / "data", per_class=10)
    corpus = open_corpus(tmp_path / "data")
    one = 12 * 12 * 3
    images = InputImages(
        corpus, classifier, InputImages.of(corpus, classifier).pixel_scale, (12, 12), cache=PixelCache(5 * one)
    )
    images(range(30))
    assert images.cache.bytes == 5 * one
    decoded.clear()
    images(range(25, 30))
    assert not decoded
    images([0])
    images([25])  # the least recently used made room
    assert len(decoded) == 2
    again = pickle.loads(pickle.dumps(images.cache))
    assert again.bytes == 0 and again.get(29) is None and again.most == 5 * one


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("negative", [False, True])
def test_pixel_values_are_those_of_the_file_whatever_the_order_of_channels(order, negative):
    drawn = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    mean, sd = torch.tensor([0.1, 0.4, 0.7])[:, None, None], torch.tensor([0.2, 0.5, 0.9])[:, None, None]

    def transform(picture):
        x = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[list(order)] / 255
        return ((1 - x if negative else x) - mean) / sd

    taken = load_model((network(), transform), classes=["a", "b", "c"])
    scale, x = PixelScale.of(taken), taken.image(Image.fromarray(drawn))
    np.testing.assert_array_equal(scale.levels(x), drawn)
    torch.testing.assert_close(scale.inputs(drawn[None])[0], x)
    torch.testing.assert_close(PixelScale.from_json(scale.to_json()).inputs(drawn[None])[0], x)
    seen = taken.picture(x)
    assert np.abs(seen.astype(int) - drawn).max() <= 1
    low, high = (torch.tensor(end)[:, None, None] for end in taken.pixel_bounds)
    assert (low <= x + 1e-6).all() and (x <= high + 1e-6).all()


def test_a_picture_is_what_the_usual_transform_was_given():
    drawn = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    transform = PhotographTransform(resize=224, crop=224)
    taken = load_model((network(), transform), classes=["a", "b", "c"])
    assert np.abs(taken.picture(transform(Image.fromarray(drawn))).astype(int) - drawn).max() <= 1


def test_a_grey_picture_has_three_channels():
    grey = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    taken = load_model((grey, lambda picture: torch.from_numpy(np.array(picture)[None] / np.float32(255))))
    seen = taken.picture(torch.full((1, 4, 5), 0.5))
    assert seen.shape == (4, 5, 3) and (seen == 128).all()


def test_a_transform_that_mixes_colours_has_no_order_of_channels():
    def transform(picture):
        grey = torch.from_numpy(np.array(picture.convert("L"))) / 255
        return grey.expand(3, -1, -1)

    assert PixelScale.of(load_model((network(), transform), classes=["a", "b", "c"])).order == ()
