"""The folder of an explanation: shares follow what frames show, whichever way up; pictures and arrays are all there."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

from klarsicht.burst.denoising import explain
from klarsicht.burst.network.checkpoints import save_network
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.cli.app import run
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 1e-3)


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """The mean of the frames, whose answers are known, and not the network that comes along."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)


@pytest.fixture
def burst(tmp_path):
    return taken(tmp_path / "burst", 192, 256)


def taken(folder, height, width):
    """Three frames of a photograph, in the third of which a square was changed; turned on its side by its tag."""
    folder.mkdir()
    square, rng = np.s_[height // 3 : 5 * height // 6, width // 8 : width // 2], np.random.default_rng(0)
    light = (data.camera()[100 : 100 + height, 100 : 100 + width].astype(np.float32) / 255) ** 2.2
    for i in range(3):
        there = light.copy()
        if i == 2:
            there[square] = 0.9 - there[square]
        noisy = LEVEL.sample(there, rng)
        tifffile.imwrite(folder / f"{i}.tif", noisy, extratags=[(274, 3, 1, 6, True)], metadata=None)
    return folder


ROOM = ("--memory", "8")  # GB: what earlier tests left in this process counts


def explained(burst, out, *words):
    code = run(
        ["burst", "explain", str(burst), "-o", str(out), "--noise", "0.02,0.001", "--reference", "0.tif", *words, *ROOM]
    )
    assert code == 0
    return np.load(out / "arrays.npz")


@pytest.mark.slow
def test_a_frame_has_no_share_where_it_shows_something_else(burst, tmp_path, capsys):
    arrays = explained(burst, tmp_path / "out")
    assert arrays["share"].shape == (3, 24, 32) and arrays["trust"].shape == (192, 256)
    np.testing.assert_allclose(arrays["share"].sum(0), 1, rtol=1e-5)
    third = list(arrays["frames"]).index("2.tif")
    assert arrays["share"][third, 10:18, 6:12].max() < 0.01
    assert arrays["share"][third, :, 24:].min() == pytest.approx(1 / 3)
    np.testing.assert_allclose(arrays["averaged"][:, 24:], 3, rtol=1e-5)
    told = capsys.readouterr().out
    assert "share of 2.tif" in told and "(median)" in told


@pytest.mark.slow
def test_frames_of_one_name_in_two_folders_keep_their_pictures(burst, tmp_path, capsys):
    """Two of three frames are called 0.tif, the other 0.TIFF; what was changed in the third is seen in its picture."""
    folders = [tmp_path / name for name in "abc"]
    files = [folder / name for folder, name in zip(folders, ("0.tif", "0.TIFF", "0.tif"), strict=True)]
    for i, file in enumerate(files):
        file.parent.mkdir()
        (burst / f"{i}.tif").rename(file)
    out = tmp_path / "out"
    words = [*map(str, files), "-o", str(out), "--noise", "0.02,0.001", "--reference", "a/0.tif"]
    assert run(["burst", "explain", *words]) == 0
    assert {"share of a/0.tif", "share of c/0.tif", "share of 0.TIFF"} <= {
        line.split(":")[0] for line in capsys.readouterr().out.splitlines()
    }
    arrays = np.load(out / "arrays.npz")
    frames = list(arrays["frames"])
    assert sorted(frames) == ["0.TIFF", "a/0.tif", "c/0.tif"]
    assert sorted(p.name for p in out.glob("share-*")) == ["share-0.png", "share-a-0.png", "share-c-0.png"]
    third, first = (np.asarray(Image.open(out / f"share-{name}-0.png"), int) for name in "ca")
    assert np.abs(third - first).max() > 50


def test_files_of_frames_are_told_apart():
    assert explain.name_files(["0.png", "1.png"]) == ["0", "1"]
    assert explain.name_files(["x.png", "X.tif", "y.png"]) == ["1-x", "2-X", "3-y"]  # one file where case is nothing
    assert explain.name_files(["a/b.png", "a-b.png"]) == ["1-a-b", "2-a-b"]


def test_pictures_are_upright_and_sizes_named(tmp_path):
    burst = taken(tmp_path / "burst", 96, 128)
    net = build_network(NetworkSettings(width=0.125, frames=4), seed=1)
    save_network(net, tmp_path / "n.safetensors", {})
    arrays = explained(burst, tmp_path / "out", "--checkpoint", str(tmp_path / "n.safetensors"))
    names = {file.name for file in (tmp_path / "out").iterdir()}
    pictures = {f"share-{i}.png" for i in range(3)} | {f"size-{K}.png" for K in (1, 5, 15)}
    assert names == pictures | {"averaged.png", "reach.png", "alone.png", "arrays.npz", "page.html"}
    assert list(arrays["sizes"]) == [1, 5, 15] and int(arrays["every"]) == 8
    np.testing.assert_allclose(arrays["size"].sum(0), 1, rtol=1e-3)
    for name in pictures:
        assert Image.open(tmp_path / "out" / name).size == (12, 16)


@pytest.mark.slow
def test_the_network_that_comes_along_explains_itself(burst, tmp_path, capsys):
    """Of three frames, the third has little weight where it shows something else, and a fair share elsewhere."""
    arrays = explained(burst, tmp_path / "out", "--checkpoint", "swift")
    np.testing.assert_allclose(arrays["share"].sum(0), 1, rtol=1e-4)
    np.testing.assert_allclose(arrays["size"].sum(0), 1, rtol=1e-3)
    third = list(arrays["frames"]).index("2.tif")
    there, elsewhere = arrays["share"][third, 10:18, 6:14], arrays["share"][third, :, 24:]
    assert there.mean() < 0.5 * elsewhere.mean() and 0.1 < elsewhere.mean() < 0.5
    assert np.median(arrays["averaged"]) > 3 and arrays["reach"].max() < 15 / 2**0.5
    assert "network swift" in capsys.readouterr().out
