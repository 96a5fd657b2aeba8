"""RunHandler: A2A's requests, answered by the runtime. Every task is a run of the caller's tenant.

Source: Agent2Agent protocol 1.0. Ours differs in that a message id that comes again finds the task that it
began, so that a client may repeat a request whose answer it lost.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types.a2a_pb2 import AgentCard, Message, Task
from a2a.types.a2a_pb2 import ListTaskPushNotificationConfigsResponse as Configs
from a2a.types.a2a_pb2 import ListTasksResponse as TaskPage
from a2a.utils.errors import (
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.task import validate_history_length, validate_page_size

from pentad.agent.events import RunEnded
from pentad.agent.runtime import AgentRuntime
from pentad.agent.state import RunState
from pentad.agent.sub_run_events import SubRunChanged
from pentad.agent.tool_events import ApprovalAnswered, ApprovalAsked
from pentad.application.protocols.a2a.errors import translated
from pentad.application.protocols.a2a.pushing import Pushing
from pentad.application.protocols.a2a.words import (
    STATES,
    Pending,
    artifact_update,
    goal_of,
    reply_of,
    status_update,
    task_of,
)
from pentad.application.protocols.task_tables import Known, TaskTables
from pentad.types import Message as Turn

_PAGE = 50
_RUNS_LISTED = 1000


class RunHandler(RequestHandler):
    """The handlers of all agents of a server; `context.state` says which agent and whose call.

    Args:
        runtime: runs the agents. tables: what is kept of tasks. pushing: tells others of them.
    """

    def __init__(self, runtime: AgentRuntime, tables: TaskTables, pushing: Pushing) -> None:
        self._runtime, self._tables, self._pushing = runtime, tables, pushing

    @validate_request_params
    @translated
    async def on_get_task(self, params: Any, context: Any) -> Task:
        """A task as it is now."""
        validate_history_length(params)
        return _trimmed(await self._task(params.id, context), params)

    @validate_request_params
    @translated
    async def on_list_tasks(self, params: Any, context: Any) -> TaskPage:
        """The caller's tasks with this agent, the latest first."""
        validate_history_length(params)
        if params.HasField("page_size"):
            validate_page_size(params.page_size)
        size = params.page_size or _PAGE
        if not (params.page_token or "0").isdigit():
            raise InvalidParamsError("page_token is none of ours")
        begin = int(params.page_token or 0)
        found = await asyncio.to_thread(self._listed, params, context)
        tasks = [await self._task(run_id, context) for run_id in found[begin : begin + size]]
        for task in tasks:
            if not params.include_artifacts:
                task.ClearField("artifacts")
        after = str(begin + size) if len(found) > begin + size else ""
        return TaskPage(
            tasks=[_trimmed(task, params) for task in tasks],
            next_page_token=after,
            page_size=size,
            total_size=len(found),
        )

    @validate_request_params
    @translated
    async def on_cancel_task(self, params: Any, context: Any) -> Task:
        """Ends a task, with its sub-runs; answers when it has ended."""
        if (await asyncio.to_thread(self._state, params.id, context)).ended:
            raise TaskNotCancelableError(f"task {params.id} has ended")
        await self._runtime.cancel(params.id, tenant=_tenant(context))
        return await self._task(params.id, context)

    @validate_request_params
    @translated
    async def on_message_send(self, params: Any, context: Any) -> Task:
        """Begins a task or answers one, and waits until it ends or asks, unless told not to."""
        known = await self._taken(params, context)
        if not params.configuration.return_immediately:
            async with aclosing(self._updates(known)) as updates:
                async for _ in updates:
                    continue
        return _trimmed(await self._task(known.run_id, context), params.configuration)

    @validate_request_params
    async def on_message_send_stream(self, params: Any, context: Any) -> AsyncGenerator[Any, None]:
        """The same, told as it happens."""
        known = await translated(self._taken)(params, context)
        yield _trimmed(await translated(self._task)(known.run_id, context), params.configuration)
        async with aclosing(self._updates(known)) as updates:
            async for update in updates:
                yield update

    @validate_request_params
    async def on_subscribe_to_task(self, params: Any, context: Any) -> AsyncGenerator[Any, None]:
        """A task that is at work, told from now on."""
        task = await translated(self._task)(params.id, context)
        state = await asyncio.to_thread(self._state, params.id, context)
        if state.ended:
            raise UnsupportedOperationError(f"task {params.id} has ended")
        yield task
        async with aclosing(self._updates(self._known(params.id, context))) as updates:
            async for update in updates:
                yield update

    @validate_request_params
    @translated
    async def on_create_task_push_notification_config(self, params: Any, context: Any) -> Any:
        """Lets a URL be told of a task. Raises InvalidParamsError for one that may not be called."""
        state = await asyncio.to_thread(self._state, params.task_id, context)
        return await self._pushing.add(self._known(state.run_id, context), params)

    @validate_request_params
    @translated
    async def on_get_task_push_notification_config(self, params: Any, context: Any) -> Any:
        """One configuration."""
        state = await asyncio.to_thread(self._state, params.task_id, context)
        for config in self._pushing.configs(state.run_id):
            if config.id == params.id:
                return config
        raise TaskNotFoundError(f"task {params.task_id} has no push configuration {params.id[:100]!r}")

    @validate_request_params
    @translated
    async def on_list_task_push_notification_configs(self, params: Any, context: Any) -> Configs:
        """All configurations of a task."""
        state = await asyncio.to_thread(self._state, params.task_id, context)
        return Configs(configs=self._pushing.configs(state.run_id))

    @validate_request_params
    @translated
    async def on_delete_task_push_notification_config(self, params: Any, context: Any) -> None:
        """Removes one; that it is not there is no error."""
        state = await asyncio.to_thread(self._state, params.task_id, context)
        self._tables.drop_push(state.run_id, params.id)

    async def on_get_extended_agent_card(self, params: Any, context: Any) -> AgentCard:  # noqa: ARG002
        """There is none: the card tells everything."""
        raise UnsupportedOperationError("there is no extended card; the card tells everything")

    async def _taken(self, params: Any, context: Any) -> Known:
        """The task that a message begins or answers."""
        message, tenant = params.message, _tenant(context)
        if message.task_id:
            known = await self._answered(message, context)
        elif (found := self._tables.by_message(tenant, message.message_id)) is not None:
            known = found
        else:
            known = await self._begun(message, context)
        if params.configuration.HasField("task_push_notification_config"):
            await self._pushing.add(known, params.configuration.task_push_notification_config)
        return known

    async def _begun(self, message: Message, context: Any) -> Known:
        tenant, context_id = _tenant(context), message.context_id or f"ctx_{uuid.uuid4().hex}"
        goal = goal_of(message)
        history = await asyncio.to_thread(self._before, tenant, message.context_id)
        run_id = await self._runtime.start(context.state["agent"], goal, tenant=tenant, history=history)
        known = Known(run_id=run_id, tenant=tenant, context_id=context_id, message_id=message.message_id)
        await asyncio.to_thread(self._tables.add, known)
        return known

    async def _answered(self, message: Message, context: Any) -> Known:
        known = self._known(message.task_id, context)
        state = await asyncio.to_thread(self._state, message.task_id, context)
        if message.context_id and message.context_id != known.context_id:
            raise InvalidParamsError(f"task {message.task_id} is not of context {message.context_id[:100]!r}")
        if state.ended:
            raise UnsupportedOperationError(f"task {message.task_id} has ended and takes no messages")
        pending = self._pending(state)
        if not pending:
            raise UnsupportedOperationError(f"task {message.task_id} is at work and has asked nothing")
        asked = pending[0][1]
        said = reply_of(message, asked)
        await self._runtime.answer(
            state.run_id,
            asked.approval_id,
            approved=said.approved,
            note=said.note[:2000],
            content=said.content,
            tenant=known.tenant,
        )
        return known

    async def _updates(self, known: Known) -> AsyncGenerator[Any, None]:
        """What happens to a task from now on, until it ends or asks."""
        after = (await asyncio.to_thread(self._runtime.show, known.run_id, tenant=known.tenant)).sequence
        records = self._runtime.events(known.run_id, max(0, after - 1), tenant=known.tenant, patient=True)
        async with aclosing(records) as stream:
            async for record in stream:
                if not isinstance(record.event, ApprovalAsked | ApprovalAnswered | SubRunChanged | RunEnded):
                    continue
                state = await asyncio.to_thread(self._runtime.show, known.run_id, tenant=known.tenant)
                pending = self._pending(state)
                if state.status == "answered":
                    yield artifact_update(state, known.context_id)
                yield status_update(state, known.context_id, pending)
                if state.ended or pending:
                    return

    def _before(self, tenant: str, context_id: str) -> list[Turn]:
        """What was said in a context, oldest first."""
        if not context_id:
            return []
        states = [
            self._runtime.show(run_id, tenant=tenant)
            for run_id in self._tables.of_context(tenant, context_id)
        ]
        turns = []
        for state in sorted(states, key=lambda state: state.started_s):
            if state.status == "answered":
                turns += [Turn(role="user", content=state.goal), Turn(role="assistant", content=state.answer)]
        return turns

    def _listed(self, params: Any, context: Any) -> list[str]:
        tenant = _tenant(context)
        rows = [
            row
            for row in self._runtime.list(tenant=tenant, limit=_RUNS_LISTED)
            if row.agent == context.state["agent"] and row.parent is None and row.status in STATES
        ]
        if params.context_id:
            within = set(self._tables.of_context(tenant, params.context_id))
            rows = [row for row in rows if row.id in within]
        if params.status:
            rows = [row for row in rows if STATES[row.status] == params.status]
        if params.HasField("status_timestamp_after"):
            since_s = params.status_timestamp_after.ToDatetime().timestamp()
            rows = [row for row in rows if (row.ended_s or row.started_s) >= since_s]
        return [row.id for row in rows]

    async def _task(self, run_id: str, context: Any) -> Task:
        def made() -> Task:
            state = self._state(run_id, context)
            return task_of(state, self._known(run_id, context).context_id, self._pending(state))

        return await asyncio.to_thread(made)

    def _state(self, run_id: str, context: Any) -> RunState:
        state = self._runtime.show(run_id, tenant=_tenant(context))
        if state.spec.name != context.state["agent"] or state.parent is not None:
            raise TaskNotFoundError(f"no task {run_id[:100]!r}")
        return state

    def _pending(self, state: RunState) -> Pending:
        return () if state.ended else self._runtime.pending(state.run_id, tenant=state.tenant)

    def _known(self, run_id: str, context: Any) -> Known:
        """What is kept of a task; a run that was begun otherwise is a context of its own."""
        found = self._tables.task(run_id)
        tenant = _tenant(context)
        return found or Known(run_id=run_id, tenant=tenant, context_id=run_id, message_id=run_id)


def _tenant(context: Any) -> str:
    tenant: str = context.state["caller"]
    return tenant


def _trimmed(task: Task, asked: Any) -> Task:
    """With no more of its history than was asked for."""
    if asked.HasField("history_length") and asked.history_length < len(task.history):
        del task.history[: len(task.history) - asked.history_length]
    return task
