"""Ctrl-C: the same command is said to resume where pages of the documentation say so, and to begin again elsewhere."""

import pytest

from klarsicht.cli import app


@pytest.mark.parametrize(
    ("words", "resumes"),
    [
        ("audit run --model m --data d", True),
        ("audit quantify run", True),
        ("audit shortcuts run", True),
        ("audit power run", True),
        ("audit duplicates photographs/", False),
        ("audit duplicates photographs/ --out copies", True),
        ("audit duplicates {run}", True),
        ("audit clean run", True),
        ("audit clean run --class a --class b", True),
        ("audit clean run --class a", False),
        ("audit clean run --class=a --out cleaned", False),
        ("audit clean run --part surroundings", False),
        ("audit clean-data run --out cleaned", True),
        ("audit evaluate run --correction c", False),
        ("audit check run a.png", False),
        ("audit doctor --model m --data d", False),
        ("burst denoise frames/ -o a.dng", True),
        ("burst explain frames/ -o why", True),
        ("burst train photographs/ --out n.safetensors", True),
        ("burst audit frames/ --out strategies", True),
        ("burst check frames/", False),
        ("", False),
    ],
)
def test_the_line_after_ctrl_c_says_whether_the_same_command_resumes(tmp_path, monkeypatch, capsys, words, resumes):
    def stop(*_, **__):
        raise KeyboardInterrupt

    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setattr(app, "app", stop)
    assert app.run(words.format(run=tmp_path).split()) == 130
    line = capsys.readouterr().err
    assert line.startswith("klarsicht: stopped; ")
    assert ("the same command resumes" in line, "the same command begins again" in line) == (resumes, not resumes)
