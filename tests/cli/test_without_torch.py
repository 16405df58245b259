"""Commands that only read a run, and their help, in a process in which every import of torch fails."""

import json
import subprocess
from pathlib import Path

import pytest
from tests.explorer.made_run import write_run
from tests.without_torch import WITHOUT_TORCH

from klarsicht.ground.trust import record_code


def answer(*words):
    return subprocess.run([*WITHOUT_TORCH, "audit", *words], capture_output=True, text=True)


def ending(told):
    """Exit code and complaints; on a busy machine lines of progress stand beside these."""
    return told.returncode, [line for line in told.stderr.splitlines() if "so far" not in line]


@pytest.mark.parametrize("command", ["rank", "explore", "export"])
def test_their_help_imports_no_torch(command):
    told = answer(command, "--help")
    assert ending(told) == (0, []) and f"audit {command}" in told.stdout


def test_a_ranking_is_read_without_torch(tmp_path):
    run = write_run(tmp_path, images=False).path
    told = answer("rank", str(run), "--json")
    assert ending(told) == (0, [])
    assert [one["class"] for one in json.loads(told.stdout)] == ["tagged", "observed", "plain"]


@pytest.mark.slow
def test_images_that_a_decoder_reads_are_exported_without_torch(tmp_path):
    store, decode = write_run(tmp_path), f"{tmp_path / 'decode.py'}:read"
    Path(tmp_path, "decode.py").write_text("from PIL import Image\n\n\ndef read(path):\n    return Image.open(path)\n")
    store.update_manifest(settings=store.manifest["settings"] | {"decode": decode}, code=record_code(decode))
    told = answer("export", str(store.path), "--to", "page", "--out", str(tmp_path / "page.html"))
    assert ending(told) == (0, []) and "data:image/jpeg" in Path(tmp_path, "page.html").read_text()


@pytest.mark.slow
def test_what_imports_torch_fails_there(tmp_path):
    told = answer("run", "--model", "torchvision:resnet18", "--data", str(tmp_path), "--out", str(tmp_path / "run"))
    assert told.returncode != 0 and "torch is imported" in told.stderr
