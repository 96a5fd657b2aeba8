"""ToolReviews: where an MCP server lists other tools than were accepted, a run waits for a person."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pentad.agent.approval import WAITING
from pentad.agent.codec import dumps
from pentad.agent.parallel import together
from pentad.agent.tools.pins import ListChange, identity

if TYPE_CHECKING:
    from pentad.agent.run import Run

NO_CALL = -1
"""The index of a question that is about no call of its step."""


class ToolReviews:
    """Puts changed lists of tools to a person, each list once in a run, over restarts too."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def settle(self, changes: Sequence[ListChange]) -> bool:
        """Asks about those not judged yet and waits; pins what is allowed. Whether anything was.

        What is denied, or not answered in time, stays blocked, and the run goes on without it.
        """
        desk, state = self._run.approvals, self._run.state
        asked = {self._id(change): change for change in changes}
        fresh = {i: change for i, change in asked.items() if i not in state.answers}
        for approval_id, change in fresh.items():
            await desk.ask(
                state.step,
                NO_CALL,
                change.name,
                dumps(change.listings),
                approval_id=approval_id,
                kind="tools",
                message=change.about,
            )
        if fresh:
            with self._run.span("agent", WAITING):
                await together(desk.wait(i) for i in fresh)
        allowed = [change for i, change in asked.items() if self._run.state.answers[i].approved]
        for change in allowed:
            await asyncio.to_thread(change.accept)
        return bool(allowed)

    def _id(self, change: ListChange) -> str:
        """The same for the same listing in the same run: what was said of another one does not count."""
        what = [self._run.state.run_id, identity(change.server), sorted(change.prints.items())]
        return f"apr_{hashlib.sha256(dumps(what).encode()).hexdigest()[:16]}"
