"""Members and masks in the COCO format, and their run-length codes."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from tests.explorer.made_run import CARRIERS, SIDE, TAG, WINDOW
from tests.explorer.requests import ask

from klarsicht.explorer import coco
from klarsicht.explorer.app import make_app


def decode(code):
    """The mask of an uncompressed run-length code, pixel by pixel down the columns."""
    height, width = code["size"]
    mask = np.zeros((height, width), bool)
    at, value = 0, False
    for count in code["counts"]:
        for _ in range(count):
            mask[at % height, at // height] = value
            at += 1
        value = not value
    assert at == height * width
    return mask


def by_pycocotools(code):
    tools = pytest.importorskip("pycocotools.mask")
    return tools.decode(tools.frPyObjects(code, *code["size"])).astype(bool)


masks_of_some_size = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape))


@given(masks_of_some_size)
def test_a_run_length_code_is_decoded_to_the_mask(mask):
    code = coco.run_length_code(mask)
    np.testing.assert_array_equal(decode(code), mask)
    assert all(count > 0 for count in code["counts"][1:]) and json.dumps(code)


def test_pycocotools_decodes_the_code():
    for seed in range(30):
        mask = np.random.default_rng(seed).random((seed % 7 + 1, seed % 5 + 1)) < seed / 29
        np.testing.assert_array_equal(by_pycocotools(coco.run_length_code(mask)), mask)


def test_masks_are_exported_by_their_source(explored):
    app = make_app(explored)
    assert ask(app, "/api/classes/0/masks").json["masks"] == ["window", "relevance"]
    for source in ("relevance", "window"):
        with zipfile.ZipFile(io.BytesIO(ask(app, f"/api/classes/0/masks.zip?source={source}").content)) as archive:
            pictures = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()]
        found = ask(app, f"/api/classes/0/coco.json?source={source}").json["annotations"]
        assert len(pictures) == len(found) == CARRIERS and {one["mask_source"] for one in found} == {source}
        for row, (picture, one) in enumerate(zip(pictures, found, strict=True)):
            mask = picture == 255
            np.testing.assert_array_equal(mask, explored.masks.of_image(0, row, (SIDE, SIDE), source)[1])
            assert one["area"] == mask.sum() and set(np.unique(picture)) == {0, 255}
            left, top, width, height = one["bbox"]
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            assert mask[top].any() and mask[:, left].any() and mask[top + height - 1].any()
            if source == "relevance":
                np.testing.assert_array_equal(decode(one["segmentation"]), mask)
            else:
                assert one["bbox"] == [WINDOW[1] * SIDE, WINDOW[0] * SIDE, TAG, TAG]
                assert one["segmentation"] == [[left, top, left + TAG, top, left + TAG, top + TAG, left, top + TAG]]
    assert ask(app, "/api/classes/0/masks.zip?source=place").status == 400
    assert ask(app, "/api/classes/0/coco.json?source=passwd").status == 400
    assert ask(app, "/api/images/0/picture?kind=mask&target=0&source=place").status == 400
