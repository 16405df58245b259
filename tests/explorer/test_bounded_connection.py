"""Connections of the real server: those that ask for nothing keep out nobody, end by themselves, and print nothing."""

import asyncio
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace

import pytest
import uvicorn
from uvicorn.server import ServerState

from klarsicht.explorer import bounded_connection
from klarsicht.explorer.app import make_app
from klarsicht.explorer.bounded_connection import BoundedConnection
from klarsicht.explorer.request_guard import LOOPBACK, RequestGuard
from klarsicht.explorer.serve import listen, make_server

LARGE = 1 << 25  # bytes
SECONDS = 60  # after which a test that waits for the server fails
HEAD = b"Host: 127.0.0.1:PORT\r\n"
UNFINISHED = {
    "nothing": b"",
    "half headers": b"GET / HTTP/1.1\r\n" + HEAD,
    "half body": b"POST /api/undo HTTP/1.1\r\n"
    + HEAD
    + b"content-type: application/json\r\ncontent-length: 99\r\n\r\n{",
    "chunks without an end": b"GET / HTTP/1.1\r\n" + HEAD + b"transfer-encoding: chunked\r\n\r\n9\r\nabc",
}
WRONG = {
    "no request": b"\x16\x03\x01\r\n\r\n",
    "a web socket": b"GET / HTTP/1.1\r\n" + HEAD + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "another host": b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a fault": b"GET /fault HTTP/1.1\r\n" + HEAD + b"\r\n",
}


async def answer(scope, receive, send):
    if scope["path"] == "/fault":
        raise KeyError("told to nobody here")
    await asyncio.sleep(0.1 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * (LARGE if scope["path"] == "/large" else 1)})


@contextmanager
def served(inner=answer):
    """The server of the command, in a thread; gives its port, and its connections."""
    level = logging.getLogger("asyncio").level
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        server = make_server(RequestGuard(inner, LOOPBACK, port))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield SimpleNamespace(port=port, connections=server.server_state.connections)
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            logging.getLogger("asyncio").setLevel(level)


def connect(port, content):
    connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    connection.sendall(content.replace(b"PORT", str(port).encode()))
    return connection


def receive(connection):
    """Receive some bytes; none where the server closed the connection."""
    with suppress(ConnectionResetError):
        return connection.recv(1 << 16)
    return b""


def is_closed(connection):
    """Wait until the server closes a connection; False where it does not."""
    with suppress(TimeoutError):
        while receive(connection):
            pass
        return True
    return False


def get(port, path="/"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS) as found:
        return found.read()


@pytest.mark.parametrize("content", [UNFINISHED[name] for name in ("nothing", "half headers", "half body")])
def test_one_too_many_takes_the_place_of_the_oldest_that_waits(monkeypatch, capfd, content):
    monkeypatch.setattr(bounded_connection, "MAX_CONNECTIONS", 4)
    with served() as server, ExitStack() as stack:
        many = [stack.enter_context(connect(server.port, content)) for _ in range(12)]
        assert get(server.port) == b"x"
        assert all(map(is_closed, many[:8]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", UNFINISHED.values(), ids=UNFINISHED)
def test_a_request_that_does_not_come_whole_is_given_up(monkeypatch, capfd, content):
    monkeypatch.setattr(bounded_connection, "WHOLE_SECONDS", 0.02)
    with served() as server, connect(server.port, content) as connection:
        assert is_closed(connection)
    assert capfd.readouterr() == ("", "")


def test_an_answer_may_take_longer_than_its_request(monkeypatch):
    monkeypatch.setattr(bounded_connection, "WHOLE_SECONDS", 0.02)
    with served() as server:
        assert get(server.port, "/slow") == b"x"


def test_who_takes_nothing_of_an_answer_is_left(monkeypatch):
    """The answer does not fit into the buffers of the system: the rest is dropped, and the connection with it."""
    monkeypatch.setattr(bounded_connection, "WHOLE_SECONDS", 0.02)
    with served() as server, connect(server.port, b"GET /large HTTP/1.1\r\n" + HEAD + b"\r\n") as connection:
        assert connection.recv(9) == b"HTTP/1.1 "
        end = time.monotonic() + SECONDS
        while server.connections and time.monotonic() < end:
            time.sleep(0.01)
        assert not server.connections
        assert sum(map(len, iter(lambda: receive(connection), b""))) < LARGE


class Clock:
    """Loop whose time does not pass, and that holds what is to be called later."""

    def __init__(self):
        self.later = []

    def time(self):
        return 0.0

    def call_later(self, _, act):
        self.later.append(act)
        return SimpleNamespace(cancel=lambda: None)


@pytest.mark.parametrize(
    ("unsent", "checks"), [([0, 0], 1), ([9, 9, 9], 1), ([9, 8, 8, 8], 2), ([9, 8, 7, 0, 0], 3), ([9, 0, 0], 1)]
)
def test_an_answer_is_cut_off_where_its_reader_takes_nothing_of_it(unsent, checks):
    """Bytes that are left at each check; it is cut off at the first at which they are no fewer, or none."""
    clock, ended = Clock(), []
    sizes = iter(unsent)
    connection = BoundedConnection(uvicorn.Config(answer, log_config=None), ServerState(), {}, clock)
    connection.transport = SimpleNamespace(get_write_buffer_size=lambda: size, abort=lambda: ended.append(size))
    size = next(sizes)
    connection._await_request()
    for act in clock.later:
        size = next(sizes)
        act()
    assert (len(clock.later), ended) == (checks, [size])


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_nothing_is_printed_of_a_request(capfd, content):
    with served() as server:
        for _ in range(3):
            with connect(server.port, content + b"\r\n") as connection:
                assert connection.recv(100).startswith(b"HTTP/1.1 ")
        assert get(server.port) == b"x"
    assert capfd.readouterr() == ("", "")


def test_a_fault_is_told_to_who_asked(capfd):
    def fail():
        raise KeyError("x")

    made = SimpleNamespace(revision="", record_count=0, list_steps=fail)
    run = SimpleNamespace(results=made, decisions=made, reader=made)
    with served(make_app(run)) as server, pytest.raises(urllib.error.HTTPError) as told:
        get(server.port, "/api/progress")
    text = told.value.read().decode()
    assert told.value.code == 500 and "a fault of klarsicht itself: KeyError" in text and __file__[-15:] in text
    assert capfd.readouterr() == ("", "")
