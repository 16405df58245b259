"""Requests that the explorer answers: by host, origin, token and kind of request."""

import ipaddress
import json
import socket

import pytest
from tests.explorer.made_run import write_run
from tests.explorer.requests import HOST, ask

from klarsicht.explorer.answers import STATIC
from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.request_guard import LOOPBACK, MAX_BODY, RequestGuard, new_token
from klarsicht.explorer.serve import host_names, is_loopback, listen, names_to_open


@pytest.fixture(scope="module")
def inner(tmp_path_factory):
    return make_app(ExploredRun.of(write_run(tmp_path_factory.mktemp("made"), images=False, maps=False)))


@pytest.fixture
def guard(inner):
    return RequestGuard(inner, LOOPBACK, 8735)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8735",
        "127.0.0.1:80",
        "127.0.0.1",
        "127.0.0.1.evil.example:8735",
        "127.0.0.1:8735@x",
        "[::1",
        "::1:8735",
    ],
)
def test_another_host_is_refused(guard, host):
    assert ask(guard, "/api/classes", headers={"host": host}).status == 421


@pytest.mark.parametrize("host", [HOST, "localhost:8735", "LOCALHOST:8735", "[::1]:8735"])
def test_the_own_host_is_answered(guard, host):
    assert ask(guard, "/api/classes", headers={"host": host}).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": f"http://{HOST}"}, 200),
        ({"origin": "http://localhost:8735"}, 200),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": f"https://{HOST}"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-length": ""}, 411),
        ({"content-length": "x"}, 411),
        ({"content-length": str(MAX_BODY + 1)}, 413),
    ],
)
def test_orders_come_from_the_own_pages_alone(guard, headers, status):
    assert ask(guard, "/api/decisions", {"target": 0, "decision": "unsure"}, headers=headers).status == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(guard, method):
    assert ask(guard, "/api/classes", method=method).status == 405


def test_every_answer_forbids_scripts_and_frames_of_others(guard):
    for path in ("/", "/api/classes", "/api/none", "/static/main.js"):
        policy = ask(guard, path).headers["content-security-policy"]
        parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert (
            parts["default-src"] == "'none'"
            and parts["script-src"] == "'self'"
            and parts["frame-ancestors"] == "'none'"
        )
        assert "unsafe" not in policy and "http" not in policy
    assert ask(guard, "/", headers={"host": "evil.example"}).headers["x-content-type-options"] == "nosniff"


def test_pages_hold_no_inline_script_style_or_foreign_address(guard):
    page = ask(guard, "/").content.decode()
    assert page.count("<script") == 1 and '<script type="module" src="/static/main.js"></script>' in page
    assert "<style" not in page and " style=" not in page and "://" not in page
    for name in STATIC:
        text = ask(guard, f"/static/{name}").content.decode().replace("http://www.w3.org/", "")
        assert "://" not in text and "innerHTML" not in text and "eval(" not in text, name


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e%2fapp.py",
        "/static//etc/passwd",
        "/manifest.json",
        "/static/index.html",
        "/docs",
        "/openapi.json",
        "/redoc",
        "/static/main.js%00.png",
        "/api/images/..%2f..%2fetc%2fpasswd/picture",
    ],
)
def test_no_other_file_can_be_asked_for(guard, path):
    assert ask(guard, path).status in (404, 422)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_and_ports_get_no_answer(guard, inner, site):
    from_there = {"sec-fetch-site": site}
    for path in ("/", "/api/classes", "/api/images/0/picture", "/static/main.js"):
        assert ask(guard, path, headers=from_there).status == 403
        assert ask(guard, path, headers=from_there, method="HEAD").status == 403
    token = new_token()
    asked = RequestGuard(inner, LOOPBACK, 8735, token)
    for path in ("/?token=wrong", f"/api/classes?token={token}", "/?token="):
        assert ask(asked, path, headers=from_there).status == 403
    assert ask(asked, f"/?token={token}", headers=from_there).status == 200  # a file of this user, that knows it


def test_a_body_is_measured_as_it_comes(guard):
    """Whatever its header says, as of one that comes in chunks."""
    long = b" " * (MAX_BODY + 1)
    assert ask(guard, "/api/decisions", long, headers={"content-length": "9"}).status == 413
    rows = json.dumps({"rows": [2**31 - 1 - i for i in range(80_000)]}).encode()  # as many as a page sends at once
    assert len(rows) < MAX_BODY and ask(guard, "/api/mean", rows).status == 400  # and only the rows are refused


def test_beyond_loopback_a_token_is_exchanged_for_a_session(inner):
    token = new_token()
    guard = RequestGuard(inner, LOOPBACK, 8735, token)
    refused = [ask(guard, path).status for path in ("/", "/api/classes", "/?token=wrong", "/?token=", "/?token")]
    assert refused == [401] * 5
    assert ask(guard, f"/api/classes?token={token}").status == 401  # only the page takes it from the address
    first = ask(guard, f"/?token={token}")
    assert first.status == 200 and b'content="0;url=/"' in first.content
    cookie, *rules = first.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} == set(rules)
    name, _, session = cookie.partition("=")
    assert name.endswith("-8735") and len(session) == 43 and token not in str(first)
    assert ask(guard, "/api/classes", headers={"cookie": f'other={{"a":[1, 2]}}; {cookie}; \x01'}).status == 200
    assert ask(guard, "/api/classes", headers={"authorization": f"Bearer {token}"}).status == 200
    other = name.replace("8735", "8736")
    for wrong in (f"{name}=x", f"{name}={token}", f"{other}={session}", "\x01", name):
        assert ask(guard, "/api/classes", headers={"cookie": wrong}).status == 401
    assert ask(guard, "/api/classes", headers={"authorization": f"Bearer {session}"}).status == 401
    assert ask(guard, f"/?token={token}", headers={"host": "evil.example"}).status == 421
    later = RequestGuard(inner, LOOPBACK, 8735, token)
    assert ask(later, "/api/classes", headers={"cookie": cookie}).status == 401  # a session ends with its server


def test_loopback_is_told_from_other_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.0.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))
    assert set(LOOPBACK) < set(host_names("127.8.0.1", "127.8.0.1"))
    assert host_names("Studio", "192.168.0.7") == ("studio", "192.168.0.7")


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "::", ""])
def test_of_a_server_on_all_addresses_those_are_told_that_can_be_opened(host):
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IP 6")
    with listen(host, 0) as listening:
        own, port = listening.getsockname()[:2]
        names = names_to_open(host, own)
        for name in names:
            socket.create_connection((name.strip("[]"), port), timeout=60).close()
    addresses = [ipaddress.ip_address(name.strip("[]")) for name in names]
    assert addresses[-1].is_loopback and not any(one.is_unspecified for one in addresses)
    assert {*names, "localhost", socket.gethostname().lower()} <= set(host_names(host, own))
    assert names_to_open("studio", "192.168.0.7") == ["studio"] and names_to_open("::1", "::1") == ["[::1]"]
