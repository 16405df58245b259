"""Sets that anyone can make again: bytes, names, noise, and photographs that do not fit."""

import dataclasses
import hashlib

import numpy as np
import pytest
from scipy.ndimage import convolve
from skimage import data

from klarsicht.burst.data.cokriging import MOSAICS
from klarsicht.burst.synthesis.benchmark_sets import KODAK, SETS, benchmark_set
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.burst.synthesis.synthesis import KINDS
from klarsicht.ground.errors import CorpusError, ImageError, UsageError
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

SMALL = Geometry(scale=2, height=24, width=40, reach=4)


@pytest.fixture(scope="module")
def photographs():
    return [data.astronaut()[100:300, 100:400], data.chelsea(), data.coffee()]


def test_names_are_every_kind_with_every_motion():
    kinds = (*KINDS, *MOSAICS)
    assert {f"{kind}-{motion}": (kind, motion) for kind in kinds for motion in MOTIONS} == SETS


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_its_shape_and_can_be_made_again(photographs, name):
    made, again = (benchmark_set(name, photographs, 7, SMALL) for _ in range(2))
    channels, height, width = {"g": (1, 24, 40), "m": (4, 12, 20)}.get(name[0], (3, 24, 40))
    assert made.frames.shape == made.noise.shape == (3, 8, channels, height, width)
    assert made.sha256 == again.sha256
    assert made.sha256 != benchmark_set(name, photographs, 8, SMALL).sha256
    assert ("moving" in name or "occluded" in name) == bool(made.paths.any())
    assert ("shaken" in name) == bool(made.angles.any())


def test_the_hash_is_that_of_the_bytes(photographs):
    made = benchmark_set("grey-still", photographs, 7, SMALL)
    fields = ("frames", "noise", "exposures", "displacements", "angles", "paths")
    arrays = [getattr(made, field) for field in fields]
    expected = hashlib.sha256(b"".join(repr(a.shape).encode() + a.tobytes() for a in arrays)).hexdigest()
    assert made.sha256 == expected


def test_bytes_do_not_change_from_one_version_to_the_next(photographs):
    """Made from the losslessly stored photographs of scikit-image."""
    assert benchmark_set("grey-still", photographs, 7, SMALL).sha256.startswith("977cf03cd1c9c0ca")


def test_a_longer_list_begins_with_the_same_bursts(photographs):
    short, long = (benchmark_set("rgb-occluded", photographs[:n], 7, SMALL) for n in (2, 3))
    np.testing.assert_array_equal(long.frames[:2], short.frames)
    np.testing.assert_array_equal(long.noise[:2], short.noise)


def test_noise_is_the_protocols(photographs):
    made = benchmark_set("grey-still", photographs, 7, SMALL)
    w = float(made.exposure(1, drawn=True))
    assert made.exposure(1, drawn=False) == 1 and 0.1 <= w <= 1
    burst = made.burst(1, GAINS[4], w)
    clean = made.frames[1] * w
    z = (burst.frames - clean) / np.sqrt(10 ** (-2 * 1.44) + 10**-1.84 * clean)
    np.testing.assert_allclose(z, made.noise[1], atol=1e-4)
    np.testing.assert_allclose(made.truth(1, w), clean[0])
    assert made.noise.std() == pytest.approx(1, abs=0.02)


def bilinear(samples, colours):
    """Colours of the means of their samples among the nearest 3 x 3, weighted as a tent is: another interpolation."""
    tent = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    planes = []
    for c in range(3):
        there = (colours == c).astype(float)
        total, weight = (convolve(x, tent, mode="mirror") for x in (samples * there, there))
        planes.append(total / weight)
    return np.stack(planes)


@pytest.mark.parametrize("mosaic", MOSAICS)
def test_frames_behind_a_mosaic_keep_its_samples_and_the_noise_is_told_as_the_command_tells_it(photographs, mosaic):
    made = benchmark_set(f"{mosaic}-still", photographs, 7, SMALL)
    w, level = float(made.exposure(1, drawn=True)), GAINS[2]
    burst, clean = made.burst(1, level, w), made.frames[1] * w
    noisy = clean + np.sqrt(level.read**2 + level.shot * clean) * made.noise[1]
    cell = np.array(["RGB".index(letter) for letter in MOSAICS[mosaic]])
    side = int(len(cell) ** 0.5)
    colours = np.tile(cell.reshape(side, side), (20, 20))[:24, :40]
    for frame, sampled in zip(burst.frames, noisy, strict=True):
        for c in range(3):
            np.testing.assert_allclose(frame[c][colours == c], sampled[c][colours == c], atol=1e-5)
    assert burst.colour_filter == MOSAICS[mosaic]
    assert burst.noise.read**2 == pytest.approx(level.read**2 * {"bayer": 2, "x-trans": 1.8}[mosaic])
    smooth = np.stack([bilinear(np.choose(colours, frame), colours) for frame in clean])
    noiseless = made.burst(1, NoiseLevel(0.0, 0.0), w).frames
    assert np.abs(noiseless - smooth).mean() < 0.5 * np.abs(smooth - smooth.mean((-2, -1), keepdims=True)).mean()


def test_colours_behind_a_mosaic_are_those_of_a_camera_and_are_compared_after_white_balance(photographs):
    grey = np.repeat(data.coffee()[..., :1], 3, -1)
    made = benchmark_set("bayer-still", [grey], 7, SMALL)
    red, green, blue = made.truth(0, 0.5)
    assert red.mean() < 0.6 * green.mean() and blue.mean() < 0.7 * green.mean()
    shown = made.balance(0, made.truth(0, 0.5))
    np.testing.assert_allclose(shown[0], shown[1], rtol=1e-4)
    np.testing.assert_allclose(shown[2], shown[1], rtol=1e-4)
    other = benchmark_set("rgb-still", photographs, 7, SMALL)
    assert other.balance(0, other.truth(0, 1)) is not None
    np.testing.assert_array_equal(other.balance(0, other.truth(0, 1)), other.truth(0, 1))


def test_the_hash_behind_a_mosaic_holds_its_cell_and_the_balances(photographs):
    bayer, x_trans = (benchmark_set(f"{mosaic}-still", photographs, 7, SMALL) for mosaic in ("bayer", "x-trans"))
    np.testing.assert_array_equal(bayer.frames, x_trans.frames)
    assert bayer.sha256 != x_trans.sha256
    assert dataclasses.replace(bayer, balances=bayer.balances * 2).sha256 != bayer.sha256


def test_kodak_photographs_are_used_whole_and_upright_ones_turned():
    wide = np.random.default_rng(0).integers(0, 256, (512, 768, 3), np.uint8)
    lying, upright = (benchmark_set("grey-still", [p], 7) for p in (wide, wide.swapaxes(0, 1)))
    assert lying.frames.shape == (1, 8, 1, 224, 352) and KODAK.crop == (512, 768)
    assert lying.sha256 == upright.sha256


def test_what_cannot_be_made_is_refused(photographs):
    with pytest.raises(UsageError, match="grey-still"):
        benchmark_set("gray-still", photographs, 7)
    with pytest.raises(CorpusError):
        benchmark_set("grey-still", [], 7)
    with pytest.raises(ImageError, match="photograph 0 is too small"):
        benchmark_set("grey-still", photographs, 7)
