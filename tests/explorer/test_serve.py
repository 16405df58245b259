"""The server as a process: its address, what it loads, who it answers, and how it ends."""

import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.explorer.made_run import write_run
from tests.without_torch import WITHOUT_TORCH

from klarsicht.cli.app import run as command
from klarsicht.explorer.serve import DEFAULT_PORT, listen
from klarsicht.ground.run_folder.decisions import DecisionLog


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("made"), images=False).path


@contextmanager
def explored(run, *words, env=None, errors=None):
    """The command as a process that cannot import torch; gives it, and its first address."""
    command = [*WITHOUT_TORCH, "audit", "explore", str(run), "--port", "0", *words]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
    try:
        yield server, server.stdout.readline().split()[1]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def fetch(address, body=None, **headers):
    """Fetch an address, with JSON where there is a body; returns status, headers and content."""
    content = None if body is None else json.dumps(body).encode()
    kind = {} if body is None else {"content-type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, content, kind | headers), timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.mark.slow
def test_it_answers_without_torch_asks_for_its_token_and_ends_by_an_interrupt(made):
    with explored(made, "--no-browser", "--token") as (server, address):
        bare, _, token = address.partition("?token=")
        assert bare.startswith("http://127.0.0.1:") and len(token) == 43
        assert fetch(bare + "api/run")[0] == 401
        _, told, _ = fetch(address)
        for known in ({"authorization": f"Bearer {token}"}, {"cookie": told["set-cookie"].split(";")[0]}):
            status, _, content = fetch(bare + "api/run", **known)
            assert status == 200 and json.loads(content)["names"] == ["tagged", "observed", "plain"]
            assert json.loads(fetch(bare + "api/classes/0", **known)[2])["points"] == 24
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


@pytest.mark.slow
def test_on_all_addresses_its_own_can_be_opened_and_the_browser_is_given_a_file(made, tmp_path):
    """Another browser writes down its arguments, which all users of a machine can read."""
    browser, arguments = tmp_path / "browser", tmp_path / "arguments"
    browser.write_text(f'#!/bin/sh\necho "$@" > {arguments}.part\nmv {arguments}.part {arguments}\n')
    browser.chmod(0o700)
    with explored(made, "--host", "0.0.0.0", env=os.environ | {"BROWSER": str(browser)}) as (server, address):
        status, _, page = fetch(address)
        assert status == 200 and b'content="0;url=/"' in page
        end = time.monotonic() + 60
        while not arguments.exists() and time.monotonic() < end:
            time.sleep(0.05)
        file = Path(arguments.read_text().strip().removeprefix("file://"))
        token = address.partition("?token=")[2]
        assert token and token not in arguments.read_text() and address in file.read_text()
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0 and not file.parent.exists()
        lines = server.stdout.read().splitlines()  # beside the first one: this machine alone
        assert f"http://127.0.0.1:{urlsplit(address).port}/?token={token}" in "\n".join([address, *lines])


HALF = b"POST /api/undo HTTP/1.1\r\nHost: %s\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"


@pytest.mark.slow
@pytest.mark.parametrize("content", [HALF[:-50], HALF], ids=["headers", "bodies"])
def test_a_thousand_half_requests_neither_stop_it_nor_are_printed(made, tmp_path, content):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 2048:
        pytest.skip("this process may not open a thousand connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), before[1]))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        errors = stack.enter_context((tmp_path / "errors").open("w"))
        server, address = stack.enter_context(explored(made, "--no-browser", errors=errors))
        place = urlsplit(address)
        for _ in range(1000):
            one = stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=60))
            with suppress(ConnectionError):  # those that were refused already
                one.sendall(content.replace(b"%s", place.netloc.encode()))
        assert fetch(address + "api/classes")[0] == 200
        assert server.poll() is None
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0 and not server.stdout.read()
        lines = (tmp_path / "errors").read_text().splitlines()
        assert not [line for line in lines if not line.startswith("loading: ")]  # a slow start says that it loads


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_forty_simultaneous_additions_are_kept_and_of_eight_undos_one(tmp_path, count):
    store = write_run(tmp_path, each=60, images=False, maps=False)
    with ExitStack() as stack:
        addresses = [stack.enter_context(explored(store.path, "--no-browser"))[1] for _ in range(count)]
        found = json.loads(fetch(addresses[0] + "api/classes/0")[2])["members"]
        rows = [row for row in range(60) if row not in found][:40]
        barrier = threading.Barrier(40)

        def send(i, path, body):
            barrier.wait(60)
            return fetch(addresses[i % count] + path, body)[0]

        with ThreadPoolExecutor(40) as threads:
            answers = [
                threads.submit(send, i, "api/decisions", {"target": 0, "add": [row]}) for i, row in enumerate(rows)
            ]
            assert {one.result() for one in answers} == {200}
            for address in addresses:
                assert json.loads(fetch(address + "api/classes/0")[2])["members"] == sorted(found + rows)
            barrier = threading.Barrier(8)
            undos = [threads.submit(send, i, "api/undo", {"number": 7}) for i in range(8)]
            assert sorted(one.result() for one in undos) == [200] + [400] * 7
        members = DecisionLog(store.path).decisions()[0].members
        assert len(members) == len(found) + 39 and {*found} < {*members} < {*found, *rows}


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
