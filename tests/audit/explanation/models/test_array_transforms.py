"""Models that take arrays. Oracles: closed forms of an affine transform."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.array_transforms import ArrayTransform
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.inputs import InputImages, PixelScale
from klarsicht.ground.errors import ModelError, ProgramFailed, UsageError


def standardised(x):
    return torch.from_numpy((x.astype(np.float32).transpose(2, 0, 1) - 1000) / 500)


def network(channels):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def model(channels=5, dtype="int16", black=-1000, white=3000, function=standardised, **shown):
    return load_model((network(channels), ArrayTransform(function, channels, dtype, black, white, **shown)))


def test_an_array_goes_to_the_function_as_it_is_and_a_picture_scaled_to_the_range():
    x = np.random.default_rng(0).integers(-1000, 3001, (8, 9, 5)).astype(np.int16)
    classifier = model()
    torch.testing.assert_close(classifier.image(x), standardised(x))
    black, white = classifier.pixel_bounds
    assert black == (-4,) * 5 and white == (4,) * 5
    grey = classifier.image(Image.new("RGB", (8, 8), (51, 51, 51)))  # a fifth of the way to white: -200
    torch.testing.assert_close(grey, torch.full((5, 8, 8), -2.4))
    assert str(classifier.form) == classifier.takes == "5 channels of int16, -1000 to 3000"
    assert load_model(network(3)).form is None


def test_grey_levels_are_equal_steps_from_black_to_white():
    scale = PixelScale.of(model())
    numbers = np.array([-1000, 600, 3000, 3, 1000], np.int16)
    image = standardised(np.broadcast_to(numbers, (4, 4, 5)))
    assert scale.levels(image)[0, 0].tolist() == [0, 102, 255, 64, 128]  # 255 (v + 1000) / 4000, rounded
    PixelScale.of(model(1, "uint8", 0, 5))  # where grey 128 is rounded to 3 of 5
    with pytest.raises(ModelError, match="not linear in grey levels"):
        PixelScale.of(model(1, "uint16", 0, 4095, lambda x: torch.from_numpy(x.transpose(2, 0, 1) / 4095.0) ** 2.2))


def test_images_of_a_corpus_are_levels_of_its_arrays():
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-1000, 3001, (8, 8, 5)).astype(np.int16) for _ in range(3)]
    classifier = model()
    corpus = open_corpus([(x, "a") for x in arrays]).as_arrays(classifier.form)
    levels = InputImages.of(corpus, classifier)([0, 1, 2])
    assert np.abs(levels - (np.stack(arrays).astype(float) + 1000) * 255 / 4000).max() <= 0.5 + 1e-3


def test_the_range_belongs_to_the_identity_of_a_model():
    same = [model().identity for _ in range(2)]
    assert same[0] == same[1]
    scaled = model(white=2000, function=lambda x: standardised(x))
    assert scaled.identity != same[0]


def test_channels_that_are_shown_are_those_of_the_input_only_where_it_has_them_all():
    assert model(shown=(4, 2, 0)).shown == (4, 2, 0)
    assert model().shown == ()
    first_two = ArrayTransform(lambda x: standardised(x[..., :2]), 5, "int16", -1000, 3000, (4, 2, 0))
    assert load_model((network(2), first_two)).shown == ()


def test_white_is_the_largest_integer_of_the_type_or_one():
    assert ArrayTransform(standardised, 1, "uint16").form.white == 65535
    assert ArrayTransform(standardised, 2, "float64").form.white == 1


def test_errors_name_the_function_the_option_and_the_remedy():
    with pytest.raises(UsageError, match="Set dtype"):
        ArrayTransform(standardised, 1, "uint12")

    def refuses(x):
        raise ValueError("seven bands")

    classifier = load_model((network(4), ArrayTransform(refuses, 4, "float32")))
    with pytest.raises(ProgramFailed, match="refuses: ValueError: seven bands"):
        classifier.image(np.zeros((4, 4, 4), np.float32))
    with pytest.raises(ModelError, match="ArrayTransform takes arrays of any channels"):
        load_model(network(7))
