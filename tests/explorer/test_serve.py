"""The server as a process: its address, what it loads, who it answers, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.explorer.made_run import write_run

from klarsicht.cli.app import run as command
from klarsicht.explorer.serve import DEFAULT_PORT, listen


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("made"), images=False).path


@pytest.mark.slow
def test_it_answers_without_torch_asks_for_its_token_and_ends_by_an_interrupt(made):
    words = [sys.executable, "-m", "klarsicht", "audit", "explore", str(made), "--no-browser", "--port", "0", "--token"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[1]
        bare, _, token = address.partition("?token=")
        assert bare.startswith("http://127.0.0.1:") and len(token) == 43
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(bare + "api/run")
        asked = urllib.request.Request(bare + "api/run", headers={"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked) as answer:
            assert json.load(answer)["names"] == ["tagged", "observed", "plain"]
        with urllib.request.urlopen(urllib.request.Request(bare + "api/classes/0", headers=asked.headers)) as answer:
            assert json.load(answer)["points"] == 24
        maps = Path(f"/proc/{server.pid}/maps")
        assert not maps.exists() or "libtorch" not in maps.read_text()
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_taken_port_is_told_and_in_place_of_the_default_another_is_found(made, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert command(["audit", "explore", str(made), "--no-browser", "--port", str(number)]) == 2
    assert f"127.0.0.1 port {number}" in capsys.readouterr().err
    with listen("127.0.0.1", DEFAULT_PORT) as first, listen("127.0.0.1", DEFAULT_PORT) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "code"), [(["--host", "203.0.113.7"], 2), (["--port", "70000"], 2), (["--host", "no such host"], 2)]
)
def test_an_address_that_cannot_be_listened_on_is_one_error(made, capsys, words, code):
    assert command(["audit", "explore", str(made), "--no-browser", *words]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_without_a_run_is_one_error(tmp_path, capsys):
    assert command(["audit", "explore", str(tmp_path), "--no-browser"]) == 3
    assert "no run in this folder" in capsys.readouterr().err
