"""Guard of the explorer's server: who may ask, from where, and what a browser may do with the answers.

A page of another site can make a browser send requests to a server on this machine, and by rebinding its own name to
127.0.0.1 read the answers. Against both, the header `Host` must name this server, and `Origin` and `Sec-Fetch-Site`,
where a browser sends them, must be of this server. Beyond loopback a token is asked for: the page exchanges it for a
session, which the browser keeps in a cookie. Browsers send a cookie to all ports of a host, so its name holds the port,
and its content is of no use once this server has ended.
"""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
MAX_BODY = 1_000_000  # bytes of a request: 80,000 rows are fewer
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
        hosts, port: names of this server, without port, and its port; None: any, for tests.
        token: secret that is exchanged for a session; None: nothing is asked for.
        session: secret that a request must hold where there is a token.
    """

    inner: Application
    hosts: tuple[str, ...] = LOOPBACK
    port: int | None = None
    token: str | None = None
    session: str = field(default_factory=lambda: new_token())

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
            await _refuse(send_guarded, *refused)
        elif self._holds_token(scope):
            cookie = f"{self.cookie_name}={self.session}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(send_guarded, 200, forward_page("/"), "text/html", (("set-cookie", cookie), _NOT_KEPT))
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            await _refuse(send_guarded, 403, "Requests from other sites are refused: open the address itself.")
        elif self.token is not None and not self._knows_session(headers):
            await _refuse(send_guarded, 401, "Open the address that the command printed: it holds the token.")
        elif scope["method"] in WRITING:
            await self._hand_on_body(scope, receive, send_guarded)
        else:
            await self.inner(scope, receive, send_guarded)

    @property
    def cookie_name(self) -> str:
        return f"klarsicht-session-{self.port}"

    async def _hand_on_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a body of bounded length, whatever its header says, and hand it on."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > MAX_BODY:
                await _refuse(send, *_TOO_LONG)
                return
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_body() -> Message:
            return parts.pop() if parts else await receive()

        await self.inner(scope, receive_body, send)

    def reason_refused(self, method: str, headers: MutableMapping[str, str]) -> tuple[int, str] | None:
        """Return status and reason where a request is refused for its method or headers; None where it is not."""
        if not self._is_own(headers.get("host", "")):
            return 421, "This server does not answer to that name."
        if method not in (*READING, *WRITING):
            return 405, "Only GET, HEAD and POST."
        origin = headers.get("origin")
        if origin is not None and not (origin.startswith("http://") and self._is_own(origin.removeprefix("http://"))):
            return 403, "Requests from other sites are refused."
        if method in WRITING:
            length = headers.get("content-length", "")
            if not (length.isascii() and length.isdecimal()):
                return 411, "A request needs a length."
            if int(length) > MAX_BODY:
                return _TOO_LONG
            if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return 415, "A request is JSON."
        return None

    def _is_own(self, authority: str) -> bool:
        host, colon, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
        name = (host if colon else authority).lower()
        return name in self.hosts and (self.port is None or port == str(self.port))

    def _holds_token(self, scope: Scope) -> bool:
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        return scope["method"] == "GET" and scope["path"] == "/" and _same(given, self.token)

    def _knows_session(self, headers: MutableMapping[str, str]) -> bool:
        """Say whether a request holds the session, among the cookies of all servers of this host, or the token."""
        cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        given = headers.get("authorization", "").removeprefix("Bearer ")
        sessions = (value for name, _, value in cookies if name == self.cookie_name)
        return _same(given, self.token) or any(_same(one, self.session) for one in sessions)


def forward_page(address: str) -> bytes:
    """Make a page that leads a browser on to an address. A redirection would not do after the token: a browser that
    came from a file sends the cookie only with a request that a page of this site caused."""
    to = html.escape(address)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>klarsicht</title>
<meta http-equiv="refresh" content="0;url={to}"><a href="{to}">Open the run</a></html>
""".encode()


def new_token() -> str:
    """Draw a token of 256 random bits."""
    return secrets.token_urlsafe(32)


def _same(text: str, secret: str | None) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return bool(secret) and secrets.compare_digest(text.encode("utf-8", "replace"), str(secret).encode())


_NOT_KEPT: Final = ("cache-control", "no-store")
_TOO_LONG: Final = (413, "The request is too long.")


async def _refuse(send: Send, status: int, text: str) -> None:
    await _answer(send, status, json.dumps({"error": text}).encode(), "application/json")


async def _answer(send: Send, status: int, body: bytes, media: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
    sent = [("content-type", media), ("content-length", str(len(body))), *headers]
    await send(
        {"type": "http.response.start", "status": status, "headers": [(n.encode(), v.encode()) for n, v in sent]}
    )
    await send({"type": "http.response.body", "body": body})
