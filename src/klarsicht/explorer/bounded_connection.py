"""Bound on the connections of the explorer's server, in number and in time, before a request is read."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS: Final = 128  # a browser opens six
ACCEPTED: Final = 32  # at once: with the others fewer than 256, the files that a process may open on macOS
QUEUE: Final = 1024  # connections that the system holds until they are accepted
WHOLE_SECONDS: Final = 20.0  # in which a request must be there with its headers and body


class BoundedConnection(H11Protocol):
    """Connection that is one of MAX_CONNECTIONS at most, and is closed where no whole request comes in WHOLE_SECONDS.

    One connection too many takes the place of the one that has waited longest for a request: connections that ask for
    nothing keep out nobody who asks. An answer may take as long as it takes, and is cut off only where its reader takes
    none of it for as long.
    """

    _since = 0.0
    _unsent = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()
        opened = [one for one in self.connections if not one.transport.is_closing()]
        if len(opened) > MAX_CONNECTIONS:
            idle = [one for one in opened if isinstance(one, BoundedConnection) and not one.has_whole_request]
            min(idle, key=lambda one: (one.unsent > 0, one._since), default=self).transport.abort()

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def has_whole_request(self) -> bool:
        """Whether a request with its body is here that is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    @property
    def unsent(self) -> int:
        """Bytes of answers that the reader did not take yet."""
        return self.transport.get_write_buffer_size()

    def _await_request(self) -> None:
        self._since, self._unsent = self.loop.time(), self.unsent
        self._start_timer()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(WHOLE_SECONDS, self._end_wait)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end_wait(self) -> None:
        """Close the connection if it still waits; once a request is answered it waits anew."""
        if self.has_whole_request:
            return
        if 0 < self.unsent < self._unsent:
            self._unsent = self.unsent
            self._start_timer()
        else:
            self.transport.abort()


class BoundedServer(uvicorn.Server):
    """Server of bounded connections, for which the system holds more than are accepted at once."""

    def __init__(self, config: uvicorn.Config):
        config.http, config.backlog = BoundedConnection, ACCEPTED
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(QUEUE)
