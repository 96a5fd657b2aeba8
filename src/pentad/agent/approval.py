"""ApprovalDesk: what a run asks a person, and what the person said; each an event of the journal."""

from __future__ import annotations

import asyncio
import fnmatch
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pentad.agent.tool_events import ApprovalAnswered, ApprovalAsked
from pentad.agent.tools.schema import check_arguments
from pentad.errors import Conflict, Forbidden, InvalidRequest, NotFound, ToolFailed

if TYPE_CHECKING:
    from pentad.agent.run import Run
    from pentad.agent.state import RunState

MAX_NOTE = 2000
WAITING = "approval"
"""Name of the span in which a run waits for a person."""


class ApprovalDesk:
    """The questions of one run under way. Answers come from any task of the same loop.

    Waiting uses neither wall time of the budget nor any model; the question outlives the process.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = asyncio.Lock()
        self._answers: dict[str, asyncio.Future[ApprovalAnswered]] = {}

    def needed(self, tool: str) -> bool:
        """Whether the agent wants a person asked before this tool is called."""
        return any(fnmatch.fnmatchcase(tool, pattern) for pattern in self._run.state.spec.ask)

    async def ask(
        self, step: int, index: int, tool: str, arguments: str, *, approval_id: str = "", **question: Any
    ) -> str:
        """Journals the question; its approval id. The same call is asked about once, over restarts too.

        So is a question that comes with an id of its own.
        """
        if approval_id in self._run.state.pending:
            return approval_id
        for asked in self._run.state.pending.values():
            same = (asked.step, asked.index, asked.kind) == (step, index, "tool")
            if same and question.get("kind", "tool") == "tool":
                return asked.approval_id
        limit_s, now_s = self._run.state.spec.ask_timeout_s, self._run.around.wall()
        event = ApprovalAsked(
            step=step,
            index=index,
            approval_id=approval_id or new_id(),
            tool=tool,
            arguments=arguments,
            asked_s=now_s,
            expires_s=None if limit_s is None else now_s + limit_s,
            **question,
        )
        async with self._lock:
            await self._run.append(event)
        return event.approval_id

    async def wait(self, approval_id: str) -> ApprovalAnswered:
        """The answer, once a person gave one or the time for it is over.

        Raises Forbidden when nobody answered and the agent says `ask_expired: fail`.
        """
        if (given := self._run.state.answers.get(approval_id)) is not None:
            return given  # whoever answered saw the question in the journal before this task ran
        asked = self._run.state.pending[approval_id]
        with self._run.paused():
            try:
                async with asyncio.timeout(self._left_s(asked)):
                    return await asyncio.shield(self._future(approval_id))
            except TimeoutError:
                return await self._expired(asked)

    async def answer(
        self,
        approval_id: str,
        *,
        approved: bool,
        by: Literal["person", "timeout"] = "person",
        note: str = "",
        content: Mapping[str, Any] | None = None,
    ) -> None:
        """Journals what was said and lets the run go on.

        Raises NotFound for a question that was never asked; Conflict for one that is answered.
        """
        async with self._lock:
            event = answered(
                self._run.state, approval_id, approved=approved, by=by, note=note, content=content
            )
            await self._run.append(event)
        future = self._future(approval_id)
        if not future.done():
            future.set_result(event)

    def _future(self, approval_id: str) -> asyncio.Future[ApprovalAnswered]:
        if approval_id not in self._answers:
            self._answers[approval_id] = asyncio.get_running_loop().create_future()
        return self._answers[approval_id]

    def _left_s(self, asked: ApprovalAsked) -> float | None:
        limit_s = self._run.state.spec.ask_timeout_s
        if asked.expires_s is None or limit_s is None:
            return None
        # A wall clock that is set back does not make it longer than was declared.
        return max(0.0, min(limit_s, asked.expires_s - self._run.around.wall()))

    async def _expired(self, asked: ApprovalAsked) -> ApprovalAnswered:
        spec = self._run.state.spec
        said = f"nobody answered within {spec.ask_timeout_s:g} s"
        try:
            approved = asked.kind == "tool" and spec.ask_expired == "allow"
            await self.answer(asked.approval_id, approved=approved, by="timeout", note=said)
        except Conflict:
            pass  # A person was quicker by a hair.
        event = await self._future(asked.approval_id)
        if event.by == "timeout" and asked.kind == "tool" and spec.ask_expired == "fail":
            raise Forbidden(
                f"{said} whether {asked.tool!r} may be called", hint="raise ask_timeout_s or set ask_expired"
            )
        return event


def new_id() -> str:
    """An approval's id, unique over all runs."""
    return f"apr_{uuid.uuid4().hex[:16]}"


def answered(
    state: RunState,
    approval_id: str,
    *,
    approved: bool,
    by: Literal["person", "timeout"] = "person",
    note: str = "",
    content: Mapping[str, Any] | None = None,
) -> ApprovalAnswered:
    """The event that answers a pending approval of the run.

    Raises NotFound, with the pending ones; Conflict when it is answered or the run has ended.
    """
    if len(note) > MAX_NOTE:
        raise InvalidRequest(
            f"the note has {len(note)} characters, at most {MAX_NOTE} are kept", param="note"
        )
    asked = state.pending.get(approval_id)
    if before := state.answers.get(approval_id):
        said = "approved" if before.approved else "denied"
        raise Conflict(f"approval {approval_id!r} is already {said}", hint="look at the run")
    if state.ended:
        raise Conflict(f"run {state.run_id!r} has already ended: {state.status}", hint="nothing is asked")
    if asked is None:
        known = ", ".join(state.pending) or "none"
        raise NotFound(
            f"run {state.run_id!r} does not wait for approval {approval_id[:64]!r}", hint=f"pending: {known}"
        )
    if asked.kind == "input" and approved:
        _check_content(asked, content)
    return ApprovalAnswered(
        step=asked.step,
        index=asked.index,
        approval_id=approval_id,
        approved=approved,
        by=by,
        note=note,
        content=content,
        waiting=len(state.pending) - 1,
    )


def _check_content(asked: ApprovalAsked, content: Mapping[str, Any] | None) -> None:
    """Raises InvalidRequest unless the values are those that were asked for."""
    if asked.schema is None:
        return
    if content is None:
        names = ", ".join(map(str, asked.schema.get("properties", {}))) or "none"
        raise InvalidRequest(
            f"{asked.tool!r} asks for values", hint=f"give input with {names}, or deny", param="input"
        )
    try:
        check_arguments(asked.tool, asked.schema, content)
    except ToolFailed as error:
        raise InvalidRequest(error.message.replace("arguments", "input", 1), param="input") from None
