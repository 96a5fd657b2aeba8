"""`remote`: a job of another machine or process: submitted once, waited for, cancelled with the call."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pentad.agent.tools.base import InDoubt, Sourced, Tool, ToolContext, ToolServices
from pentad.agent.tools.endpoint import Endpoint
from pentad.agent.tools.schema import harmless
from pentad.errors import ToolFailed
from pentad.tracing.context import outgoing

_INPUT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "What is to be computed"}},
    "required": ["input"],
    "additionalProperties": False,
}
_OVER = ("done", "failed", "cancelled")
_CANCEL_S = 5.0
_MOST_BYTES = 4 << 20


def build(
    _: ToolServices,
    *,
    url: str = "",
    job: str = "",
    name: str = "remote",
    about: str = "Has something computed on another machine.",
    parameters: Mapping[str, Any] = _INPUT,
    key_env: str | None = None,
    poll_s: float = 0.5,
    lost_s: float = 60.0,
    timeout_s: float = 3600.0,
) -> Tool:
    """A tool whose work a job server does (`pentad agent jobs FILE` is one).

    The job's id is made from the call's key: a call that is made again after a crash submits nothing anew
    and waits for the job that is there. While it waits the process does other things. A server that is
    not reached is tried again for `lost_s`; then nobody knows whether the job is done, and the model is
    told so. A call that is cancelled, or whose time is over, cancels its job.

    Args:
        url: of the server; jobs are below `/jobs`.
        job: which of the server's functions; empty takes `name`.
        name: as the model sees the tool.
        about: what the model is told of it.
        parameters: JSON Schema of the arguments.
        key_env: environment variable with the key to send.
        poll_s: seconds between two looks at the job.
        lost_s: how long a server may be out of reach.
        timeout_s: for the whole job.

    Raises InvalidRequest without a URL, or without the variable.
    """
    server = Endpoint.of("remote", "job server", url=url, key_env=key_env, timeout_s=timeout_s)

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> Sourced:
        errand = _Job(server, context, poll_s=poll_s, lost_s=lost_s)
        return await errand.run(job or name, arguments)

    return Tool(
        name=name,
        description=about,
        parameters=parameters,
        call=call,
        effects="keyed",
        timeout_s=server.timeout_s,
    )


class _Job:
    """One job under way at a server."""

    def __init__(self, server: Endpoint, context: ToolContext, *, poll_s: float, lost_s: float) -> None:
        self._headers, self._context = server.headers, context
        self._poll_s, self._lost_s = poll_s, lost_s
        self.id = f"job_{hashlib.sha256(context.key.encode()).hexdigest()[:32]}"
        self._at = f"{server.url}/jobs/{self.id}"
        self._url = server.url

    async def run(self, name: str, arguments: Mapping[str, Any]) -> Sourced:
        import httpx2 as httpx

        async with httpx.AsyncClient(headers={**self._headers, **outgoing()}, timeout=30.0) as http:
            try:
                body = {"job": name, "arguments": dict(arguments)}
                found = await self._said(http, "PUT", body)
                while found.get("status") not in _OVER:
                    await asyncio.sleep(self._poll_s)
                    found = await self._said(http, "GET")
            except asyncio.CancelledError:
                await asyncio.shield(self._cancel(http))
                raise
        if found["status"] != "done":
            raise ToolFailed(f"the job {found['status']}: {harmless(str(found.get('error', '')))[:1000]}")
        return Sourced(content=harmless(str(found.get("result", ""))), source=f"{self.id} at {self._url}")

    async def _said(self, http: Any, method: str, body: Any = None) -> dict[str, Any]:
        """What the server says of the job. Raises ToolFailed; InDoubt where it is out of reach too long."""
        import httpx2 as httpx

        clock, last = self._context.clock, ""
        until_s = clock() + self._lost_s
        while True:
            try:
                said = await http.request(method, self._at, json=body)
                if said.status_code in (200, 201, 202) and len(said.content) <= _MOST_BYTES:
                    found = said.json()
                    if isinstance(found, dict) and isinstance(found.get("status"), str):
                        return found
                    raise ToolFailed("the job server answers with something that is no job")
                if said.status_code < 500:
                    text = harmless(said.text)[:300]
                    raise ToolFailed(f"the job server refuses ({said.status_code}): {text}")
                last = f"status {said.status_code}"
            except httpx.HTTPError as error:
                last = type(error).__name__
            except ValueError:
                raise ToolFailed("the job server answers with no JSON") from None
            if clock() >= until_s:
                raise InDoubt(f"the job server is out of reach: {last}")
            await asyncio.sleep(self._poll_s)

    async def _cancel(self, http: Any) -> None:
        with suppress(Exception):
            async with asyncio.timeout(_CANCEL_S):
                await http.request("DELETE", self._at)
