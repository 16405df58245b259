"""Start of the explorer's server: a socket, the address, a browser."""

from __future__ import annotations

import ipaddress
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from klarsicht.explorer.explored_run import open_explored_run
from klarsicht.explorer.request_guard import LOOPBACK, RequestGuard, new_token
from klarsicht.ground.errors import UsageError
from klarsicht.ground.optional import load

DEFAULT_PORT: Final = 8735


def serve_run(
    run: str | Path, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT, author: str = "unknown",
    data: str | None = None, token: bool = False, browser: bool = True, tell: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Serve a run to a browser until Ctrl-C.

    Args:
        run: its folder.
        host: address to listen on; other than loopback, a token is asked for.
        port: port to listen on; 0 is any free one, and so is the default where it is taken.
        author: who decides.
        data: where the corpus is now, if it moved.
        token: whether to ask for a token on loopback, too: other users of this machine reach it.
        browser: whether to open the page in a browser.
        tell: called with the address.

    Raises:
        MissingExtra: FastAPI or uvicorn is not installed.
        InputError, RunDamaged: see RunStore.open.
        UsageError: the address cannot be listened on.
    """
    explored = open_explored_run(run, author, data)
    load("fastapi", "explore")
    uvicorn = load("uvicorn", "explore")
    from klarsicht.explorer.app import make_app

    listening = listen(host, port)
    number = listening.getsockname()[1]
    secret = new_token() if token or not is_loopback(host) else None
    guard = RequestGuard(make_app(explored), host_names(host), number, secret)
    address = f"http://{_authority(host)}:{number}/" + (f"?token={secret}" if secret else "")
    tell(address)
    config = uvicorn.Config(guard, log_level="warning", server_header=False, date_header=False, lifespan="off",
                            h11_max_incomplete_event_size=1 << 16, timeout_graceful_shutdown=2)  # fmt: skip
    threading.Thread(target=explored.require_ready, daemon=True).start()
    if browser:
        threading.Timer(0.3, _open_browser, (address,)).start()
    with listening, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens.

    Raises:
        UsageError: the address is none of this machine, or its port is taken and not the default.
    """
    for number in dict.fromkeys((port, 0) if port == DEFAULT_PORT else (port,)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind((host.strip("[]"), number))
            connection.listen(128)
            return connection
        except OSError as error:
            connection.close()
            why = error
    raise UsageError(
        "cannot listen there", got=f"{host} port {port}: {why.strerror or why}", rule="an address of this machine",
        remedy="Give another --port, or 0 for any free one.",
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Say whether a host reaches this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_names(host: str) -> tuple[str, ...]:
    """Return the names under which a server on this host is asked for, as they stand in the header Host."""
    own = _authority(host).lower()
    if is_loopback(host):
        return tuple(dict.fromkeys((*LOOPBACK, own)))
    names = [own]
    if own in ("0.0.0.0", "[::]"):
        name = socket.gethostname().lower()
        names += [*LOOPBACK, name, *_addresses(name)]
    return tuple(dict.fromkeys(names))


def _addresses(name: str) -> list[str]:
    """Return the addresses of this machine that its name and its default route tell."""
    addresses: list[str] = []
    with suppress(OSError):
        addresses += [_authority(str(one[4][0])) for one in socket.getaddrinfo(name, None)]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the interface
        addresses.append(str(probe.getsockname()[0]))
    return addresses


def _authority(host: str) -> str:
    bare = host.strip("[]")
    return f"[{bare}]" if ":" in bare else bare


def _open_browser(address: str) -> None:
    with suppress(Exception):  # whatever a browser does, the address is printed
        webbrowser.open(address)
