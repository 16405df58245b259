"""Bursts in files: the same bytes from the same seed, and numbers that numpy alone makes burst and truth of."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from klarsicht.burst.synthesis.export import write_set
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.errors import InputError, UsageError

TINY = Geometry(scale=2, height=16, width=24, reach=4)


@pytest.fixture
def photographs(tmp_path):
    (tmp_path / "photographs").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), np.uint8)
    for name, picture in zip("ab", pixels, strict=True):
        Image.fromarray(picture).save(tmp_path / "photographs" / f"{name}.png")
    return tmp_path / "photographs"


def write(photographs, out, **changes):
    return write_set(photographs, out, **{"name": "grey-still", "gains": (1, 8), "seed": 7, "geometry": TINY} | changes)


def test_the_same_seed_is_the_same_bytes_and_another_is_not(photographs, tmp_path):
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        write(photographs, tmp_path / name, seed=seed)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["000-gain1.npz", "000-gain8.npz", "001-gain1.npz", "001-gain8.npz", "set.json"]
    for name in files:
        one, two, other = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two", "other"))
        assert one == two != other


def test_a_file_holds_a_burst_with_the_noise_it_names(photographs, tmp_path):
    write(photographs, tmp_path / "set")
    with np.load(tmp_path / "set" / "001-gain8.npz") as file:
        burst = dict(file)
    assert burst["frames"].shape == (8, 1, 16, 24)
    reference, truth = burst["frames"][0].astype(float), burst["truth"].astype(float)
    deviation = np.sqrt(burst["read"] ** 2 + burst["shot"] * truth)
    assert ((reference - truth) / deviation).std() == pytest.approx(1, abs=0.1)
    with Image.open(photographs / "b.png") as picture:
        light = (np.asarray(picture) / 255.0)[14:-14, 16:-16] ** 2.2
    box = light.mean(-1).reshape(16, 2, 24, 2).mean((1, 3))
    assert truth[0] == pytest.approx(box * burst["exposure"], abs=1e-5)


def test_a_file_of_interpolated_frames_says_from_which_mosaic_and_with_which_balance(photographs, tmp_path):
    """The samples alone, which interpolation keeps, have the noise that is told, over 2."""
    write(photographs, tmp_path / "set", name="bayer-still")
    with np.load(tmp_path / "set" / "001-gain8.npz") as file:
        burst = dict(file)
    assert burst["frames"].shape == (8, 3, 16, 24) and burst["truth"].shape == (3, 16, 24)
    assert str(burst["colour_filter"]) == "RGGB" and burst["balance"][1] == 1
    truth = burst["truth"].astype(float)
    z = (burst["frames"][0] - truth) / np.sqrt((burst["read"] ** 2 + burst["shot"] * truth) / 2)
    samples = np.concatenate([z[0, ::2, ::2], z[1, ::2, 1::2], z[1, 1::2, ::2], z[2, 1::2, 1::2]])
    assert samples.std() == pytest.approx(1, abs=0.15)


def test_the_list_names_photographs_and_hashes_every_file(photographs, tmp_path):
    made = write(photographs, tmp_path / "set")
    about = json.loads((tmp_path / "set" / "set.json").read_text())
    assert about["photographs"] == ["a.png", "b.png"]
    assert about["sha256"] == made.sha256
    for name, digest in about["files"].items():
        assert hashlib.sha256((tmp_path / "set" / name).read_bytes()).hexdigest() == digest


def test_unknown_gains_and_full_folders_are_refused(photographs, tmp_path):
    with pytest.raises(UsageError, match="1, 2, 4, 8"):
        write(photographs, tmp_path / "set", gains=(3,))
    with pytest.raises(UsageError, match="grey-still"):
        write(photographs, tmp_path / "set", name="gray-still")
    with pytest.raises(InputError, match="not empty"):
        write(photographs, photographs)
