"""Windows of images beside windows found by search."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.own_places.place_network import CROP, STRIDE, crop_images


def numbered(shape):
    """Images whose red and green levels are the number of each pixel's block of STRIDE pixels, and these numbers."""
    rows, columns = (np.arange(side) // STRIDE for side in shape)
    image = np.stack(np.broadcast_arrays(rows[:, None], columns[None], 0), -1).astype(np.uint8)
    number = image[::STRIDE, ::STRIDE].astype(int) @ [100, 1, 0]
    return np.stack([image] * 50), np.stack([number] * 50)


@pytest.mark.parametrize("shape", [(64, 64), (64, 47), (40, 85), (32, 50)])
def test_a_window_of_an_image_has_the_targets_of_its_places(shape):
    images, numbers = numbered(shape)
    shown, targets = crop_images(images, numbers, np.random.default_rng(0))
    assert shown.shape[1:3] == tuple(min(CROP, side) for side in shape)
    assert np.array_equal(targets, shown[:, ::STRIDE, ::STRIDE].astype(int) @ [100, 1, 0])
    for number, side in enumerate(shape):  # every window occurs in many draws, up to the last one
        first = shown[:, 0, 0, number].astype(int)
        assert first.min() == 0 or side <= CROP
        assert first.max() <= (side - CROP) // STRIDE
        assert len(np.unique(first)) > 1 or side - CROP < STRIDE


def test_the_target_of_a_whole_image_is_kept():
    images = numbered((64, 64))[0]
    labels = np.arange(50)[:, None, None]
    assert np.array_equal(crop_images(images, labels, np.random.default_rng(0))[1], labels)


def test_small_images_are_shown_whole():
    images, numbers = numbered((32, 24))
    shown, targets = crop_images(images, numbers, np.random.default_rng(0))
    assert np.array_equal(shown, images) and np.array_equal(targets, numbers)
