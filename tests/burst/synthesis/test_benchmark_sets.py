"""Sets that anyone can make again: bytes, names, noise, and photographs that do not fit."""

import hashlib

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.synthesis.benchmark_sets import KODAK, SETS, benchmark_set
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.burst.synthesis.synthesis import KINDS
from klarsicht.ground.errors import CorpusError, ImageError, InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import GAINS

SMALL = Geometry(scale=2, height=24, width=40, reach=4)


@pytest.fixture(scope="module")
def photographs():
    return [data.astronaut()[100:300, 100:400], data.chelsea(), data.coffee()]


def test_names_are_every_kind_with_every_motion():
    assert {f"{kind}-{motion}": (kind, motion) for kind in KINDS for motion in MOTIONS} == SETS


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_its_shape_and_can_be_made_again(photographs, name):
    made, again = (benchmark_set(name, photographs, 7, SMALL) for _ in range(2))
    channels, height, width = {"g": (1, 24, 40), "r": (3, 24, 40), "m": (4, 12, 20)}[name[0]]
    assert made.frames.shape == made.noise.shape == (3, 8, channels, height, width)
    assert made.sha256 == again.sha256 == benchmark_set(name, photographs, 7, SMALL, sha256=made.sha256).sha256
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
    with pytest.raises(InputError, match="hash must be 00"):
        benchmark_set("grey-still", photographs, 7, SMALL, sha256="00")
