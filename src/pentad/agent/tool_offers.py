"""Tool offers of a run: the policy's choice before each step, journaled when it changes.

Prompts present in front what was offered first. What comes later is told behind the steps before it, so
that a prompt begins as the one before and the engine's prefix cache holds all of that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pentad.agent.run import Run
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolsOffered
from pentad.agent.tools.base import Tool
from pentad.agent.tools.policy.base import Offerable, ToolPolicy
from pentad.choice import build
from pentad.types import ToolSpec


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
        if set(names) == set(before) and _has_acted(state):
            names = before  # another order alone is not worth telling
        # Servers may bring further tools later: what there was at first must be known then.
        if names != before or (state.offered is None and state.spec.mcp_servers):
            offered = [by_name[name] for name in names]
            await self._run.append(
                ToolsOffered(
                    step=state.step,
                    tools=names,
                    withheld=tuple((name, offer.why) for name in by_name if name not in names),
                    told=_told(before, offered) if _has_acted(state) and state.offered is not None else "",
                    decisions=(offer.decision(self._policy.name, allowed, self._run.around.clock()),),
                )
            )
        return tuple(by_name[name] for name in names)

    def presented(self, allowed: Sequence[Tool]) -> tuple[ToolSpec, ...] | None:
        """What prompts present in front, where that is not what is offered now; None where it is.

        Also None where one of them is there no longer, or what was told of later ones has been left out.
        """
        state, by_name = self._run.state, {tool.name: tool for tool in allowed}
        first = state.offered_first
        if not state.offers_told or first is None or state.dropped_turns or not by_name.keys() >= set(first):
            return None
        return tuple(by_name[name].spec for name in first)


def _has_acted(state: RunState) -> bool:
    """Whether a prompt has presented tools: plans name them in other ways."""
    return any(exchange.purpose != "plan" for exchange in state.closed)


def _told(before: Sequence[str], offered: Sequence[Tool]) -> str:
    """The change in words and JSON."""
    further = [
        json.dumps(
            {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
            ensure_ascii=False,
        )
        for tool in offered
        if tool.name not in before
    ]
    now = {tool.name for tool in offered}
    gone = [name for name in before if name not in now]
    parts = []
    if further:
        parts.append("From now on you can also call these tools, one per line:\n" + "\n".join(further))
    if gone:
        parts.append(f"From now on you can no longer call: {', '.join(gone)}.")
    return "\n".join(parts)
