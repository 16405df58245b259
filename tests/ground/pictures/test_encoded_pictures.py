"""Small versions and inline data. Oracle: Pillow reads them back."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from klarsicht.ground.pictures import encoded_pictures

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = COLOUR[..., 0]


@pytest.mark.parametrize(("size", "expected"), [((400, 200), (100, 50)), ((30, 60), (30, 60)), ((1000, 1), (100, 1))])
def test_thumbnail_fits_and_never_enlarges(size, expected):
    picture = Image.new("RGB", size)
    assert encoded_pictures.thumbnail(picture, 100).size == expected
    assert picture.size == size


@pytest.mark.parametrize("pixels", [COLOUR, GREY, GREY.astype(np.uint16) * 200], ids=["colour", "grey", "deep"])
def test_png_is_lossless(pixels):
    head, _, body = encoded_pictures.data_uri(encoded_pictures.png_bytes(pixels)).partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))), pixels)
