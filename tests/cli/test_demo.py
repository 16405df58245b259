"""The name of the command that the demonstration prints."""

import sys

from klarsicht.cli.demo import name_command


def test_the_command_is_named_as_a_shell_finds_it(monkeypatch, tmp_path):
    """By its file, where the environment of `make demo` is not active."""
    monkeypatch.setattr(sys, "argv", [".venv/bin/klarsicht", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert name_command() == ".venv/bin/klarsicht"
    (tmp_path / "klarsicht").write_text("#!/bin/sh\n")
    (tmp_path / "klarsicht").chmod(0o755)
    assert name_command() == "klarsicht"
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["src/klarsicht/__main__.py", "demo"])
    assert name_command() == "python -m klarsicht"
