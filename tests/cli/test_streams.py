"""Streams that fail, in processes of their own: one line and an exit code, for every verb alike."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
