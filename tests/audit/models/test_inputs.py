"""Images as the model takes them: decoded once, whoever asks, in bounded memory."""

import pickle
from collections import Counter

import numpy as np
import pytest
from tests.audit.conftest import write_corpus

from klarsicht.audit.data import pictures
from klarsicht.audit.data.corpus_formats import open_corpus
from klarsicht.audit.models.inputs import InputImages, PixelCache


@pytest.fixture
def decoded(monkeypatch):
    """How often each file was decoded."""
    count, decode = Counter(), pictures.decode

    def counting(path, *limits):
        count[path] += 1
        return decode(path, *limits)

    monkeypatch.setattr(pictures, "decode", counting)
    return count


def test_an_image_is_decoded_once_whoever_asks(tmp_path, classifier, decoded):
    write_corpus(tmp_path / "data", per_class=10)
    images = InputImages.of(open_corpus(tmp_path / "data"), classifier)
    decoded.clear()
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
