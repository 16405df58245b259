"""`klarsicht burst audit` as a user types it."""

import json

import numpy as np
import pytest
from tests.bridge.test_denoiser_audit import LEVEL, scene

from klarsicht.cli.app import run


@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (["absent", "-o", "out"], 3, "no such burst"),
        (["a.txt", "-o", "out"], 3, "a.txt is no burst"),
        (["a.npz", "-o", "out"], 3, "holds no synthetic burst"),
        (["a.npz", "-o", "out", "--checkpoint", "swfit"], 2, "swift"),
        (["a.npz"], 2, "--out"),
    ],
)
def test_wrong_words_are_one_line_with_an_exit_code(words, code, printed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("no burst")
    (tmp_path / "a.npz").write_bytes(b"no archive")
    assert run(["burst", "audit", *words]) == code
    captured = capsys.readouterr()
    assert printed in captured.err and captured.out == "" and captured.err.strip().count("\n") == 0


@pytest.mark.slow
def test_the_table_of_strategies_and_json(tmp_path, capsys):
    shots, truth = scene(True)
    frames, true = (np.repeat(light, 3, -3) for light in (shots.frames, truth))
    np.savez(tmp_path / "one.npz", frames=frames, truth=true, read=LEVEL.read, shot=LEVEL.shot)
    words = ["burst", "audit", str(tmp_path / "one.npz"), "--points", "200"]
    assert run([*words, "-o", str(tmp_path / "a")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("strategy") and lines[-1] == f"page: {tmp_path / 'a' / 'page.html'}"
    assert any("copy what moved" in line for line in lines)
    assert run([*words, "-o", str(tmp_path / "b"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads((tmp_path / "b" / "strategies.json").read_text())
