"""serve: the application under uvicorn, with bounded buffers, header timeouts and a graceful end."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from types import FrameType

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from pentad.application.gateway.connections import IdleConnections, connections_within
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.settings import GatewaySettings

_CANCEL_S = 2.0
"""What streams get, after the drain, to send their last event."""


def protocol_for(settings: GatewaySettings) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 protocol with our limits on what one connection may hold and delay."""
    idle = IdleConnections(connections_within(settings.max_connections))

    class BoundedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _peer = ""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if not idle.make_room(len(self.connections)):
                transport.abort()
                return
            self._peer = str((transport.get_extra_info("peername") or ("",))[0])
            idle.add(self._peer, transport)
            transport.set_write_buffer_limits(high=settings.send_buffer_bytes)
            raw = transport.get_extra_info("socket")
            if raw is not None and raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_bytes)
            self.app_state = {**self.app_state, "abort": transport.abort}
            self._await_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                idle.remove(self._peer, self.transport)
                self._stop_timer()
            elif self._head_timer is None:
                self._await_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                idle.add(self._peer, self.transport)

        def connection_lost(self, exc: Exception | None) -> None:
            idle.remove(self._peer, self.transport)
            self._stop_timer()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            self._head_timer = self.loop.call_later(settings.header_timeout_s, self._head_late)

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _head_late(self) -> None:
            self._head_timer = None
            if self.conn.their_state is h11.IDLE:
                self.transport.abort()

    return BoundedProtocol


class GracefulServer(uvicorn.Server):
    """Drains on the first signal: not ready at once, new work refused, running work may finish.

    It goes on listening meanwhile, so that probes and refused clients get a true answer.
    """

    def __init__(self, config: Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A second signal ends the wait."""
        if self._drain_until is None:
            self.drain()
        else:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT

    def drain(self) -> None:
        """Begins the end; safe from any thread."""
        self._gateway.load.draining = True
        self._drain_until = time.monotonic() + self._gateway.settings.drain_s

    async def on_tick(self, counter: int) -> bool:
        if self._drain_until is not None and not self.should_exit:
            late = time.monotonic() >= self._drain_until
            if late:
                self._gateway.end_all()
            self.should_exit = late or self._gateway.load.active == 0
        return await super().on_tick(counter)


def make_server(app: Starlette, settings: GatewaySettings) -> GracefulServer:
    """The server, not yet running; for programs that have a loop of their own."""
    config = Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol_for(settings),
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_CANCEL_S,  # type: ignore[arg-type]
    )
    return GracefulServer(config, app.state.gateway)


def serve(app: Starlette, settings: GatewaySettings) -> None:
    """Serves until a signal ends it; returns when all work is finished or cancelled."""
    make_server(app, settings).run()
