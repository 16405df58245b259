"""Only regular files are opened: a pipe would be waited for, a device read for ever. Oracle: an alarm."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klarsicht.burst.network.checkpoints import load_network
from klarsicht.burst.noise.sources import read_calibration
from klarsicht.cli.app import run
from klarsicht.ground.errors import InputError, ModelError


@pytest.fixture(autouse=True)
def alarm():
    def ring(*_):
        raise TimeoutError("a pipe was opened")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.fixture
def frames(tmp_path):
    (tmp_path / "frames").mkdir()
    for i in range(2):
        Image.fromarray(np.full((48, 48, 3), 90 + i, np.uint8)).save(tmp_path / "frames" / f"{i}.png")
    return tmp_path / "frames"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("ending", [".png", ".dng", ".tif"])
def test_a_frame_that_is_no_file_is_named(frames, kind, ending, capsys):
    odd = make(frames / f"odd{ending}", kind)
    for given in (frames, *([odd] if kind != "folder" else [])):
        assert run(["burst", "denoise", str(given), "-o", str(frames.parent / "out.png")]) == 3
        told = capsys.readouterr().err
        assert told.startswith(f"klarsicht: {odd.name} is not a regular file") and told.count("\n") == 1
    assert not Path(frames.parent / "out.png").exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_other_files_of_a_burst_are_regular_too(tmp_path, kind):
    odd = make(tmp_path / "odd.safetensors", kind)
    with pytest.raises(ModelError, match=r"odd\.safetensors is not a regular file"):
        load_network(odd)
    with pytest.raises(InputError, match=r"odd\.safetensors is not a regular file"):
        read_calibration(odd, "a camera", 100)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_photographs_of_a_training_are_regular(frames, kind, capsys):
    make(frames / "!odd.png", kind)
    assert run(["burst", "synth", str(frames), "--out", str(frames.parent / "bursts")]) == 3
    assert "!odd.png is not a regular file" in capsys.readouterr().err
