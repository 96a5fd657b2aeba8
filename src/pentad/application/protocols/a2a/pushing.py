"""Pushing: tells the URLs that clients gave of what happens to their tasks.

Every call passes the guard of `fetching.py`: the name is resolved once, every address must be public, the
connection goes to a checked one, and redirects are not followed. Delivery is tried a few times, in order,
and given up: a client that missed something asks for the task.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from a2a.types.a2a_pb2 import TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError
from a2a.utils.proto_utils import to_stream_response
from google.protobuf.json_format import MessageToDict, ParseDict

from pentad.agent.events import RunEnded
from pentad.agent.runtime import AgentRuntime
from pentad.agent.sub_run_events import SubRunChanged
from pentad.agent.tool_events import ApprovalAnswered, ApprovalAsked
from pentad.application.gateway.fetching import Fetcher
from pentad.application.protocols.a2a.words import status_update
from pentad.application.protocols.task_tables import MAX_CONFIGS, Known, TaskTables
from pentad.errors import PentadError

_LOG = logging.getLogger("pentad.gateway")
_TRIES = 3
_PAUSE_S = 0.5


class Pushing:
    """One follower for each task that somebody wants to be told of.

    Args:
        runtime: whose runs they are. tables: who is to be told. poster: makes the calls.
        background: runs a coroutine beside the requests.
    """

    def __init__(
        self,
        runtime: AgentRuntime,
        tables: TaskTables,
        poster: Fetcher,
        background: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._runtime, self._tables, self._poster = runtime, tables, poster
        self._background = background
        self._followed: set[str] = set()

    async def add(self, known: Known, config: Any) -> Any:
        """Keeps a configuration and begins to tell. Raises InvalidParamsError where that is refused."""
        made = TaskPushNotificationConfig()
        made.CopyFrom(config)
        made.task_id = known.run_id
        made.id = config.id or uuid.uuid4().hex
        kept = self._tables.pushes(known.run_id)
        if made.id not in kept and len(kept) >= MAX_CONFIGS:
            raise InvalidParamsError(f"a task may have {MAX_CONFIGS} push configurations")
        try:
            await asyncio.to_thread(self._poster.check, made.url, "url")
        except PentadError as error:
            raise InvalidParamsError(error.message) from None
        await asyncio.to_thread(self._tables.put_push, known.run_id, made.id, MessageToDict(made))
        self.follow(known)
        return made

    def configs(self, run_id: str) -> list[Any]:
        """The configurations of a task."""
        return [
            ParseDict(kept, TaskPushNotificationConfig()) for kept in self._tables.pushes(run_id).values()
        ]

    def resume(self) -> None:
        """Goes on with the tasks that are under way, after a restart."""
        for known in self._tables.notified():
            try:
                ended = self._runtime.show(known.run_id, tenant=known.tenant).ended
            except PentadError:
                continue  # removed or damaged: there is nothing to tell
            if not ended:
                self.follow(known)

    def follow(self, known: Known) -> None:
        """Tells of a task until it ends; once."""
        if known.run_id not in self._followed:
            self._followed.add(known.run_id)
            self._background(self._tell(known))

    async def _tell(self, known: Known) -> None:
        try:
            after = (await asyncio.to_thread(self._runtime.show, known.run_id, tenant=known.tenant)).sequence
            records = self._runtime.events(known.run_id, max(0, after - 1), tenant=known.tenant, patient=True)
            async with aclosing(records) as stream:
                async for record in stream:
                    if isinstance(record.event, ApprovalAsked | ApprovalAnswered | SubRunChanged | RunEnded):
                        await self._send(known)
        finally:
            self._followed.discard(known.run_id)

    async def _send(self, known: Known) -> None:
        state = await asyncio.to_thread(self._runtime.show, known.run_id, tenant=known.tenant)
        pending = () if state.ended else self._runtime.pending(known.run_id, tenant=known.tenant)
        update = to_stream_response(status_update(state, known.context_id, pending))
        body = json.dumps(MessageToDict(update)).encode()
        await asyncio.gather(*(self._deliver(config, body) for config in self.configs(known.run_id)))

    async def _deliver(self, config: Any, body: bytes) -> None:
        headers = {"content-type": "application/a2a+json", "a2a-version": "1.0"}
        if config.token:
            headers["x-a2a-notification-token"] = config.token
        if config.HasField("authentication"):
            given = config.authentication
            headers["authorization"] = f"{given.scheme} {given.credentials}".strip()
        for number in range(1, _TRIES + 1):
            try:
                await asyncio.to_thread(self._poster.post, config.url, "url", body, headers)
                return
            except PentadError as error:
                _LOG.info("push of task %s, try %d: %s", config.task_id, number, error.message)
            await asyncio.sleep(_PAUSE_S * number)
