"""Requests that the explorer answers: by host, origin, token and kind of request."""

import pytest
from tests.explorer.made_run import write_run
from tests.explorer.requests import HOST, ask

from klarsicht.explorer.app import STATIC, make_app
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.request_guard import LOOPBACK, MAX_BODY, TOKEN_COOKIE, RequestGuard, new_token
from klarsicht.explorer.serve import host_names, is_loopback


@pytest.fixture(scope="module")
def inner(tmp_path_factory):
    return make_app(ExploredRun(write_run(tmp_path_factory.mktemp("made"), images=False, maps=False)))


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


def test_beyond_loopback_a_token_is_asked_for(inner):
    token = new_token()
    guard = RequestGuard(inner, LOOPBACK, 8735, token)
    assert (
        ask(guard, "/api/classes").status == ask(guard, "/?token=wrong").status == ask(guard, "/?token=").status == 401
    )
    assert ask(guard, f"/api/classes?token={token}").status == 401  # only the page takes it from the address
    first = ask(guard, f"/?token={token}")
    assert first.status == 303 and first.headers["location"] == "/"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert ask(guard, "/api/classes", headers={"cookie": cookie.split(";")[0]}).status == 200
    assert ask(guard, "/api/classes", headers={"authorization": f"Bearer {token}"}).status == 200
    for wrong in (f"{TOKEN_COOKIE}=x", "\x01", f"{TOKEN_COOKIE}"):
        assert ask(guard, "/api/classes", headers={"cookie": wrong}).status == 401
    assert ask(guard, f"/?token={token}", headers={"host": "evil.example"}).status == 421


def test_loopback_is_told_from_other_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.0.1", "localhost", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))
    assert host_names("127.0.0.1")[:3] == LOOPBACK and host_names("192.168.0.7") == ("192.168.0.7",)
    assert {"0.0.0.0", "localhost"} <= set(host_names("0.0.0.0"))
