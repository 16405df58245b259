"""Low-level measures against what they are measures of: noise of known size, JPEG by Pillow, blur by SciPy, borders."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from klarsicht.numerics.imaging import image_statistics

RNG = np.random.default_rng(0)
FLAT = np.full((30, 32, 32, 3), 120.0)
SCENES = np.clip(gaussian_filter(RNG.normal(128, 400, (30, 32, 32, 3)), (0, 1.5, 1.5, 0)), 0, 255)

LAPLACE = np.array([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])  # Immerkaer (1996): 0 on planes; sum of squares 36


def jpeg(x, quality):
    out = []
    for image in x.astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(file)))
    return np.array(out, np.float64)


def test_laplacian_is_the_convolution():
    found = image_statistics.laplacian(SCENES)[2, :, :, 1]
    np.testing.assert_allclose(found, convolve2d(SCENES[2, :, :, 1], LAPLACE, "valid") / 6, atol=1e-9)


@pytest.mark.parametrize("sigma", [4.0, 10.0, 25.0])
def test_noise_is_measured_where_the_scene_is_flat(sigma):
    noisy = FLAT + RNG.normal(0, sigma, FLAT.shape)
    assert np.expm1(image_statistics.roughness(noisy)).mean() == pytest.approx(sigma, rel=0.2)
    assert (np.expm1(image_statistics.noise(noisy)) < np.expm1(image_statistics.roughness(noisy))).all()


@pytest.mark.parametrize("measure", [image_statistics.noise, image_statistics.roughness, image_statistics.chroma_noise])
def test_noise_rises_and_slopes_are_no_noise(measure):
    slope = np.broadcast_to(np.arange(32.0)[None, None, :, None] * 4, FLAT.shape)
    np.testing.assert_allclose(measure(slope), 0, atol=1e-6)
    assert (measure(SCENES + RNG.normal(0, 16, SCENES.shape)) > measure(SCENES)).all()


@pytest.mark.parametrize("measure", [image_statistics.sharpness, image_statistics.ringing])
def test_blur_lowers_it(measure):
    assert (measure(gaussian_filter(SCENES, (0, 1.2, 1.2, 0))) < measure(SCENES)).all()


def test_jpeg_makes_blocks():
    assert (image_statistics.blockiness(jpeg(SCENES, 20)) > image_statistics.blockiness(SCENES) + 0.1).mean() > 0.9
    assert abs(image_statistics.blockiness(SCENES)).mean() < 0.3


@pytest.mark.parametrize("width", [1, 2, 3])
def test_borders(width):
    framed = SCENES.copy()
    for side in (np.s_[:, :width], np.s_[:, -width:], np.s_[:, :, :width], np.s_[:, :, -width:]):
        framed[side] = 0
    black = np.log1p(np.median(SCENES[:, width : width + 1, width:-width].mean(-1), axis=2))[:, 0]
    assert (image_statistics.frame(framed) > 2.5).all() and (image_statistics.frame(framed) <= black + 1e-9).all()
    for measure in (image_statistics.frame, image_statistics.bars):
        assert (measure(framed) > 2.5).all()
        assert (measure(SCENES) <= 1).all()
        assert (measure(FLAT + RNG.normal(0, 25, FLAT.shape)) <= 1).all()
        np.testing.assert_allclose(measure(np.full((2, 32, 32, 3), 255.0)), 1)  # a white background ends nowhere
    boxed = SCENES.copy()
    boxed[:, :, :width] = boxed[:, :, -width:] = 0
    assert (image_statistics.bars(boxed) > 2.5).all() and (image_statistics.frame(boxed) <= 1).all()


def test_grey_images_have_no_colour():
    np.testing.assert_allclose(image_statistics.chroma_noise(SCENES[..., :1]), 0, atol=1e-9)


def test_light_leaves_no_black():
    dark = SCENES.copy()
    dark[:, 0, :16] = 0  # 16 of 1,024 pixels
    np.testing.assert_allclose(np.expm1(image_statistics.veil(dark)), 0, atol=1e-9)
    np.testing.assert_allclose(np.expm1(image_statistics.veil(dark + 24)), 24, atol=1e-9)
