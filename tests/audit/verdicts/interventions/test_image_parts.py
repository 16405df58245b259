"""Parts that are kept stay to the bit or by a law (histogram, spectrum, means); those that are exchanged are gone."""

import numpy as np
import pytest
from PIL import Image
from skimage.exposure import match_histograms

from klarsicht.audit.verdicts.interventions.image_parts import (
    BACKGROUND,
    CELLS,
    IMAGE_PARTS,
    PartImages,
    background_masks,
    coarse,
)

FILL = np.array([10.0, 20.0, 30.0])


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return PartImages(rng.integers(40, 200, (3, 20, 24, 3)).astype(np.uint8), rng.random((3, 20, 24)) < 0.5)


@pytest.fixture
def donors():
    rng = np.random.default_rng(1)
    return PartImages(rng.integers(0, 256, (3, 20, 24, 3)).astype(np.uint8), rng.random((3, 20, 24)) < 0.5)


def slow_mask(name, height=20, width=24):
    """Pixels of a part, by counting."""
    mask = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            if name == "border":
                mask[y, x] = min(y, x, height - 1 - y, width - 1 - x) < 2
            else:
                low, right = y >= 15 if "bottom" in name else y < 5, x >= 18 if "right" in name else x < 6
                mask[y, x] = low and right
    return mask


@pytest.mark.parametrize("name", ["border", "top left", "top right", "bottom left", "bottom right"])
def test_a_region_is_kept_to_the_bit_and_the_rest_is_one_colour(images, donors, name):
    mask, part = slow_mask(name), IMAGE_PARTS[name]
    kept = part.keep(images, FILL, np.random.default_rng(0))
    np.testing.assert_array_equal(kept[:, mask], images.levels[:, mask])
    assert (kept[:, ~mask] == FILL).all()
    swapped = part.exchange(images, donors)
    np.testing.assert_array_equal(swapped[:, mask], donors.levels[:, mask])
    np.testing.assert_array_equal(swapped[:, ~mask], images.levels[:, ~mask])


def test_a_background_is_exchanged_only_where_both_have_it(images, donors):
    kept = IMAGE_PARTS[BACKGROUND].keep(images, FILL, np.random.default_rng(0))
    swapped = IMAGE_PARTS[BACKGROUND].exchange(images, donors)
    for i in range(3):
        for y, x in np.ndindex(20, 24):
            free = images.background[i, y, x]
            both = free and donors.background[i, y, x]
            assert (kept[i, y, x] == (images.levels[i, y, x] if free else FILL)).all()
            assert (swapped[i, y, x] == (donors if both else images).levels[i, y, x]).all()


def test_colours_keep_each_pixel_once_and_lose_their_places(images):
    kept = IMAGE_PARTS["colours"].keep(images, FILL, np.random.default_rng(0))
    for before, after in zip(images.levels, kept, strict=True):
        assert sorted(map(tuple, before.reshape(-1, 3))) == sorted(map(tuple, after.reshape(-1, 3)))
        assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.1


def test_exchanged_colours_are_those_of_histogram_matching():
    rng = np.random.default_rng(2)
    first, second = (np.stack([rng.permutation(240).reshape(15, 16) + a for a in (0, 5, 10)], -1) for _ in range(2))
    first, second = first.astype(np.uint8), second.astype(np.uint8)
    swapped = IMAGE_PARTS["colours"].exchange(PartImages(first[None]), PartImages(second[None]))[0]
    np.testing.assert_allclose(swapped, match_histograms(first, second, channel_axis=-1), atol=1)
    np.testing.assert_array_equal(np.sort(swapped.reshape(-1, 3), 0), np.sort(second.reshape(-1, 3), 0))


def test_a_spectrum_is_kept_and_phases_are_lost():
    x = np.random.default_rng(3).integers(100, 156, (1, 16, 16, 3)).astype(np.uint8)  # never clipped
    kept = IMAGE_PARTS["spectrum"].keep(PartImages(x), FILL, np.random.default_rng(0))
    before, after = (np.fft.fft2(y.astype(float), axes=(1, 2)) for y in (x, kept))
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=16 * 1.5)  # rounding of 256 pixels: 16 x 0.29
    assert abs(np.corrcoef(x.ravel(), kept.ravel())[0, 1]) < 0.15
    np.testing.assert_allclose(kept.mean((1, 2)), x.mean((1, 2)), atol=0.2)
    red, green = (np.angle(after[0, 1:8, 1:8, c]) - np.angle(before[0, 1:8, 1:8, c]) for c in (0, 1))
    assert np.median(np.abs(np.angle(np.exp(1j * (red - green))))) < 0.2  # the same turn: colours stay together


