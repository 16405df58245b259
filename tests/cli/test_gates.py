"""Recipes of the page on gates, as they stand there: valid YAML of eight lines at most, whose commands stop on a leak
that is planted."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.audit.conftest import write_corpus

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
WORKFLOW, HOOK = re.findall(r"```yaml\n(.+?)```", (ROOT / "docs" / "gates.md").read_text(), re.S)


def test_a_workflow_and_a_hook_have_eight_lines_at_most():
    assert len(WORKFLOW.splitlines()) <= 8 and len(HOOK.splitlines()) <= 8
    steps = yaml.safe_load(WORKFLOW)
    assert next(step["run"] for step in steps if "run" in step) == "pip install ./klarsicht"
    written = re.search(r"--sarif (\S+)", WORKFLOW)[1]
    assert steps[-1]["with"] == {"sarif_file": written} and steps[-1]["if"] == "always()"
    (hook,) = yaml.safe_load(HOOK)[0]["hooks"]
    assert hook["language"] == "system" and hook["pass_filenames"] is False


@pytest.mark.nightly
def test_both_stop_on_a_copy_across_splits(tmp_path):
    """Steps run in turn until one fails, as the service does; exit codes are those of docs/exit-codes.md."""
    write_corpus(tmp_path / "data" / "train", 24)
    write_corpus(tmp_path / "data" / "val", 12, seed=1)
    shutil.copy(tmp_path / "data" / "train" / "a" / "000.png", tmp_path / "data" / "val" / "a" / "000.png")
    (tmp_path / "net.py").write_text("from tests.audit.conftest import network as build\n")
    (tmp_path / "klarsicht").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m klarsicht "$@"\n')
    (tmp_path / "klarsicht").chmod(0o755)
    there = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}

    def run(command):
        return subprocess.run(command, shell=True, cwd=tmp_path, env=there, capture_output=True, text=True)

    *steps, last = [step["run"] for step in yaml.safe_load(WORKFLOW)[1:] if "run" in step]
    for step in steps:
        done = run(step)
        assert done.returncode == 0, done.stderr
    assert run(last).returncode in (20, 23)  # the leak, or what is graver
    suites = {suite.get("name"): suite for suite in ElementTree.parse(tmp_path / "gate.xml").getroot()}
    assert suites["leak"].get("failures") == "1" and (tmp_path / "gate.sarif").stat().st_size
    assert run(yaml.safe_load(HOOK)[0]["hooks"][0]["entry"]).returncode == 23
