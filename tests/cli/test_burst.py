"""`klarsicht burst train` and `synth` as a user types them."""

import hashlib
import json
import subprocess

import numpy as np
import pytest
from PIL import Image
from tests.without_torch import WITHOUT_TORCH

from klarsicht.burst.network import pretrained
from klarsicht.burst.network.checkpoints import read_card
from klarsicht.burst.synthesis.benchmark_sets import SETS
from klarsicht.cli.app import run
from klarsicht.numerics.pixel_kernels import load


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos with spaces"
    folder.mkdir()
    for i in range(2):
        coarse = np.random.default_rng(i).integers(0, 256, (32, 48, 3))
        Image.fromarray(np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_train_writes_a_network_and_resumes(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(load, "supports", lambda taps, frames: False)  # no program is compiled for two steps
    (tmp_path / "small.toml").write_text('size = 32\nscale = 2\nframes = 2\nmotion = ["still"]\nsteps = 9\n')
    out = tmp_path / "net.safetensors"
    words = ["--photos", str(photos), "--out", str(out), "--settings", str(tmp_path / "small.toml")]
    words += ["--preset", "kpn", "--width", "0.125", "--colour", "rgb", "--steps", "2", "--batch", "1", "--seed", "3"]
    assert run(["burst", "train", *words]) == 0
    assert capsys.readouterr().out == f"network: {out}\n"
    card = read_card(out)
    assert card.settings.model_dump() == {"preset": "kpn", "width": 0.125, "colour": "rgb", "frames": 2}
    told = {name: card.training["settings"][name] for name in ("steps", "batch", "seed", "size", "motion")}
    assert told == {"steps": 2, "batch": 1, "seed": 3, "size": 32, "motion": ["still"]}
    before = out.read_bytes()
    assert run(["burst", "train", *words]) == 0
    assert out.read_bytes() == before


def test_synth_writes_a_set_and_prints_its_hash(photos, tmp_path, capsys):
    out = tmp_path / "bursts"
    assert run(["burst", "synth", str(photos), "-o", str(out), "--gain", "2", "--set", "grey-shaken"]) == 0
    about = json.loads((out / "set.json").read_text())
    assert capsys.readouterr().out == f"2 photographs; set grey-shaken, seed 7, sha256 {about['sha256']}\n"
    assert sorted(about["files"]) == ["000-gain2.npz", "001-gain2.npz"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["train", "--photos", "PHOTOS", "--out", "net.safetensors", "--preset", "swfit"], 2, "swift"),
        (["train", "--photos", "PHOTOS", "--out", "net.pt"], 2, ".safetensors"),
        (["train", "--photos", "PHOTOS", "--out", "n.safetensors", "--steps", "3", "--minutes", "1"], 2, "one of them"),
        (["train", "--photos", "absent", "--out", "net.safetensors"], 3, "absent"),
        (["synth", "absent", "-o", "bursts"], 3, "absent"),
        (["synth", "PHOTOS", "-o", "bursts", "--set", "gray-still"], 2, "grey-still"),
        (["synth", "PHOTOS", "-o", "bursts", "--gain", "3"], 2, "1, 2, 4, 8"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, code, told, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert run(["burst", *(str(photos) if word == "PHOTOS" else word for word in words)]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_are_listed_with_the_hash_of_their_file(capsys):
    files = sorted(pretrained.FOLDER.glob("*.safetensors"))
    assert run(["burst", "weights"]) == 0
    told = capsys.readouterr().out
    assert all(hashlib.sha256(file.read_bytes()).hexdigest() in told for file in files)
    assert run(["burst", "weights", "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)) == sorted(file.stem for file in files)


def test_the_help_of_a_set_names_all_sets(capsys):
    """Oracle: the table of sets; every frame with every motion."""
    assert run(["burst", "synth", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for name in SETS:
        frames, _, motion = name.rpartition("-")
        assert frames in told and f"-{motion}" in told.replace("- ", "-")


@pytest.mark.parametrize("command", ["denoise", "calibrate", "explain", "check"])
def test_a_wrong_path_is_named_before_what_denoises_is_imported(command, tmp_path):
    """Imports of torch take seconds; in this process they all fail."""
    words = ["burst", command, tmp_path / "absent.dng", *(["-o", tmp_path / "o"] if command != "check" else [])]
    told = subprocess.run([*WITHOUT_TORCH, *words], capture_output=True, text=True)
    assert (told.returncode, told.stderr.count("\n")) == (3, 1), told.stderr
    assert "no such file; got" in told.stderr and "absent.dng" in told.stderr
