"""Masks of regions, as the model's transform shows them: of a file, of a table, of a function, and estimated."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.verdicts.interventions.region_masks import estimate_region, load_region
from klarsicht.ground.errors import InputError, UsageError

SIDE = 16


def middle(picture):
    """The transform: the middle SIDE x SIDE of a picture of twice that side."""
    pixels = np.asarray(picture)[SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)


@pytest.fixture
def images(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for i in range(3):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(rng.integers(0, 255, (2 * SIDE, 2 * SIDE, 3)).astype(np.uint8)).save(paths[-1])
    corpus = Corpus([f"{i}.png" for i in range(3)], paths, ("a", "a", "b"))
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    return InputImages.of(corpus, load_model((net, middle), classes=["a", "b"]))


def save_mask(file, seed):
    mask = np.random.default_rng(seed).random((2 * SIDE, 2 * SIDE)) < 0.5
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(file)
    return mask[SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]


def test_a_mask_is_cropped_as_the_pictures_are(images, tmp_path):
    seen = save_mask(tmp_path / "lungs.png", 1)
    region = load_region(tmp_path / "lungs.png", images)
    assert region.words == "lungs.png"
    for mask in region(np.array([0, 2])):
        np.testing.assert_array_equal(mask, seen)


@pytest.mark.parametrize("codes", [np.array([0, 1], np.uint8), np.array([0, 255], np.uint8), np.array([False, True])])
def test_masks_of_codes_0_and_1_are_read(images, tmp_path, codes):
    inside = np.random.default_rng(3).random((2 * SIDE, 2 * SIDE)) < 0.5
    Image.fromarray(codes[inside.astype(int)]).save(tmp_path / "mask.png")
    seen = inside[SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]
    np.testing.assert_array_equal(load_region(tmp_path / "mask.png", images)(np.array([0]))[0], seen)


@pytest.mark.parametrize(("level", "side"), [(0, "outside"), (255, "inside")])
def test_a_mask_of_one_side_is_refused(images, tmp_path, level, side):
    Image.new("L", (2 * SIDE, 2 * SIDE), level).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=rf"mask\.png, of which the model sees nothing but {side}"):
        load_region(tmp_path / "mask.png", images)


def test_a_table_names_a_mask_for_each_picture(images, tmp_path):
    seen = [save_mask(tmp_path / f"m{i}.png", i) for i in range(2)]
    (tmp_path / "masks.csv").write_text("path,mask\n0.png,m0.png\n1.png,m1.png\n")
    region = load_region(tmp_path / "masks.csv", images)
    np.testing.assert_array_equal(region(np.array([1, 0])), seen[::-1])
    with pytest.raises(InputError, match=r"a picture without a mask.*2\.png"):
        region(np.array([2]))


def test_a_function_makes_the_mask_of_a_picture(images, tmp_path):
    (tmp_path / "bright.py").write_text(
        "import numpy as np\n\ndef mask(picture):\n    return np.asarray(picture).mean(-1) > 128\n"
    )
    region = load_region(f"{tmp_path}/bright.py:mask", images)
    levels = images(np.array([0, 1]))
    np.testing.assert_array_equal(region(np.array([0, 1])), levels.astype(float).mean(-1) > 128)


@pytest.mark.parametrize(
    "content", [b"", b"path,label\na,b\n", b"path,mask\n0.png\n", "path,mask\nä.png,b\n".encode("latin-1")]
)
def test_what_is_no_table_of_masks_is_an_error(images, tmp_path, content):
    (tmp_path / "masks.csv").write_bytes(content)
    with pytest.raises(InputError, match="no table of masks"):
        load_region(tmp_path / "masks.csv", images)


def test_a_function_that_returns_no_mask_is_an_error(images, tmp_path):
    (tmp_path / "wrong.py").write_text("def mask(picture):\n    return 3\n")
    with pytest.raises(UsageError, match="the region is no mask"):
        load_region(f"{tmp_path}/wrong.py:mask", images)(np.array([0]))


def test_masks_of_other_content_have_other_identities(images, tmp_path):
    for i in range(2):
        save_mask(tmp_path / f"{i}.mask.png", i)
    first, second = (load_region(tmp_path / f"{i}.mask.png", images).identity for i in range(2))
    assert first != second == load_region(tmp_path / "1.mask.png", images).identity


def test_a_table_or_a_function_whose_masks_were_changed_has_another_identity(images, tmp_path):
    save_mask(tmp_path / "m0.png", 0)
    (tmp_path / "masks.csv").write_bytes(
        b"\xef\xbb\xbfpath,mask\r\n0.png,m0.png\r\n9.png,gone.png\r\n"
    )  # as Excel saves
    (tmp_path / "bright.py").write_text("def mask(picture):\n    return picture\n")
    specs = [str(tmp_path / "masks.csv"), f"{tmp_path}/bright.py:mask"]
    before = [load_region(spec, images).identity for spec in specs]
    assert before == [load_region(spec, images).identity for spec in specs]
    save_mask(tmp_path / "m0.png", 1)
    (tmp_path / "bright.py").write_text("def mask(picture):\n    return picture.convert('L')\n")
    assert all(load_region(spec, images).identity != old for spec, old in zip(specs, before, strict=True))


def test_the_object_that_aligned_images_share_is_estimated_and_none_of_others():
    rng = np.random.default_rng(0)
    noise = rng.normal(120, 30, (40, 64, 64, 3))
    texture = np.repeat(rng.normal(0, 60, (32, 64, 1)), 3, -1)
    aligned = noise.copy()
    aligned[:, 16:48] += texture
    found = estimate_region(np.clip(aligned, 0, 255).astype(np.uint8))
    mask = found(np.array([0]))[0]
    assert mask.mean() == 0.5 and mask[20:44].mean() > 0.9
    assert found.words.startswith("the half of the frame where all pictures are most alike (their details correlate by")
    assert estimate_region(np.clip(noise, 0, 255).astype(np.uint8)) is None


@pytest.mark.parametrize(("share", "is_object"), [(0.1, False), (0.6, True)])
def test_images_whose_details_hardly_agree_have_no_common_object(share, is_object):
    """Independent pixels, of whose variance a share is common in a quarter of the frame: any two images correlate by a
    quarter of that share, 0.025 and 0.15."""
    rng = np.random.default_rng(1)
    pixels, common = rng.normal(0, 30, (60, 32, 32)), rng.normal(0, 30, (16, 16))
    pixels[:, 8:24, 8:24] = np.sqrt(1 - share) * pixels[:, 8:24, 8:24] + np.sqrt(share) * common
    levels = np.repeat(np.clip(128 + pixels, 0, 255).astype(np.uint8)[..., None], 3, -1)
    assert (estimate_region(levels) is not None) == is_object
