"""The seen area of a file, against the place of a mark that real transforms show."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms._presets import ImageClassification

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.crop_geometry import PROBED_SHAPES, describe_seen_area, measure_seen_area
from klarsicht.audit.explanation.models.huggingface_models import ProcessorTransform
from klarsicht.ground.pictures.seen_area import EXTENT_UNITS, SeenArea

SIZES = ((520, 391), (333, 610), (250, 250), (1200, 800))  # (w, h) of files, of none of the probed shapes
MARK = (0.34, 0.66)  # of the rows and columns of a file; every transform here shows it
FINAL = (transforms.ToTensor(), transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.2)))


def composed(*steps):
    return lambda: transforms.Compose([*steps, *FINAL])


def of_timm(**settings):
    timm = pytest.importorskip("timm")
    return timm.data.create_transform((3, 224, 224), is_training=False, interpolation="bicubic", **settings)


def of_transformers(name, **settings):
    transformers = pytest.importorskip("transformers")
    return ProcessorTransform(getattr(transformers, name)(**settings))


def at_top_left(picture):
    side = max(picture.size)
    found = Image.new("RGB", (side, side), (90, 120, 30))
    found.paste(picture)
    return found


TRANSFORMS = {
    "torchvision preset": (lambda: ImageClassification(crop_size=224, resize_size=256), ("shorter", 0.875, 0.875)),
    "pixels as they are": (composed(), ("side", 1, 1)),
    "resize to a square": (composed(transforms.Resize((224, 224))), ("side", 1, 1)),
    "resize to a rectangle": (composed(transforms.Resize((96, 224))), ("side", 1, 1)),
    "resize to a square, crop": (
        composed(transforms.Resize((256, 256)), transforms.CenterCrop(224)), ("side", 0.875, 0.875)
    ),
    "resize to a rectangle, crop": (
        composed(transforms.Resize((256, 320)), transforms.CenterCrop(224)), ("side", 0.875, 0.7)
    ),
    "resize the shorter side, crop": (composed(transforms.Resize(64), transforms.CenterCrop(64)), ("shorter", 1, 1)),
    "crop a rectangle": (composed(transforms.Resize(256), transforms.CenterCrop((192, 224))), ("shorter", 0.75, 0.875)),
    "crop alone": (composed(transforms.CenterCrop(224)), ("pixels", 224, 224)),
    "pad to a square": (composed(lambda x: ImageOps.pad(x, (224, 224), color=(124, 116, 104))), ("longer", 1, 1)),
    "pad at the right and below": (composed(at_top_left, transforms.Resize(224)), ("longer", 1, 1, 0, 0)),
    "crop at the top left": (
        composed(transforms.Resize(256), lambda x: x.crop((0, 0, 224, 224))), ("shorter", 0.875, 0.875, 0, 0)
    ),
    "timm, center": (lambda: of_timm(crop_pct=0.9, crop_mode="center"), ("shorter", 224 / 248, 224 / 248)),
    "timm, squash": (lambda: of_timm(crop_pct=0.9, crop_mode="squash"), ("side", 224 / 248, 224 / 248)),
    "timm, border": (lambda: of_timm(crop_pct=0.9, crop_mode="border"), ("longer", 224 / 248, 224 / 248)),
    "timm, border, whole": (lambda: of_timm(crop_pct=1.0, crop_mode="border"), ("longer", 1, 1)),
    "transformers, ViT": (lambda: of_transformers("ViTImageProcessor"), ("side", 1, 1)),
    "transformers, CLIP": (lambda: of_transformers("CLIPImageProcessor"), ("shorter", 1, 1)),
    "transformers, DeiT": (lambda: of_transformers("DeiTImageProcessor"), ("side", 0.875, 0.875)),
    "transformers, ConvNeXt": (
        lambda: of_transformers("ConvNextImageProcessor", size={"shortest_edge": 224}, crop_pct=0.875),
        ("shorter", 0.875, 0.875),
    ),
    "transformers, ConvNeXt at 384": (lambda: of_transformers("ConvNextImageProcessor"), ("side", 1, 1)),
    "transformers, EfficientNet": (
        lambda: of_transformers("EfficientNetImageProcessor", do_center_crop=True), ("side", 289 / 346, 289 / 346)
    ),
    "transformers, LLaVA": (lambda: of_transformers("LlavaImageProcessor", do_pad=True), ("longer", 1, 1)),
}  # fmt: skip


def of(transform):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return load_model((network.eval(), transform))


def ends_of_mark(classifier, size):
    """First pixel and that after the last, of the rows and the columns of the input on which a white mark is seen."""
    wide, high = size
    pixels = np.zeros((high, wide, 3), np.uint8)
    rows, columns = (slice(*(round(end * n) for end in MARK)) for n in (high, wide))
    black = classifier.image(Image.fromarray(pixels))[0]
    pixels[rows, columns] = 255
    change = (classifier.image(Image.fromarray(pixels))[0] - black).numpy()
    shown = change > change.max() / 2
    found = [np.flatnonzero(shown.any(axis)) for axis in (1, 0)]
    return (
        change.shape,
        [(one[0], one[-1] + 1) for one in found],
        ((rows.start, rows.stop), (columns.start, columns.stop)),
    )


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_mark_lies_where_the_seen_area_says(name):
    """To a pixel of the input, by the place of a white rectangle; the area is that of the transform's settings."""
    make, expected = TRANSFORMS[name]
    classifier = of(make())
    area = measure_seen_area(classifier)
    assert area is not None and area.unit == expected[0]
    lengths = (area.height, area.width, area.top, area.left)
    assert lengths == pytest.approx((*expected[1:], 0.5, 0.5)[:4], rel=0.006)
    for size in SIZES:
        shape, ends, mark = ends_of_mark(classifier, size)
        left, top, right, bottom = area.box(size)
        for n, seen, (first, last), start, extent in zip(
            shape, ends, mark, (top, left), (bottom - top, right - left), strict=True
        ):
            by_area = [float(np.clip((end - start) * n / extent, 0, n)) for end in (first, last)]
            assert seen == pytest.approx(by_area, abs=1.2 + n / extent), (size, seen, by_area)