def test_an_exchanged_spectrum_has_the_donors_amplitudes_and_the_images_phases():
    rng = np.random.default_rng(4)
    x, y = (rng.integers(100, 156, (1, 16, 16, 1)).astype(np.uint8) for _ in range(2))
    swapped = IMAGE_PARTS["spectrum"].exchange(PartImages(x), PartImages(y))
    of = [np.fft.fft2(z[0, ..., 0].astype(float)) for z in (x, y, swapped)]
    np.testing.assert_allclose(np.abs(of[2]), np.abs(of[1]), atol=24)
    turned = np.angle(of[2] * np.conj(of[0]))
    assert np.median(np.abs(turned)) < 0.05


def waves(cycles, amplitude, phase, side=32):
    """A plane of 128 with a wave along its rows, float (1, side, side, 3)."""
    line = 128 + amplitude * np.cos(2 * np.pi * cycles * np.arange(side) / side + phase)
    return np.broadcast_to(line[None, None, :, None], (1, side, side, 3))


def test_an_exchanged_fine_texture_is_the_donors_on_the_coarse_image():
    """Closed form: 2 waves a picture stay as they are, and 12 become the donor's 12, with their phase."""
    image, donor, joint = (
        np.rint(waves(2, coarse, 0.3) + waves(12, fine, phase) - 128).astype(np.uint8)
        for coarse, fine, phase in ((40, 10, 1.0), (5, 30, 2.5), (40, 30, 2.5))
    )
    swapped = IMAGE_PARTS["fine texture"].exchange(PartImages(image), PartImages(donor))
    np.testing.assert_allclose(swapped.astype(int), joint.astype(int), atol=2)


def test_of_a_picture_only_its_fine_texture_is_kept_on_one_colour():
    """Eight waves a picture of 32 pixels have a quarter of a cycle a pixel and are fine; seven are not."""
    part, rng = IMAGE_PARTS["fine texture"], np.random.default_rng(0)
    smooth = part.keep(PartImages(np.rint(waves(7, 60, 0.0)).astype(np.uint8)), FILL, rng)
    np.testing.assert_array_equal(smooth, np.broadcast_to(np.rint(FILL), smooth.shape).astype(np.uint8))
    fine = part.keep(PartImages(np.rint(waves(8, 40, 0.4)).astype(np.uint8)), np.full(3, 128.0), rng).astype(float)
    np.testing.assert_allclose(fine.std((1, 2)), 40 / np.sqrt(2), rtol=0.02)
    np.testing.assert_allclose(fine.mean((1, 2)), 128, atol=0.5)


def test_the_lowest_resolution_is_pillows():
    x = np.random.default_rng(5).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    small = Image.fromarray(x[0]).resize((CELLS, CELLS), Image.Resampling.BOX)
    np.testing.assert_allclose(
        coarse(x)[0], small.resize((32, 32), Image.Resampling.BILINEAR), atol=2.5
    )  # Pillow rounds twice


def test_an_exchanged_resolution_keeps_what_is_fine():
    x = np.full((1, 16, 16, 1), 100, np.uint8)
    x[0, ::2, ::2] += 20  # of the same mean in every cell
    y = np.broadcast_to(np.repeat([60, 180], 8)[:, None, None], (1, 16, 16, 1)).astype(np.uint8)
    swapped = IMAGE_PARTS["resolution"].exchange(PartImages(x), PartImages(y))[0, ..., 0].astype(int)
    np.testing.assert_allclose(swapped - (x[0, ..., 0].astype(int) - 105), coarse(y)[0, ..., 0], atol=1)


def test_half_of_every_image_is_background_whatever_its_relevance():
    maps = np.random.default_rng(6).normal(size=(4, 8, 8))
    maps[0] = 0
    maps[1, 2:6, 2:6] += 100
    masks = background_masks(maps, (32, 40))
    assert masks.shape == (4, 32, 40)
    np.testing.assert_array_equal(masks.sum((1, 2)), 640)
    assert not masks[1, 10:22, 12:28].any()
    assert masks[1, 0].all() and masks[1, -1].all()
