"""The gateway called in process, without a socket, for unit tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from pentad.application.gateway import GatewaySettings, create_app
from pentad.application.gateway.operations import OPERATIONS
from pentad.application.services import Services
from pentad.execution.backend import Capabilities
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend, Turn
from pentad.types import Clock

BASE = "http://127.0.0.1:8000"
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Say hello"}]}


def scripted_app(
    turns: Sequence[Turn] = (("Hello",),),
    *,
    clock: Clock | None = None,
    capabilities: Capabilities | None = None,
    **settings: Any,
) -> tuple[Starlette, ScriptedBackend]:
    """An application over a scripted model that repeats its last turn."""
    backend = ScriptedBackend(list(turns), repeat=True, capabilities=capabilities)
    models = ModelService({"scripted": backend}, router=Fixed())
    services = Services(models=models) if clock is None else Services(models=models, clock=clock)
    return create_app(services, GatewaySettings(**settings)), backend


def call(
    app: Starlette,
    method: str,
    path: str,
    *,
    body: Any = None,
    raw: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> httpx2.Response:
    """One request and its whole answer."""

    async def run() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
            content = raw if raw is not None or body is None else json.dumps(body).encode()
            return await client.request(method, path, content=content, headers=headers)

    return asyncio.run(run())


BODY_OPERATIONS = [
    pytest.param(operation.method.upper(), operation.path, id=operation.path)
    for operation in OPERATIONS
    if operation.body is not None
]
"""Method and path of every route that reads a body."""


def message_of(response: httpx2.Response) -> str:
    """What an error answer says, in whichever dialect."""
    error = response.json()["error"]
    text: str = error if isinstance(error, str) else error["message"]
    return text


def chat(app: Starlette, **fields: Any) -> httpx2.Response:
    """A chat completion with these fields."""
    return call(app, "POST", "/v1/chat/completions", body={**CHAT, **fields})


def param_of(response: httpx2.Response) -> str | None:
    """Which field an error blames."""
    param: str | None = response.json()["error"]["param"]
    return param
