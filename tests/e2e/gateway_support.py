"""A live gateway on a free port, over scripted or real models, for tests with real clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette

from pentad.application.gateway import GatewaySettings, create_app
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.server import GracefulServer, make_server
from pentad.application.services import Services
from pentad.execution.backend import Backend, Embedder
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService

START_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A server that answers now."""

    url: str
    app: Starlette
    server: GracefulServer

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway


def model_service(
    backend: Backend, *, name: str = "scripted", embedders: Mapping[str, Embedder] | None = None
) -> ModelService:
    """A service of one model."""
    return ModelService({name: backend}, embedders=embedders, router=Fixed(), default=name)


@contextmanager
def live(services: Services, **settings: Any) -> Iterator[Live]:
    """Serves in a thread, on a port that the system chooses; stops at the end."""
    chosen = GatewaySettings(port=0, drain_s=settings.pop("drain_s", 2.0), **settings)
    app = create_app(services, chosen)
    server = make_server(app, chosen)
    thread = threading.Thread(target=server.run, name="gateway", daemon=True)
    thread.start()
    deadline = time.monotonic() + START_S
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server took too long to start"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Live(url=f"http://127.0.0.1:{port}", app=app, server=server)
    finally:
        server.should_exit = True
        thread.join(START_S)
        assert not thread.is_alive(), "the server did not stop"
