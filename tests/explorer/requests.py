"""Requests to an ASGI application in this process, without a server or a client library."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

HOST = "127.0.0.1:8735"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def ask(
    app: Any, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """Send one request; a body makes it a POST of JSON. An exception of the application is raised here."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    own = {"host": HOST}
    if body is not None:
        own |= {"content-type": "application/json", "content-length": str(len(content))}
    parts = urlsplit(path)
    sent = {name: value for name, value in (own | (headers or {})).items() if value != ""}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method or ("GET" if body is None else "POST"),
        "scheme": "http",
        "path": unquote(parts.path, errors="replace"),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8735),
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in sent.items()],
    }
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    async def call() -> None:
        await app(scope, receive, send)

    asyncio.run(call())
    start = messages[0]
    told = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], told, b"".join(m.get("body", b"") for m in messages[1:]))


def parse_points(content: bytes) -> dict[str, np.ndarray]:
    """Parse the points of a class, as point_clouds.py describes them."""
    magic, n, d, _ = struct.unpack("<4sIII", content[:16])
    assert magic == b"KSP1"
    at, columns = 16, {}
    for name in ("rows", "label", "predicted", "component", "flags"):
        columns[name] = np.frombuffer(content, "<i4", n, at)
        at += 4 * n
    for name, wide in (("plane", 2 if d else 0), ("vectors", d)):
        columns[name] = np.frombuffer(content, "<f4", n * wide, at).reshape(n, wide)
        at += 4 * n * wide
    assert at == len(content)
    return columns


def read_picture(answer: Answer) -> np.ndarray:
    """Read the levels (h, w, 3) of a picture that was answered."""
    assert answer.status == 200
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
