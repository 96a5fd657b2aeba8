"""AgentTools: our agents as tools of an MCP server, through the official SDK.

A call is a run: its steps are progress, what it asks a person is an elicitation, and a call that the
client cancels cancels the run with its sub-runs.

Source: Model Context Protocol, revisions 2025-06-18 to 2026-07-28. In the latter a question is returned
as `input_required` and the call is made again with the answer; before, the server asks in the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import anyio
from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ListToolsResult,
    TextContent,
    Tool,
)

from pentad import __version__
from pentad.agent.events import RunEnded, StepEnded
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.sub_run_events import SubRunChanged
from pentad.agent.tool_events import ApprovalAsked, ToolIntended
from pentad.agent.tools.schema import check_arguments
from pentad.application.protocols.questions import form, question, reply
from pentad.errors import Conflict, PentadError
from pentad.tracing.context import TRACEPARENT

GOAL = {
    "type": "object",
    "properties": {"goal": {"type": "string", "minLength": 1, "description": "What the agent is to do."}},
    "required": ["goal"],
    "additionalProperties": False,
}
"""Arguments of every tool."""
_RESULT = {
    "type": "object",
    "properties": {"run_id": {"type": "string"}, "status": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["run_id", "status", "answer"],
}


class AgentTools:
    """The handlers of one server.

    Args:
        runtime: runs the agents.
        tenant_of: whose call it is, told from the SDK's request context.
        stopping: whether calls end because this process does: then their runs are left to be resumed.
        only: serve this agent instead of those that the runtime knows by name.
    """

    def __init__(
        self,
        runtime: AgentRuntime,
        *,
        tenant_of: Callable[[Any], str] = lambda _: "default",
        stopping: Callable[[], bool] = lambda: False,
        only: AgentSpec | None = None,
    ) -> None:
        self._runtime = runtime
        self._tenant_of = tenant_of
        self._stopping = stopping
        self._only = only

    def server(self) -> Server[Any]:
        """The SDK's server over these handlers."""
        return Server(
            "pentad",
            version=__version__,
            instructions="Each tool is an agent: give it a goal, it answers when it is done.",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
        )

    async def list_tools(self, _: Any, __: Any) -> ListToolsResult:
        """One tool for each agent that is sound."""
        specs = await asyncio.to_thread(self._specs)
        return ListToolsResult(
            tools=[
                Tool(
                    name=name,
                    description=spec.description or f"The agent {name}.",
                    input_schema=GOAL,
                    output_schema=_RESULT,
                )
                for name, spec in specs.items()
            ]
        )

    async def call_tool(
        self, context: Any, params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult:
        """Runs an agent to its end, or until it asks what this client cannot be asked within the call."""
        specs = await asyncio.to_thread(self._specs)
        if params.name not in specs:
            known = ", ".join(specs) or "none"
            raise MCPError(INVALID_PARAMS, f"no agent {params.name[:100]!r}; agents are: {known}")
        arguments = params.arguments or {}
        self._runtime.called_from((context.meta or {}).get(TRACEPARENT))
        try:
            check_arguments(params.name, GOAL, arguments)
            tenant = self._tenant_of(context)
            if params.request_state is not None:
                run_id = await self._answered(params, tenant)
            else:
                agent = self._only or params.name
                run_id = await self._runtime.start(agent, arguments["goal"], tenant=tenant)
        except PentadError as error:
            return _failed(str(error))
        return await _Call(self._runtime, run_id, tenant, self._stopping).follow(context)

    def _specs(self) -> dict[str, AgentSpec]:
        if self._only is not None:
            return {self._only.name: self._only}
        return {entry.name: entry.spec for entry in self._runtime.agents.entries() if entry.spec is not None}

    async def _answered(self, params: CallToolRequestParams, tenant: str) -> str:
        """The run that a call is made again for, told what its client's person said."""
        run_id = str(params.request_state)[:100]
        pending = {asked.approval_id: asked for _, asked in self._runtime.pending(run_id, tenant=tenant)}
        for key, given in (params.input_responses or {}).items():
            if (asked := pending.get(key)) is not None and isinstance(given, ElicitResult):
                said = reply(asked, accepted=given.action == "accept", content=given.content)
                await self._runtime.answer(
                    run_id, key, approved=said.approved, note=said.note, content=said.content, tenant=tenant
                )
        return run_id


class _Call:
    """One call under way."""

    def __init__(self, runtime: AgentRuntime, run_id: str, tenant: str, stopping: Callable[[], bool]) -> None:
        self._runtime, self._run_id, self._tenant = runtime, run_id, tenant
        self._stopping = stopping

    async def follow(self, context: Any) -> CallToolResult | InputRequiredResult:
        try:
            return await self._followed(context)
        except PentadError as error:
            return _failed(str(error), self._run_id)
        except BaseException:
            if not self._stopping():
                await self._cancel()
            raise

    async def _followed(self, context: Any) -> CallToolResult | InputRequiredResult:
        told = 0
        records = self._runtime.events(self._run_id, tenant=self._tenant, patient=True)
        async with aclosing(records) as stream:
            async for record in stream:
                event = record.event
                match event:
                    case ToolIntended():
                        told += 1
                        await context.session.report_progress(told, message=f"calls {event.tool}")
                    case StepEnded():
                        told += 1
                        await context.session.report_progress(told, message=f"step {event.step} is done")
                    case ApprovalAsked() | SubRunChanged():
                        if (asked := await self._ask(context)) is not None:
                            return asked
                    case RunEnded():
                        break
        return _result(await asyncio.to_thread(self._runtime.show, self._run_id, tenant=self._tenant))

    async def _ask(self, context: Any) -> CallToolResult | InputRequiredResult | None:
        """Puts what is pending to the client's person; what the call returns if that ends it."""
        pending = self._runtime.pending(self._run_id, tenant=self._tenant)
        if not pending:
            return None
        able = context.session.client_capabilities
        if able is None or able.elicitation is None:
            names = ", ".join(asked.tool for _, asked in pending)
            return _failed(
                f"the run waits for a person, about {names}, and this client cannot ask one; "
                f"pentad runs approve {self._run_id} goes on",
                self._run_id,
            )
        if not context.session.can_send_request:
            return InputRequiredResult(
                input_requests={asked.approval_id: _elicitation(asked) for _, asked in pending},
                request_state=self._run_id,
            )
        for _, asked in pending:
            given = await context.session.elicit_form(question(asked), form(asked), context.request_id)
            said = reply(asked, accepted=given.action == "accept", content=given.content)
            try:
                await self._runtime.answer(
                    self._run_id,
                    asked.approval_id,
                    approved=said.approved,
                    note=said.note,
                    content=said.content,
                    tenant=self._tenant,
                )
            except Conflict:
                continue  # someone else was quicker, or the time for it was over
        return None

    async def _cancel(self) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._runtime.cancel(self._run_id, tenant=self._tenant)
            except PentadError:
                return  # it had ended


def _elicitation(asked: ApprovalAsked) -> ElicitRequest:
    return ElicitRequest(
        params=ElicitRequestFormParams(message=question(asked), requested_schema=form(asked))
    )


def _result(state: RunState) -> CallToolResult:
    text = state.answer if state.status == "answered" else state.error or f"the run ended {state.status}"
    said = {"run_id": state.run_id, "status": state.status, "answer": state.answer}
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=said, is_error=state.status != "answered"
    )


def _failed(why: str, run_id: str = "") -> CallToolResult:
    said = {"run_id": run_id, "status": "waiting", "answer": ""} if run_id else None
    return CallToolResult(content=[TextContent(text=why)], structured_content=said, is_error=True)
