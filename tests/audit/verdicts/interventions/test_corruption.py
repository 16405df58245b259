"""Artifacts without a place: their size is known, for the tests put it there by other means."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from tests.audit.verdicts.detectors.test_bank import scenes

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.corruption import KINDS, Corruption

GLASS = PixelScale(np.full(3, -1, np.float32), np.full(3, 1, np.float32))


def jpeg(x, quality):
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def noisy(x):
    return np.clip(np.rint(x + np.random.default_rng(int(x.sum())).normal(0, 12, x.shape)), 0, 255).astype(np.uint8)


BY_OTHERS = {
    "noise": (noisy, 12, 1.5),
    "blur": (lambda x: np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(1.5))), 1.5, 0.5),
    "blocks": (lambda x: jpeg(x, 35), 65, 20),
    "light": (lambda x: np.asarray(Image.fromarray(x).point(lambda v: v + 20)), 20, 4),
}


def changed(levels, kind):
    return np.stack([BY_OTHERS[kind][0](x) for x in levels])


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_is_that_which_was_put_there(kind):
    """By Pillow, or by noise drawn here."""
    levels = scenes(60, np.random.default_rng(5)) // 2 + 40
    _, size, error = BY_OTHERS[kind]
    found = Corruption.of(kind, changed(levels[:25], kind), levels[25:], GLASS)
    assert found is not None and found.size == pytest.approx(size, abs=error)
    assert str(found).startswith(f"{found.size:.3g} ")


def test_noise_that_black_cuts_off_is_counted_on_both_sides():
    """On black half of the noise is gone: what is left deviates by sqrt(1/2 - 1/(2 pi)) of it, .58. Its size is known
    all the same, for it is cut off where it is imitated as well."""
    black = np.zeros((40, 24, 24, 1), np.uint8)
    noise = np.random.default_rng(0).normal(0, 20, black.shape)
    carriers = np.clip(np.rint(black + noise), 0, 255).astype(np.uint8)
    assert carriers.std() == pytest.approx(20 * np.sqrt(0.5 - 0.5 / np.pi), rel=0.02)
    assert KINDS["noise"].match_size(carriers, black) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_images_alike_show_none(kind):
    levels = scenes(60, np.random.default_rng(5)) // 2 + 40
    twice = np.concatenate([levels, levels])
    assert Corruption.of(kind, twice, twice, GLASS).size == 0


@pytest.mark.parametrize("kind", KINDS)
def test_pasting_is_the_change_in_the_models_units(kind):
    level = scenes(1, np.random.default_rng(5))[0]
    image = torch.from_numpy(level.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)
    put = Corruption(kind, 10.0 if kind == "noise" else 2.0, GLASS)
    assert put.fits(image) and not put.fits(image[:1])
    (seen,), (control,) = put.put(image[None], np.random.default_rng(3))
    assert torch.equal(control, image)
    direct = KINDS[kind].apply(level[None].astype(np.float32), put.size, np.random.default_rng(3))[0]
    np.testing.assert_allclose((seen.numpy().transpose(1, 2, 0) + 1) * 127.5, direct, atol=1e-3)
    assert seen.shape == image.shape and seen.dtype == image.dtype


def test_a_record_says_it_all():
    put = Corruption("blur", 1.25, GLASS)
    again = Corruption.from_json(put.to_json())
    assert (again.kind, again.size) == (put.kind, put.size)
    np.testing.assert_array_equal(again.pixel_scale.black, GLASS.black)
