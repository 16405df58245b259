"""Every burst of a folder in one command: which frames became which files, and what a stop or a bad burst leaves."""

import json

import numpy as np
import pytest
from PIL import Image

from klarsicht.burst.denoising import burst_folder
from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.cli.app import run
from klarsicht.ground.errors import InputError, UsageError

NOISE = ["--noise", "0.02,0.001", "--threads", "1"]


def write_frame(path, second, seed, light=100):
    exif = Image.Exif()
    exif[271] = "Example"
    exif.get_ifd(0x8769).update({36867: f"2026:11:30 12:00:{second:02}", 34855: 100})
    codes = np.random.default_rng(seed).normal(light, 5, (48, 64)).clip(0, 255).astype(np.uint8)
    Image.fromarray(codes).save(path, exif=exif)


@pytest.fixture
def frames(tmp_path, monkeypatch):
    """Bursts of three and two frames, a single one, and three seconds or more between them."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, second in enumerate([0, 1, 2, 10, 20, 21]):
        write_frame(folder / f"P{i}.png", second, i)
    return folder


def written(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_each_burst_becomes_one_photograph_which_the_second_time_is_not_made_again(frames, tmp_path, capsys):
    out = tmp_path / "clean"
    words = ["burst", "denoise", str(frames), "-o", str(out / "{}.png"), "--page", str(out / "{}.html"), *NOISE]
    assert run([*words, "--dry-run"]) == 0
    planned = capsys.readouterr().out.splitlines()
    assert planned[:2] == ["left out: 1 single frame: P3.png", "2 bursts of 5 frames"]
    assert [line.split(":")[0] for line in planned[2:]] == [str(out / "P0-2.png"), str(out / "P4-5.png")]
    assert "3 frames, 2026-11-30 12:00:00" in planned[2] and not out.exists()

    assert run(words) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.partition(": ")[0] for line in lines] == [line.partition(": ")[0] for line in planned[2:]]
    assert "3 of 3 frames" in lines[0] and "2 of 2 frames" in lines[1]
    assert written(out) == [burst_folder.RECORD, "P0-2.html", "P0-2.png", "P4-5.html", "P4-5.png"]
    assert np.asarray(Image.open(out / "P0-2.png")).std() < np.asarray(Image.open(frames / "P0.png")).std() * 257

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run(words) == 0
    assert all(line.endswith("made before") for line in capsys.readouterr().out.splitlines()[2:])
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_rehearsal_does_not_say_that_anything_is_done(frames, tmp_path, capsys):
    (frames / "P9.png").write_bytes(b"no picture")
    assert run(["burst", "denoise", str(frames), "-o", str(tmp_path / "clean" / "{}.png"), *NOISE, "--dry-run"]) == 3
    told = capsys.readouterr().err
    assert "not everything can be denoised" in told and "done" not in told and not (tmp_path / "clean").exists()


def test_what_changed_is_made_again_and_nothing_else(frames, tmp_path):
    out = tmp_path / "{}.png"
    settings = DenoiseSettings(noise="0.02,0.001", threads=1)

    def made(*further):
        lines = [line for line in denoise(frames, out, *further) if "frames" in line and "made before" not in line]
        return [name for name in ("P0", "P4") if any(f"{name}-" in line for line in lines)]

    assert made(settings) == ["P0", "P4"]
    (tmp_path / "P4-5.png").unlink()
    assert made(settings) == ["P4"]
    write_frame(frames / "P1.png", 1, 77)
    assert made(settings) == ["P0"]
    (tmp_path / burst_folder.RECORD).write_bytes(b"{")
    assert made(settings) == ["P0", "P4"]
    assert made(settings.model_copy(update={"strength": 0.5})) == ["P0", "P4"]
    file = tmp_path / "levels.json"
    calibrated = DenoiseSettings(calibration=str(file), threads=1)
    for level, expected in ((0.02, ["P0", "P4"]), (0.02, []), (0.03, ["P0", "P4"])):
        file.write_text(json.dumps({"Example": {"100": {"read": level, "shot": 0.001, "frames": 4}}}))
        assert made(calibrated) == expected


def test_a_bad_burst_and_a_bad_file_do_not_stop_the_others(frames, tmp_path, capsys):
    Image.new("RGB", (64, 48)).save(frames / "no time.png")
    (frames / "broken.png").write_bytes(b"none")
    for i in range(3):
        write_frame(frames / f"Q{i}.png", 30 + i, i)
    out = tmp_path / "clean"
    assert run(["burst", "denoise", str(frames), "-o", str(out / "{}.png"), *NOISE, "--reference", "3"]) == 3
    told = capsys.readouterr()
    assert "left out: no time.png does not say when it was captured" in told.out
    assert "left out: cannot read broken.png" in told.out
    assert "P4-5.png: failed: " in told.out and "got 3 bursts or files" in told.err
    assert {"P0-2.png", "Q0-2.png"} <= set(written(out)) and "P4-5.png" not in written(out)


def test_a_stop_leaves_whole_files_and_the_same_command_goes_on(frames, tmp_path, monkeypatch):
    settings, out, real = DenoiseSettings(noise="0.02,0.001", threads=1), tmp_path / "clean", burst_folder.write_outputs

    def stop_at_the_second(outputs, result, painter):
        if outputs["photograph"].name == "P4-5.png":
            raise KeyboardInterrupt
        return real(outputs, result, painter)

    monkeypatch.setattr(burst_folder, "write_outputs", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        list(denoise(frames, out / "{}.png", settings))
    assert [name for name in written(out) if name.endswith(".png")] == ["P0-2.png"]
    assert list(json.loads((out / burst_folder.RECORD).read_bytes())) == ["P0-2.png"]
    monkeypatch.setattr(burst_folder, "write_outputs", real)
    lines = list(denoise(frames, out / "{}.png", settings))[2:]
    assert ["made before" in line for line in lines] == [True, False]
    assert not list(out.glob(".*.work"))


def test_mistakes_are_named_before_a_frame_is_denoised(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(burst_folder, "denoise_frames", None)
    with pytest.raises(UsageError, match=r"`page` is one file.*Put \{\} into `page`"):
        list(denoise(frames, tmp_path / "{}.png", page=tmp_path / "a.html"))
    with pytest.raises(UsageError, match="would lie among the frames"):
        list(denoise(frames, frames / "{}.png"))
    with pytest.raises(UsageError, match="`pause` separates bursts"):
        list(denoise(frames, tmp_path / "a.png", pause=1.0))
    with pytest.raises(InputError, match=r"no burst among the frames; got 6 single ones.*0\.5 s apart"):
        list(denoise(frames, tmp_path / "{}.png", pause=0.5))
    assert list(denoise(frames, tmp_path / "a.png", dry_run=True)) == [f"{tmp_path / 'a.png'}: 6 frames"]


def test_a_jpeg_smaller_than_the_burst_says_so(frames, tmp_path, monkeypatch):
    monkeypatch.setattr("klarsicht.burst.files.write_pictures.PREVIEW", 32)
    settings, files = DenoiseSettings(noise="0.02,0.001", threads=1), sorted(frames.iterdir())[:3]
    lines = "\n".join(denoise(files, tmp_path / "small.jpg", settings))
    assert Image.open(tmp_path / "small.jpg").size == (32, 24)  # of 64 x 48
    assert "small.jpg has at most 32 pixels a side, of 64 x 48" in lines and ".png, .tif or .dng has all" in lines
    assert "has at most" not in "\n".join(denoise(files, tmp_path / "whole.png", settings))
