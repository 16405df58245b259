"""Guard of the explorer's server: who may ask, from where, and what a browser may do with the answers.

A page of another site can make a browser send requests to a server on this machine, and by rebinding its own name to
127.0.0.1 read the answers. Against both, the header `Host` must name this server, and `Origin`, where a browser sends
it, must be this server. Beyond loopback a token is asked for.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
TOKEN_COOKIE: Final = "klarsicht-token"
MAX_BODY = 16 << 20  # bytes of a request: a selection of a million rows is smaller
READING, WRITING = ("GET", "HEAD"), ("POST",)
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}
"""Headers of every answer: no script, style or picture but the server's own, and no page that frames it."""


@dataclass(frozen=True)
class RequestGuard:
    """ASGI application that hands on the requests that may be answered.

    Attributes:
        inner: the application.
        hosts: names of this server, without port.
        port: its port; None: any, for tests.
        token: what a request must know; None: nothing.
    """

    inner: Application
    hosts: tuple[str, ...] = LOOPBACK
    port: int | None = None
    token: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self.reason_refused(scope["method"], headers)
        if refused is not None:
            await _answer(send_guarded, refused[0], refused[1])
        elif self.token is not None and not self._knows_token(headers):
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
            if scope["method"] == "GET" and scope["path"] == "/" and _same(given, self.token):
                cookie = f"{TOKEN_COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                await _answer(send_guarded, 303, "known", (("location", "/"), ("set-cookie", cookie)))
            else:
                await _answer(send_guarded, 401, "Open the address that the command printed: it holds the token.")
        else:
            await self.inner(scope, receive, send_guarded)

    def reason_refused(self, method: str, headers: MutableMapping[str, str]) -> tuple[int, str] | None:
        """Return status and reason where a request is refused for its method or headers; None where it is not."""
        if not self._is_own(headers.get("host", "")):
            return 421, "This server does not answer to that name."
        if method not in (*READING, *WRITING):
            return 405, "Only GET, HEAD and POST."
        origin = headers.get("origin")
        if origin is not None and not (origin.startswith("http://") and self._is_own(origin.removeprefix("http://"))):
            return 403, "Requests from other sites are refused."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and method in WRITING:
            return 403, "Requests from other sites are refused."
        if method in WRITING:
            length = headers.get("content-length", "")
            if not (length.isascii() and length.isdecimal()):
                return 411, "A request needs a length."
            if int(length) > MAX_BODY:
                return 413, "The request is too long."
            if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return 415, "A request is JSON."
        return None

    def _is_own(self, authority: str) -> bool:
        """Say whether a host with its port is this server."""
        host, colon, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
        name = (host if colon else authority).lower()
        return name in self.hosts and (self.port is None or port == str(self.port))

    def _knows_token(self, headers: MutableMapping[str, str]) -> bool:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        given = [cookies[TOKEN_COOKIE].value] if TOKEN_COOKIE in cookies else []
        given += [headers.get("authorization", "").removeprefix("Bearer ")]
        return any(_same(one, self.token or "") for one in given)


def new_token() -> str:
    """Draw a token of 256 random bits."""
    return secrets.token_urlsafe(32)


def _same(text: str, token: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return bool(token) and secrets.compare_digest(text.encode("utf-8", "replace"), token.encode())


async def _answer(send: Send, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
    """Answer with a status and a reason as JSON."""
    body = json.dumps({"error": text}).encode()
    sent = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
    await send(
        {"type": "http.response.start", "status": status, "headers": [(n.encode(), v.encode()) for n, v in sent]}
    )
    await send({"type": "http.response.body", "body": body})
