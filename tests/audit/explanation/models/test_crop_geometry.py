"""Places of a file's pixels on the model input, against crops counted by hand and pasted marks."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.crop_geometry import fit_crop_geometry
from klarsicht.ground.errors import InputError

STEPS = (transforms.ToTensor(), transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.2)))


def on_file(classifier, mask, shape):
    return fit_crop_geometry(classifier, mask.shape, shape).map_to_file(mask)


def of(*steps):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return load_model((network.eval(), transforms.Compose([*steps, *STEPS])))


def test_without_resizing_a_mask_is_itself():
    mask = np.random.default_rng(0).random((40, 56)) < 0.5
    np.testing.assert_array_equal(on_file(of(), mask, (40, 56)), mask)


def test_a_crop_moves_a_mask_by_its_margin():
    mask = np.random.default_rng(0).random((32, 32)) < 0.5
    found = on_file(of(transforms.CenterCrop(32)), mask, (300, 412))
    np.testing.assert_array_equal(found[134:166, 190:222], mask)
    assert found.sum() == mask.sum()


def test_a_mark_painted_on_the_file_lies_under_its_mask():
    """What the model sees of a rectangle on the file gives the rectangle back, to a pixel of the image."""
    classifier = of(transforms.Resize(64), transforms.CenterCrop(56))
    pixels = np.zeros((200, 260, 3), np.uint8)
    pixels[60:110, 80:170] = 255
    seen = classifier.image(Image.fromarray(pixels))[0].numpy()
    mask = seen > (seen.min() + seen.max()) / 2
    found = on_file(classifier, mask, (200, 260))
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    np.testing.assert_allclose((rows[0], rows[-1], columns[0], columns[-1]), (60, 109, 80, 169), atol=200 / 64)


@pytest.mark.parametrize(
    "step",
    [transforms.RandomRotation((30, 30)), transforms.RandomVerticalFlip(1), transforms.Pad(8, padding_mode="reflect")],
)
def test_a_transform_that_is_no_resize_crop_and_pad_is_refused(step):
    size = (64, 64) if isinstance(step, transforms.Pad) else (48, 48)
    with pytest.raises(InputError, match="no resize, crop and pad"):
        on_file(of(step), np.ones(size, bool), (48, 48))


@pytest.mark.parametrize("fill", [0, 90, 255])
def test_padding_moves_a_mask_by_its_width(fill):
    mask = np.random.default_rng(0).random((64, 70)) < 0.5
    found = on_file(of(transforms.Pad((8, 5, 14, 11), fill=fill)), mask, (48, 48))
    np.testing.assert_array_equal(found, mask[5:53, 8:56])


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        on_file(of(), np.ones((8, 8), bool), (48, 48))
