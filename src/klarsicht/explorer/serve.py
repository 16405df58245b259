"""Start of the explorer's server: a socket, the address, a browser."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from klarsicht.explorer.denoiser_strategies import DenoiserStrategies, is_denoiser_audit
from klarsicht.explorer.explored_run import open_explored_run
from klarsicht.explorer.request_guard import LOOPBACK, RequestGuard, forward_page, new_token
from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine.disk import temporary_folder
from klarsicht.ground.optional import load
from klarsicht.ground.progress import begin_serving, note
from klarsicht.ground.ranges import PORT
from klarsicht.ground.user_arguments import check_arguments

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

DEFAULT_PORT: Final = 8735


@check_arguments
def serve_run(
    run: str | Path, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT, author: str = "unknown",
    data: str | None = None, since: str | Path | None = None, token: bool = False, browser: bool = True,
    tell: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Serve a run to a browser until Ctrl-C.

    Args:
        run: folder of `audit run`, or of `burst audit`, whose strategies are shown.
        host: address to listen on; other than loopback, a token is asked for.
        port: port to listen on; 0 is any free one, and so is the default where it is taken.
        author: who decides.
        data: where the corpus is now, if it moved.
        since: an earlier run, to compare alarms with.
        token: whether to ask for a token on loopback, too: other users of this machine reach it.
        browser: whether to open the page in a browser.
        tell: called with each address under which it can be opened.

    Raises:
        MissingExtra: FastAPI or uvicorn is not installed.
        InputError, RunDamaged: see RunStore.open.
        UsageError: the address cannot be listened on; an earlier run for an audit of a denoiser.
    """
    PORT.require("port", port)
    application = open_application(Path(run), author, data, since)
    listening = listen(host, port)
    own, number = (str(listening.getsockname()[0]), int(listening.getsockname()[1]))
    secret = new_token() if token or not is_loopback(own) else None
    guard = RequestGuard(application, host_names(host, own), number, secret)
    addresses = [
        f"http://{name}:{number}/" + (f"?token={secret}" if secret else "") for name in names_to_open(host, own)
    ]
    for address in addresses:
        tell(address)
    hidden = hide_address(addresses[0]) if browser and secret else nullcontext(addresses[0])
    with listening, hidden as opened, suppress(KeyboardInterrupt):
        if browser:
            threading.Timer(0.3, _open_browser, (opened,)).start()
        begin_serving()
        make_server(guard).run(sockets=[listening])


def open_application(run: Path, author: str, data: str | None, since: str | Path | None) -> FastAPI:
    """Open a run, or an audit of a denoiser, and make the application that shows it. Raises as serve_run."""
    of_denoiser = is_denoiser_audit(run)
    if of_denoiser and since is not None:
        raise UsageError("an audit of a denoiser has no alarms", got=since, remedy="Leave `since` out.")
    content = DenoiserStrategies.open(run) if of_denoiser else open_explored_run(run, author, data, since)
    load("fastapi", "explore")
    load("uvicorn", "explore")
    from klarsicht.explorer.app import make_app, make_denoiser_app

    if isinstance(content, DenoiserStrategies):
        return make_denoiser_app(content)
    if fault := content.pictures.decoder.find_fault():
        note(f"images are not shown: {fault}")
    threading.Thread(target=content.reader.require_ready, daemon=True).start()
    return make_app(content)


def make_server(guard: RequestGuard) -> uvicorn.Server:
    """Make a server that prints nothing of a request, however it fails: who can send some could fill a terminal."""
    import uvicorn

    from klarsicht.explorer.bounded_connection import BoundedServer

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        guard, ws="none", lifespan="off", log_config=None,
        log_level="critical", access_log=False, server_header=False, date_header=False,
        h11_max_incomplete_event_size=1 << 16, timeout_graceful_shutdown=2,
    )  # fmt: skip
    return BoundedServer(config)


@contextmanager
def hide_address(address: str) -> Iterator[str]:
    """Make a file that only this user reads and that leads a browser to an address; yields the file's address. Every
    user of a machine reads the arguments of all processes: those of a browser would hold the token."""
    with temporary_folder() as folder:
        file = folder / "open.html"
        file.touch(0o600)
        file.write_bytes(forward_page(address))
        yield file.as_uri()


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens; raises UsageError where the address is of another machine or the port is taken."""
    for number in dict.fromkeys((port, 0) if port == DEFAULT_PORT else (port,)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6 and is_everywhere(host):
                connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            connection.bind((host.strip("[]"), number))
            connection.listen(128)
            return connection
        except (OSError, ValueError, TypeError) as error:  # the last two of a host that can be no name
            connection.close()
            why = getattr(error, "strerror", None) or error
    raise UsageError(
        "cannot listen there", got=f"{host} port {port}: {why}", rule="an address of this machine",
        remedy="Give another --port, or 0 for any free one.",
    )  # fmt: skip


def is_loopback(address: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def is_everywhere(address: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(address.strip("[]")).is_unspecified
    return False


def host_names(host: str, own: str) -> tuple[str, ...]:
    """Return the names under which a server is asked for, as they stand in the header Host: of the host that was given,
    and of the address that it listens on."""
    names = [_authority(host).lower(), _authority(own)]
    if is_loopback(own):
        names += LOOPBACK
    if is_everywhere(own):
        machine = socket.gethostname().lower()
        names += [*LOOPBACK, machine, *_addresses_of_name(machine), *routed_addresses()]
    return tuple(dict.fromkeys(names))


def names_to_open(host: str, own: str) -> list[str]:
    """Return the names under which a browser opens a server: that of `host_names`, or where it listens on all addresses
    of this machine, those that other machines reach, and last that of this machine alone."""
    if not is_everywhere(own):
        return [_authority(host)]
    if ":" in own:
        return [*routed_addresses(), "[::1]"]
    return [*routed_addresses((socket.AF_INET,)), "127.0.0.1"]


def routed_addresses(families: Sequence[int] = (socket.AF_INET, socket.AF_INET6)) -> list[str]:
    """Return the addresses of this machine on its default routes, of IP 4 and 6."""
    addresses = []
    for family in families:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            elsewhere = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"
            probe.connect((elsewhere, 9))  # sends nothing: it only chooses the interface
            addresses.append(_authority(str(probe.getsockname()[0])))
    return addresses


def _addresses_of_name(name: str) -> list[str]:
    with suppress(OSError):
        return [_authority(str(one[4][0])) for one in socket.getaddrinfo(name, None)]
    return []


def _authority(host: str) -> str:
    bare = host.strip("[]")
    return f"[{bare}]" if ":" in bare else bare


def _open_browser(address: str) -> None:
    with suppress(Exception):  # whatever a browser does, the address is printed
        webbrowser.open(address)
