"""EditorAgent: one of our agents as an editor drives it. A prompt is a run, a session its conversation.

Source: Agent Client Protocol, version 1. Sessions outlive the process, as runs do.
"""

from __future__ import annotations

import asyncio
import pathlib
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from acp import PROTOCOL_VERSION, RequestError, update_agent_message_text, update_user_message_text
from acp.schema import (
    AgentCapabilities,
    Implementation,
    InitializeResponse,
    LoadSessionResponse,
    NewSessionResponse,
    PromptCapabilities,
    PromptResponse,
)

from pentad import __version__
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.sub_run_events import SubRunChanged
from pentad.agent.tool_events import ApprovalAsked
from pentad.application.protocols.acp.editor_tools import READ, WRITE, Place, editor_tools
from pentad.application.protocols.acp.updates import ending, options, permission, stop_reason, update_of
from pentad.application.protocols.task_tables import Known, TaskTables
from pentad.errors import Conflict, PentadError
from pentad.types import Message

_TENANT = "default"


@dataclass(slots=True, kw_only=True)
class _Session:
    id: str
    folder: pathlib.Path
    run_id: str | None = None
    """Of the prompt under way."""
    cancelled: bool = False
    """Whether the prompt under way was, perhaps before its run began."""
    notice: str = ""
    """To be said with the next prompt."""


class EditorAgent:
    """The SDK's `Agent` over the runtime, for one editor.

    Args:
        runtime: runs the agent; gets the tools that use the editor's files.
        spec: the agent.
    """

    def __init__(self, runtime: AgentRuntime, spec: AgentSpec) -> None:
        self._runtime, self._spec = runtime, spec
        self._client: Any = None
        self._sessions: dict[str, _Session] = {}
        self._tables = TaskTables(runtime.journal_store)
        for made in editor_tools(self._place):
            runtime.toolbox.add(made)

    def on_connect(self, conn: Any) -> None:
        """Whom to tell and ask."""
        self._client = conn

    async def initialize(
        self,
        protocol_version: int,
        client_capabilities: Any = None,
        **_: Any,
    ) -> InitializeResponse:
        """What we can; what the editor can decides which of its files the agent may use."""
        files = getattr(client_capabilities, "fs", None)
        self._spec = _with_files(
            self._spec,
            read=bool(files and files.read_text_file),
            write=bool(files and files.write_text_file),
        )
        return InitializeResponse(
            protocol_version=min(protocol_version, PROTOCOL_VERSION),
            agent_info=Implementation(name="pentad", title=self._spec.name, version=__version__),
            agent_capabilities=AgentCapabilities(
                load_session=True, prompt_capabilities=PromptCapabilities(embedded_context=True)
            ),
        )

    async def new_session(self, cwd: str, mcp_servers: Any = None, **_: Any) -> NewSessionResponse:
        """A conversation about a folder."""
        session = self._opened(f"ses_{uuid.uuid4().hex[:20]}", cwd, mcp_servers)
        return NewSessionResponse(session_id=session.id)

    async def load_session(
        self, cwd: str, session_id: str, mcp_servers: Any = None, **_: Any
    ) -> LoadSessionResponse:
        """A conversation of before, told once more."""
        states = await asyncio.to_thread(self._turns, session_id)
        if not states:
            raise RequestError.resource_not_found(session_id)
        self._opened(session_id, cwd, mcp_servers)
        for state in states:
            await self._tell(session_id, update_user_message_text(state.goal))
            await self._tell(session_id, ending(state))
        return LoadSessionResponse()

    async def prompt(self, session_id: str, prompt: Sequence[Any], **_: Any) -> PromptResponse:
        """One run, told as it goes, to its end."""
        session = self._session(session_id)
        if session.run_id is not None:
            raise RequestError.invalid_request({"reason": "the session is at work on a prompt"})
        if session.notice:
            await self._tell(session_id, update_agent_message_text(session.notice + "\n\n"))
            session.notice = ""
        session.cancelled = False
        try:
            history = _history(await asyncio.to_thread(self._turns, session_id))
            goal = _goal(prompt)
            run_id = session.run_id = await self._runtime.start(self._spec, goal, history=history)
            known = Known(run_id=run_id, tenant=_TENANT, context_id=session_id, message_id=run_id)
            await asyncio.to_thread(self._tables.add, known)
            state = await self._followed(session, run_id)
        except PentadError as error:
            raise RequestError.invalid_params({"reason": str(error)}) from None
        finally:
            session.run_id = None
        await self._tell(session_id, ending(state))
        return PromptResponse(stop_reason=stop_reason(state))

    async def cancel(self, session_id: str, **_: Any) -> None:
        """Ends the prompt under way, with its tools and sub-runs."""
        session = self._session(session_id)
        session.cancelled = True
        if session.run_id is not None:
            await self._end(session.run_id)

    async def authenticate(self, method_id: str, **_: Any) -> None:
        """There is nothing to sign in to."""
        raise RequestError.invalid_params({"reason": f"no method {method_id[:100]!r}"})

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """No extensions."""
        raise RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """Those that nobody knows say nothing to us."""

    async def _followed(self, session: _Session, run_id: str) -> RunState:
        async with aclosing(self._runtime.events(run_id, patient=True)) as records:
            async for record in records:
                if session.cancelled:
                    await self._end(run_id)
                match record.event:
                    case ApprovalAsked() | SubRunChanged():
                        await self._ask(session, run_id)
                    case event:
                        await self._tell(session.id, update_of(event))
        return await asyncio.to_thread(self._runtime.show, run_id)

    async def _ask(self, session: _Session, run_id: str) -> None:
        """Puts what is pending to the person at the editor."""
        for _, asked in self._runtime.pending(run_id):
            approved, note = False, "the editor cannot ask for values"
            if asked.kind != "input":
                answer = await self._client.request_permission(
                    session_id=session.id, tool_call=permission(asked), options=options(asked)
                )
                chosen = getattr(answer.outcome, "option_id", "")
                approved, note = chosen == "allow", ""
            try:
                await self._runtime.answer(run_id, asked.approval_id, approved=approved, note=note)
            except Conflict:
                continue  # the run was cancelled meanwhile, or the time for it was over

    async def _end(self, run_id: str) -> None:
        try:
            await self._runtime.cancel(run_id)
        except Conflict:
            return  # it had ended

    async def _tell(self, session_id: str, update: Any) -> None:
        if update is not None:
            await self._client.session_update(session_id=session_id, update=update)

    def _opened(self, session_id: str, cwd: str, mcp_servers: Any) -> _Session:
        folder = pathlib.Path(cwd)
        if not folder.is_absolute():
            raise RequestError.invalid_params({"reason": f"cwd {cwd[:200]!r} is not absolute"})
        notice = ""
        if mcp_servers:
            names = ", ".join(server.name for server in mcp_servers)
            notice = f"(The editor's MCP servers are not used: {names}. Declare them in the agent's file.)"
        session = _Session(id=session_id, folder=folder.resolve(), notice=notice)
        self._sessions[session_id] = session
        return session

    def _session(self, session_id: str) -> _Session:
        if session_id not in self._sessions:
            raise RequestError.resource_not_found(session_id)
        return self._sessions[session_id]

    def _turns(self, session_id: str) -> list[RunState]:
        known = self._tables.of_context(_TENANT, session_id)
        return sorted((self._runtime.show(run_id) for run_id in known), key=lambda state: state.started_s)

    def _place(self, run_id: str) -> Place | None:
        for session in self._sessions.values():
            if session.run_id == run_id:
                return Place(client=self._client, session_id=session.id, folder=session.folder)
        return None


