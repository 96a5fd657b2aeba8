"""`a2a`: gives a task to an agent elsewhere over A2A 1.0, through the official SDK (extra `a2a`)."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from pentad.agent.tools.base import InDoubt, Tool, ToolContext, ToolServices
from pentad.agent.tools.endpoint import Endpoint
from pentad.agent.tools.schema import harmless
from pentad.errors import InvalidRequest, ToolFailed
from pentad.tracing.context import outgoing

_TASK = {
    "type": "object",
    "properties": {"task": {"type": "string", "minLength": 1, "description": "What it is to do."}},
    "required": ["task"],
    "additionalProperties": False,
}
_ROUNDS = 16
"""How often the other agent may ask before its task is given up."""


def build(
    _: ToolServices,
    *,
    url: str = "",
    name: str = "ask_agent",
    about: str = "Gives a task to another agent and returns its answer.",
    key_env: str | None = None,
    timeout_s: float = 600.0,
) -> Tool:
    """A tool that gives a task to the agent at a URL.

    The message's id is made from the call's key, so that a server that keeps A2A's ids carries a repeated
    call out once. What the other agent asks is put to a person. A call that is cancelled cancels the task.

    Args:
        url: below which the agent's card lies; what the card names elsewhere is not called.
        name: as the model sees the tool.
        about: what the model is told of it; nothing of the card reaches it.
        key_env: environment variable with the key to send.
        timeout_s: for the whole task.

    Raises InvalidRequest without a URL, or without the variable.
    """
    agent = Endpoint.of("a2a", "agent", url=url, key_env=key_env, timeout_s=timeout_s)
    if importlib.util.find_spec("a2a") is None:
        raise InvalidRequest(
            "the tool a2a needs the extra a2a", hint='pip install "pentad[a2a]"', param="tools"
        )

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        return await _Errand(agent, context).run(arguments["task"])

    return Tool(
        name=name,
        description=about,
        parameters=_TASK,
        call=call,
        effects="keyed",
        timeout_s=agent.timeout_s,
    )


class _Errand:
    """One task under way at another agent."""

    def __init__(self, agent: Endpoint, context: ToolContext) -> None:
        self._url, self._headers, self._context = agent.url, agent.headers, context
        self._message = f"msg_{hashlib.sha256(context.key.encode()).hexdigest()[:32]}"
        self._task_id = ""

    async def run(self, task: str) -> str:
        import httpx
        from a2a.utils.errors import A2AError

        async with httpx.AsyncClient(headers={**self._headers, **outgoing()}, timeout=None) as http:
            client = await self._connected(http)
            try:
                return await self._carried_out(client, task)
            except asyncio.CancelledError:
                await asyncio.shield(self._cancel(client))
                raise
            except A2AError as error:
                raise ToolFailed(f"the agent at {self._url}: {harmless(str(error))[:500]}") from None
            except httpx.HTTPError as error:
                raise InDoubt(f"the agent at {self._url} was lost: {type(error).__name__}") from None

    async def _connected(self, http: Any) -> Any:
        from a2a.client import A2ACardResolver, A2AClientError, ClientConfig, ClientFactory

        try:
            card = await A2ACardResolver(http, self._url).get_agent_card()
        except A2AClientError as error:
            raise ToolFailed(f"the agent at {self._url} shows no card: {str(error)[:200]}") from None
        own = urlsplit(self._url)[:2]
        for interface in list(card.supported_interfaces):
            if urlsplit(interface.url)[:2] != own:
                card.supported_interfaces.remove(interface)
        if not card.supported_interfaces:
            raise ToolFailed(f"the card of the agent at {self._url} names only other servers, not called")
        bindings = ["JSONRPC", "HTTP+JSON"]
        config = ClientConfig(httpx_client=http, supported_protocol_bindings=bindings)
        return ClientFactory(config).create(card)

    async def _carried_out(self, client: Any, text: str) -> str:
        from a2a.types.a2a_pb2 import TaskState

        asks = (TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED)
        parts = [{"text": text}]
        for number in range(_ROUNDS):
            task = await self._sent(client, number, parts)
            if isinstance(task, str):
                return task
            if task.status.state == TaskState.TASK_STATE_COMPLETED:
                said = [part.text for artifact in task.artifacts for part in artifact.parts if part.text]
                return harmless("\n".join(said))
            if task.status.state not in asks:
                state = TaskState.Name(task.status.state).removeprefix("TASK_STATE_").lower()
                raise ToolFailed(f"the other agent's task is {state}: {_said(task.status.message)[:1000]}")
            parts = await self._answer(task.status.message)
        raise ToolFailed(f"the other agent asked {_ROUNDS} times and did not answer")

    async def _sent(self, client: Any, number: int, parts: list[dict[str, Any]]) -> Any:
        """The task after a message; a text where the agent answers without one."""
        from a2a.types.a2a_pb2 import GetTaskRequest, Message, Role, SendMessageRequest
        from google.protobuf.json_format import ParseDict

        message = ParseDict({"parts": parts}, Message())
        message.message_id = f"{self._message}-{number}"
        message.role = Role.ROLE_USER
        message.task_id = self._task_id
        async for event in client.send_message(SendMessageRequest(message=message)):
            match event.WhichOneof("payload"):
                case "message":
                    return harmless(_said(event.message))
                case "task":
                    self._task_id = event.task.id
        return await client.get_task(GetTaskRequest(id=self._task_id))

    async def _answer(self, asked: Any) -> list[dict[str, Any]]:
        """What a person says to the other agent, in the form that it gave."""
        from google.protobuf.json_format import MessageToDict

        if self._context.question is None:
            raise ToolFailed(f"the other agent asks, and nobody can be asked here: {_said(asked)[:500]}")
        forms = [MessageToDict(part.data) for part in asked.parts if part.WhichOneof("content") == "data"]
        schema = next((form["schema"] for form in forms if isinstance(form, dict) and "schema" in form), None)
        reply = await self._context.question(harmless(_said(asked)), schema)
        if reply.action != "accept":
            return [{"text": "no"}]
        return [{"data": dict(reply.content)}] if reply.content else [{"text": "yes"}]

    async def _cancel(self, client: Any) -> None:
        from a2a.types.a2a_pb2 import CancelTaskRequest

        if self._task_id:
            with suppress(Exception):
                async with asyncio.timeout(5):
                    await client.cancel_task(CancelTaskRequest(id=self._task_id))


def _said(message: Any) -> str:
    return "\n".join(part.text for part in message.parts if part.text)
