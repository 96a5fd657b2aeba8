"""Worker: one run from where it is to its end, whatever ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from pentad.agent.events import RunEnded
from pentad.agent.journal_view import JournalUnavailable
from pentad.agent.loop import Loop, partial
from pentad.agent.memory.base import Memory
from pentad.agent.planning.base import Planner
from pentad.agent.rows import JournalDamaged
from pentad.agent.run import Run
from pentad.agent.run_status import RunStatus
from pentad.agent.spec import AgentSpec
from pentad.agent.stalls import Stalls
from pentad.agent.state import RunState
from pentad.agent.tools.invocation import ToolRules
from pentad.agent.toolset import Toolset
from pentad.choice import build
from pentad.errors import BudgetExceeded, PentadError

_LOG = logging.getLogger(__name__)


class Worker:
    """Works on runs; the runtime gives it one task for each.

    Args:
        toolset: finds the tools of each run.
        memory: what agents with long-term memory recall from; None where there is none.
        deny: patterns of tools that no agent may call, whatever its file says.
        stalls: is told of runs that nobody works on any more.
    """

    def __init__(self, toolset: Toolset, memory: Memory | None, deny: Sequence[str], stalls: Stalls) -> None:
        self._stalls = stalls
        self._toolset = toolset
        self._deny = tuple(deny)
        self._memory = memory
        self._cancelled: set[str] = set()

    def cancel(self, run_id: str, task: asyncio.Task[None]) -> None:
        """Ends the run as cancelled; a task cancelled in any other way only stops working on it."""
        self._cancelled.add(run_id)
        task.cancel()

    async def work(self, run: Run) -> None:
        """Works until the run has ended, or the journal or the task is gone."""
        run_id = run.state.run_id
        self._stalls.begin(run_id)
        try:
            ending = await self._until_end(run)
            if ending is not None:
                await run.append(ending)
        except asyncio.CancelledError:
            if run_id in self._cancelled and not run.state.ended:
                await run.append(ended("cancelled", run.state, "cancelled by request"))
        except (JournalUnavailable, JournalDamaged) as error:
            # The run's rows cannot be written, now or ever: nothing may go on, and nothing is lost.
            _LOG.error("run %s stops where it is: %s", run_id, error)
            self._stalls.give_up(run_id, error)
        finally:
            self._cancelled.discard(run_id)
            await self._toolset.leave(run_id)

    async def _until_end(self, run: Run) -> RunEnded | None:
        """None when the loop ended the run itself, else how it must end."""
        spec = run.state.spec
        try:
            async with run.deadline() as wall:
                tools = self._toolset.finder(run)
                rules = ToolRules(deny=(*self._deny, *spec.deny))
                await Loop(run, planner_for(spec), rules, tools, self._memory).work()
        except TimeoutError:
            if not wall.expired():
                raise
            limit = run.state.ledger.budget.wall_s
            error = f"{limit:g} s of wall time are used up; raise budget.wall_s"
            return ended("budget_exceeded", run.state, error)
        except BudgetExceeded as error:
            return ended("budget_exceeded", run.state, str(error))
        except (JournalUnavailable, JournalDamaged):
            raise
        except PentadError as error:
            return ended("failed", run.state, str(error))
        except Exception as error:
            _LOG.exception("run %s met a bug of ours", run.state.run_id)
            return ended("failed", run.state, f"internal error: {type(error).__name__}")
        return None


def planner_for(spec: AgentSpec) -> Planner:
    """The planner that the spec names, with its options. Raises UnknownName, InvalidRequest."""
    planner: Planner = build("planner", spec.planner)
    return planner


def ended(status: RunStatus, state: RunState, error: str) -> RunEnded:
    """An end that the loop did not come to by itself, with what there is of an answer."""
    return RunEnded(status=status, answer=partial(state.closed), error=error)
