"""Tool offers of a run: the policy's choice before each step, journaled when it changes."""

from __future__ import annotations

from collections.abc import Sequence

from pentad.agent.run import Run
from pentad.agent.tool_events import ToolsOffered
from pentad.agent.tools.base import Tool
from pentad.agent.tools.policy.base import Offerable, ToolPolicy
from pentad.choice import build


class ToolOffers:
    """Asks the agent's tool policy on behalf of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._policy: ToolPolicy = build("tool_policy", run.state.spec.tool_policy)

    async def choose(self, allowed: Sequence[Tool]) -> tuple[Tool, ...]:
        """The tools that the model is offered in this step, in the policy's order.

        Once the model has answered the step, what it was offered holds, also after a restart.
        """
        state, by_name = self._run.state, {tool.name: tool for tool in allowed}
        if state.current is not None:
            names = by_name if state.offered is None else state.offered
            return tuple(by_name[name] for name in names if name in by_name)
        with self._run.span("agent", "tool policy"):
            offer = await self._policy.offer(
                Offerable(state=state, tools=tuple(allowed)), self._run.around.relevance
            )
        names = offer.tools
        assert len(set(names)) == len(names), f"{self._policy.name} offers a tool twice"
        assert by_name.keys() >= set(names), f"{self._policy.name} offers what it was not given"
        # A policy that leaves all as it is has decided nothing, and costs no event.
        before = tuple(by_name) if state.offered is None else state.offered
        if names != before:
            await self._run.append(
                ToolsOffered(
                    step=state.step,
                    tools=names,
                    withheld=tuple((name, offer.why) for name in by_name if name not in names),
                    decisions=(offer.decision(self._policy.name, allowed, self._run.around.clock()),),
                )
            )
        return tuple(by_name[name] for name in names)
