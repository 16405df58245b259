"""The RawTherapee script, with stand-ins for both programs; and with RawTherapee itself."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.burst.conftest import write_dng

SCRIPT = Path(__file__).parents[2] / "extras" / "rawtherapee" / "klarsicht-rawtherapee"


def stand_in(path, body):
    path.write_text(f'#!/bin/sh\necho "$(basename "$0")" "$@" >> "{path.parent}/calls"\n{body}\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def run(tmp_path):
    """The script with a klarsicht that copies a.dng, ends with a code, and says how it was called."""
    programs, folder = tmp_path / "bin", tmp_path / "my frames"
    programs.mkdir()
    folder.mkdir()

    def run_script(*words, code=0, path=programs):
        klarsicht = stand_in(
            programs / "klarsicht", f'mkdir -p "$3/klarsicht"; cp "$3/a.dng" "$3/klarsicht"; exit {code}'
        )
        environment = {**os.environ, "KLARSICHT": str(klarsicht), "PATH": f"{path}:{os.environ['PATH']}"}
        told = subprocess.run(["sh", SCRIPT, *words], env=environment, capture_output=True, text=True)
        calls = programs / "calls"
        return told, calls.read_text().splitlines() if calls.exists() else []

    (folder / "a.dng").touch()
    return run_script


def test_photographs_are_opened_or_developed_and_the_exit_code_is_that_of_what_failed(run, tmp_path):
    folder, programs = tmp_path / "my frames", tmp_path / "bin"
    stand_in(programs / "rawtherapee", "exit 0")
    stand_in(programs / "rawtherapee-cli", "exit 4")
    told, calls = run(folder)
    assert told.returncode == 0
    assert calls == [
        f"klarsicht burst denoise {folder} -o {folder}/klarsicht/{{}}.dng",
        f"rawtherapee {folder}/klarsicht",
    ]
    told, calls = run(folder, "my.pp3")
    assert (told.returncode, calls[-1].split()[0]) == (4, "rawtherapee-cli")
    assert run(folder, code=3)[0].returncode == 3
    assert run(tmp_path / "absent")[0].returncode == 2


@pytest.mark.nightly
def test_rawtherapee_develops_the_photographs(run, tmp_path):
    if shutil.which("rawtherapee-cli") is None:
        pytest.skip("no rawtherapee-cli, which .ci/nightly installs")
    write_dng(tmp_path / "my frames" / "a.dng", np.full((96, 128), 4000))
    (tmp_path / "neutral.pp3").write_text("[Version]\nAppVersion=5.11\nVersion=351\n")
    told, _ = run(tmp_path / "my frames", tmp_path / "neutral.pp3")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "my frames" / "klarsicht" / "a.jpg").exists()
