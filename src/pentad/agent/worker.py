"""Worker: one run from where it is to its end, whatever ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import ExitStack

from pentad.agent.coordination.base import coordinator_for
from pentad.agent.delegation import Delegation
from pentad.agent.endings import ended
from pentad.agent.events import RunEnded
from pentad.agent.journal import RunLost
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.loop import Loop
from pentad.agent.memories import Memories
from pentad.agent.planning.base import Planner
from pentad.agent.resumption import generators
from pentad.agent.rows import JournalDamaged
from pentad.agent.run import Run, Surroundings
from pentad.agent.run_hold import RunHold
from pentad.agent.run_tasks import RunTasks
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.tools.invocation import ToolRules
from pentad.agent.toolset import Toolset
from pentad.choice import build
from pentad.errors import BudgetExceeded, PentadError

_LOG = logging.getLogger(__name__)


class Worker:
    """Works on runs; the runtime gives it one task for each.

    Args:
        around: what all runs share; its stalls are told of runs that nobody works on any more.
        toolset: finds the tools of each run.
        memory: what agents with long-term memory recall from; None where there is none.
        deny: patterns of tools that no agent may call, whatever its file says.
        tasks: where sub-runs are worked on.
        hold: lets new runs begin.
    """

    def __init__(
        self,
        around: Surroundings,
        toolset: Toolset,
        memory: Memories | None,
        deny: Sequence[str],
        tasks: RunTasks,
        hold: RunHold,
    ) -> None:
        self._around = around
        self._stalls = around.stalls
        self._tasks = tasks
        self._toolset = toolset
        self._deny = tuple(deny)
        self._memory = memory
        self._hold = hold

    def begin(self, state: RunState, place: ExitStack) -> None:
        """Has the run worked on; `place` is given back when that ends."""
        run = Run(self._around, state)
        self._tasks.spawn(run, self.work(run), place)

    async def work(self, run: Run) -> None:
        """Works until the run has ended, or the journal or the task is gone.

        Its sub-runs end before it, and are not worked on without it.
        """
        run_id, run.begun = run.state.run_id, True
        self._stalls.begin(run_id)
        delegation = Delegation(run, self._tasks, self.work)
        try:
            ending = await self._until_end(run, delegation)
            if ending is not None:
                await delegation.end()
                await run.append(ending)
        except asyncio.CancelledError:
            if run.cancelled and not run.state.ended:
                await delegation.end()
                await run.append(ended("cancelled", run.state, "cancelled by request"))
        except (JournalUnavailable, JournalDamaged, RunLost) as error:
            # The run's rows cannot be written, now or ever: nothing may go on, and nothing is lost.
            _LOG.error("run %s stops where it is: %s", run_id, error)
            self._stalls.give_up(run_id, error)
        finally:
            await run.flush()
            await delegation.stop()
            await self._toolset.leave(run_id)

    async def _until_end(self, run: Run, delegation: Delegation) -> RunEnded | None:
        """None when the loop ended the run itself, else how it must end."""
        spec = run.state.spec
        try:
            async with run.deadline() as wall:
                tools = self._toolset.finder(run)
                rules = ToolRules(deny=(*self._deny, *spec.deny))
                team = coordinator_for(spec)
                loop = Loop(run, planner_for(spec), team, rules, tools, self._memory, delegation)
                model = spec.model or next(iter(generators(self._around.models)), "")
                async with self._hold.under_way(run, model):
                    await loop.work()
        except TimeoutError:
            if not wall.expired():
                raise
            limit = run.state.ledger.budget.wall_s
            error = f"{limit:g} s of wall time are used up; raise budget.wall_s"
            return ended("budget_exceeded", run.state, error)
        except BudgetExceeded as error:
            return ended("budget_exceeded", run.state, str(error))
        except (JournalUnavailable, JournalDamaged, RunLost):
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