@pytest.mark.parametrize(
    "step",
    [
        lambda picture: picture.crop((10, 20, 110, 120)),
        transforms.RandomRotation((30, 30)),
        transforms.Pad(8),
        transforms.Compose([transforms.Resize((64, 64)), transforms.RandomHorizontalFlip(1)]),
        lambda picture: picture.resize((64, 64)) if picture.width < picture.height else picture.crop((0, 0, 64, 64)),
    ],
)  # fmt: skip
def test_of_others_it_is_not_known(step):
    assert measure_seen_area(of(transforms.Compose([step, *FINAL]))) is None


@pytest.mark.parametrize("unit", EXTENT_UNITS)
def test_overlaps_are_counted_pixels(unit):
    """Oracle: pixels of a file of 60 x 40 counted one by one, the rectangle in whole pixels."""
    pixels = 40 if unit == "pixels" else 1
    area, size = SeenArea(unit, 0.5 * pixels, 1.5 * pixels, 0.5, 0.0), (60, 40)
    left, top, right, bottom = area.box(size)
    inside = sum(left <= x < right and top <= y < bottom for x in range(size[0]) for y in range(size[1]))
    shown, filled = area.overlap(size)
    assert shown == pytest.approx(inside / 2400) and filled == pytest.approx(inside / ((right - left) * (bottom - top)))


@given(
    unit=st.sampled_from(EXTENT_UNITS),
    extents=st.tuples(*[st.floats(0.3, 1.2)] * 2),
    places=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 2),
)
def test_an_area_is_described_by_its_rectangles(unit, extents, places):
    """Whatever describes it has the same rectangles on other files, too."""
    pixels = 250 if unit == "pixels" else 1
    area = SeenArea(unit, *(pixels * extent for extent in extents), *places)
    sizes = [(w, h) for h, w in PROBED_SHAPES]
    starts, measured = (np.array([f(size) for size in sizes]) for f in (area.starts, area.extents))
    found = describe_seen_area(np.array(PROBED_SHAPES), starts, measured)
    assert found is not None
    for size in ((1000, 500), (70, 90)):
        off = np.abs(np.array(found.box(size)) - area.box(size))
        assert off.max() <= 1 + 0.02 * max(size)
