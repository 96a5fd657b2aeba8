"""`pentad serve`: binds first, so that a taken port costs no model load; then wires and serves."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Final

from pentad.application.cli.output import note
from pentad.application.config import Settings
from pentad.errors import Conflict, InvalidRequest
from pentad.execution.worker.interpreters import Interpreters, Starter

_WORKER: Final = (sys.executable, "-m", "pentad.application.worker")


def serve_forever(settings: Settings, workers: Starter | None = None) -> None:
    """Serves until a signal ends it. Says on standard error where, once requests are answered.

    `workers` start the processes of engines; None: they are of this machine.
    """
    from pentad.application.heap import few_arenas

    few_arenas()
    listener = bind(settings.server.host, settings.server.port)
    try:
        if workers is not None:
            asyncio.run(_serve(settings, listener, workers))
            return
        # Workers import what they need while this process does.
        with Interpreters(_WORKER, ahead=_workers(settings)) as local:
            asyncio.run(_serve(settings, listener, local))
    finally:
        listener.close()


def _workers(settings: Settings) -> int:
    """How many processes these settings are sure to need for local engines."""
    alone = settings.engine.transport.name == "in-process" or settings.engine.backend != "engine"
    return 0 if alone or settings.scaler is not None else len(settings.models) * settings.engine.replicas


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Conflict when the port is taken, InvalidRequest for an impossible host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError as e:
        listener.close()
        if e.errno == errno.EADDRINUSE:
            raise Conflict(
                f"port {port} of {host} is taken",
                hint="stop what uses it, or set --port (0 takes a free one)",
            ) from None
        raise InvalidRequest(f"cannot listen on {host!r}: {e}", hint="set --host", param="host") from None
    return listener


async def _serve(settings: Settings, listener: socket.socket, workers: Starter) -> None:
    from pentad.application.gateway import create_app
    from pentad.application.gateway.server import make_server
    from pentad.application.wiring import build
    from pentad.model.catalogue import advice

    async with build(settings, workers=workers) as services:
        if services.agents is not None and (resumed := await services.agents.resume_all()):
            note(f"going on with {len(resumed)} interrupted runs")
        app = create_app(services, settings.server)
        load = app.state.gateway.load
        load.starting = True
        server = make_server(app, settings.server)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not (server.started or serving.done()):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        if server.started:
            port = listener.getsockname()[1]
            host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
            cards = services.models.models()
            note(f"pentad serves {', '.join(card.name for card in cards)}")
            if (better := advice(card.name for card in cards if card.kind == "generate")) is not None:
                note(f"  {better}")
            note(f"  API      http://{host}:{port}/v1")
            note(f"  console  http://{host}:{port}/console")
            load.starting = False
        await serving