def _with_files(spec: AgentSpec, *, read: bool, write: bool) -> AgentSpec:
    """The agent with the tools that its editor can serve; each write is asked about."""
    tools = (*((READ,) if read else ()), *((WRITE,) if write else ()))
    wanted = tuple(name for name in tools if name not in spec.tools)
    ask = (*spec.ask, WRITE) if WRITE in wanted else spec.ask
    return replace(spec, tools=(*spec.tools, *wanted), ask=ask)


def _history(states: Sequence[RunState]) -> list[Message]:
    """What was said before, of those prompts that were answered."""
    turns = []
    for state in states:
        if state.status == "answered":
            turns += [
                Message(role="user", content=state.goal),
                Message(role="assistant", content=state.answer),
            ]
    return turns


def _goal(blocks: Sequence[Any]) -> str:
    """A prompt as text: what is written, what is attached, and links by their address.

    Raises RequestError for images and sounds, which we said that we do not take.
    """
    parts = []
    for block in blocks:
        match block.type:
            case "text":
                parts.append(block.text)
            case "resource" if hasattr(block.resource, "text"):
                parts.append(f"<file uri={block.resource.uri!r}>\n{block.resource.text}\n</file>")
            case "resource_link":
                parts.append(f"[{block.name}]({block.uri})")
            case kind:
                raise RequestError.invalid_params({"reason": f"a prompt may not hold {kind} here"})
    return "\n".join(parts)
