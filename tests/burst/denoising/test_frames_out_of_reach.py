"""Frames whose disk or network does not answer in mid-run: one line, an exit code, nothing written, and the same
command given again ends as an undisturbed one. The system's errors are injected from the n-th call on."""

import builtins
import errno
import io
import os
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from tests.marks import slow_but_first

from klarsicht.burst.files import loading, reading
from klarsicht.cli.app import run

ERRNOS = (errno.ENOENT, errno.EIO, errno.ESTALE, errno.ENOTCONN)
SIZE = (48, 64)
RAISES = 1000  # calls: more than any command makes


@pytest.fixture(autouse=True)
def mean_of_frames(monkeypatch):
    """The mean of the frames takes no time."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)


@pytest.fixture(params=["dng", "png"])
def burst(request, tmp_path, dng):
    """Three frames, all of one kind."""
    folder = tmp_path / "burst"
    folder.mkdir()
    for i in range(3):
        counts = np.random.default_rng(i).integers(2000, 9000, SIZE)
        if request.param == "dng":
            dng(folder / f"{i}.dng", counts)
        else:
            picture = np.random.default_rng(0).integers(90, 160, (*SIZE, 3)) + i
            Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i}.{request.param}")
    return folder


class Unanswered:
    """Calls that open or look at a file, or what is in a folder, and fail from the n-th on."""

    def __init__(self, monkeypatch, victim, number, first):
        self.victim, self.number, self.first, self.calls = os.fspath(victim), number, first, 0
        for owner, name in ((os, "stat"), (io, "open"), (builtins, "open")):
            monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, call):
        def answer(path, *arguments, **options):
            if isinstance(path, str | os.PathLike) and f"{os.fspath(path)}/".startswith(f"{self.victim}/"):
                self.calls += 1
                if self.calls > self.first:
                    raise OSError(self.number, os.strerror(self.number), self.victim)
            return call(path, *arguments, **options)

        return answer


@contextmanager
def unanswered(victim, number=errno.EIO, first=RAISES):
    with pytest.MonkeyPatch.context() as patch:
        yield Unanswered(patch, victim, number, first)


def words(command, burst, out):
    camera, noise = ["--camera", "a", "--iso", "1"], ["--noise", "0.02,0.001", "--threads", "1"]
    to = [] if command == "check" else ["-o", str(out)]
    return ["burst", command, str(burst), *(camera if command == "calibrate" else noise), *to]


def held(folder):
    """All files below a folder, but the frames, and what they hold."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "burst"
    }


def ended_in_one_line(code, capsys, victim):
    told = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in told if line.startswith("klarsicht:")]
    return code in (3, 11) and len(lines) == 1 and victim.name in lines[0] and "Traceback" not in "".join(told)


@pytest.mark.parametrize("number", slow_but_first(ERRNOS), ids=errno.errorcode.get)
def test_denoising_ends_in_one_line_and_resumes_as_if_nothing_had_been(burst, tmp_path, capsys, number):
    command, victim = words("denoise", burst, tmp_path / "made" / "out.png"), sorted(burst.iterdir())[1]
    with unanswered(victim) as counted:
        assert run(command) == 0
    undisturbed = held(tmp_path)
    assert counted.calls > 5
    (tmp_path / "made" / "out.png").unlink()
    capsys.readouterr()
    for first in range(ERRNOS.index(number) % 2, counted.calls, 2):
        with unanswered(victim, number, first):
            code = run(command)
        assert ended_in_one_line(code, capsys, victim), f"from call {first} on"
        assert not (tmp_path / "made" / "out.png").exists()
    assert run(command) == 0
    assert held(tmp_path) == undisturbed


@pytest.mark.parametrize("burst", ["dng", "png", "tif", "jpg"], indirect=True)
@pytest.mark.parametrize("command", ["denoise", "explain", "check", "calibrate"])
def test_so_does_every_command_that_reads_frames(burst, tmp_path, capsys, command):
    victim = sorted(burst.iterdir())[2]
    for number in ERRNOS:
        with unanswered(victim, number, first=3):
            assert ended_in_one_line(run(words(command, burst, tmp_path / "out")), capsys, victim)
        assert not (tmp_path / "out.png").exists()


def test_a_frame_that_is_gone_when_it_is_read_is_named(burst, tmp_path, capsys, monkeypatch):
    """By a file system, and not by an injected error: the last frame is taken away while the first is read."""
    victim, read = sorted(burst.iterdir())[2], reading.read

    def reading_beside_a_thief(path, settings):
        victim.unlink(missing_ok=True)
        return read(path, settings)

    monkeypatch.setattr(loading.reading, "read", reading_beside_a_thief)
    assert ended_in_one_line(run(words("denoise", burst, tmp_path / "out.png")), capsys, victim)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("burst", ["dng"], indirect=True)
def test_a_disk_that_fails_within_a_file_is_not_taken_for_damage(burst, tmp_path, capsys, monkeypatch):
    """LibRaw, which reads by itself, tells both by one error: here it says so of a file that is sound, and reading on
    meets the disk's."""
    rawpy, victim = pytest.importorskip("rawpy"), sorted(burst.iterdir())[0]

    def imread(path):
        Unanswered(monkeypatch, path, errno.EIO, first=0)
        raise rawpy.LibRawDataError(b"Data error or unsupported file format")

    monkeypatch.setattr(rawpy, "imread", imread)
    code = run(words("denoise", burst, tmp_path / "out.png"))
    told = capsys.readouterr().err
    assert code == 11 and f"{victim.name} is out of reach; got Input/output error" in told


@pytest.mark.parametrize("number", slow_but_first(ERRNOS), ids=errno.errorcode.get)
@pytest.mark.parametrize("burst", ["png"], indirect=True)
def test_so_is_a_folder_of_frames_that_is_gone(burst, tmp_path, capsys, number):
    for first in range(0, 30, 3):
        with unanswered(burst, number, first):
            assert ended_in_one_line(run(words("denoise", burst, tmp_path / "out.png")), capsys, burst)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("number", slow_but_first(ERRNOS), ids=errno.errorcode.get)
@pytest.mark.parametrize("first", range(3))
def test_photographs_of_an_evaluation_are_named_likewise(tmp_path, capsys, number, first):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((512, 768, 3), np.uint8)).save(tmp_path / name)
    with unanswered(tmp_path / "b.png", number, first):
        code = run(["burst", "evaluate", "--photos", str(tmp_path), "-o", str(tmp_path / "report")])
    assert ended_in_one_line(code, capsys, tmp_path / "b.png")
    assert not (tmp_path / "report").exists()
