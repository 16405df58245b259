"""Streams that fail, in processes of their own: one line and an exit code, for every verb alike."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from klarsicht.cli.streams import guarded_streams

COMMAND = [sys.executable, "-m", "klarsicht"]
FULL = Path("/dev/full")  # Linux: each write to it fails with ENOSPC
VERBS = [["--version"], [], ["audit", "run", "--help"], ["burst"]]

linux = pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")


def lines(process):
    return process.stderr.decode().splitlines()


@linux
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_output_on_a_full_disk_is_one_line_and_the_code_of_a_full_disk(verb):
    with FULL.open("w") as full:
        done = subprocess.run([*COMMAND, *verb], stdout=full, stderr=subprocess.PIPE)
    (line,) = lines(done)
    assert line.startswith("klarsicht: no space left to write standard output")
    assert done.returncode == 5


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_output_that_nobody_reads_is_one_line_and_the_code_of_a_closed_pipe(verb):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *verb], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    (line,) = lines(done)
    assert line.startswith("klarsicht: standard output was closed")
    assert done.returncode == 141


def test_a_closed_pipe_in_a_locale_of_ascii_is_told_as_elsewhere():
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ascii_alone = bare | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "audit", "--help"], stdout=writer, stderr=subprocess.PIPE, env=ascii_alone)
    os.close(writer)
    assert done.returncode == 141 and len(lines(done)) == 1


def test_what_the_encoding_of_a_stream_lacks_is_escaped(monkeypatch):
    """Oracle: Latin-1, which has the u with dots and lacks the sign for lungs."""
    bytes_written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(bytes_written, encoding="latin-1"))
    with guarded_streams():
        print("Müller, 肺", flush=True)
    assert bytes_written.getvalue() == b"M\xfcller, \\u80ba\n"


@linux
def test_errors_that_cannot_be_printed_keep_their_code():
    verb = [*COMMAND, "audit", "status", "nowhere"]
    with FULL.open("w") as full:
        assert subprocess.run(verb, stderr=full, stdout=subprocess.PIPE).returncode == 3
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *verb], stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (3, b"")


def test_a_stream_that_is_not_open_is_no_error():
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *COMMAND, "--version"], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["audit", "quantify"], "Missing argument"),
        (["burst", "denoise", "x"], "Missing option"),
        (["audit", "rank", "run", "--tip", "3"], "No such option"),
        (["audit", "rnk"], "No such command"),
    ],
)
def test_a_fault_in_the_arguments_names_the_help_that_lists_them(words, told):
    done = subprocess.run([*COMMAND, *words], capture_output=True)
    (line,) = lines(done)
    assert told in line and done.returncode == 2
    command = [word for word in words if word in ("audit", "burst", "rank", "quantify", "denoise")]
    assert line.endswith(f" See klarsicht {' '.join(command)} --help.")
