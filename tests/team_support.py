"""What tests of teams share: a lead, two members, and a model that answers by who asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent_support import FREE, Harness, call, spec
from pentad.agent.budget import Amount
from pentad.agent.coordination.base import Assigns, Concludes, GivesUp, Team, coordinator_for
from pentad.agent.coordination.delegate import as_call
from pentad.agent.exchange import Exchange
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.sub_run_state import SubRun
from pentad.agent.tool_events import ToolReturned
from pentad.choice import Choice
from pentad.testing.backends import Item
from pentad.types import Budget, Request, ToolCall

Script = Mapping[str, Sequence[Sequence[Item]]]
"""What each agent says, turn by turn, by the name that its instructions give it."""


def agent(name: str, **fields: Any) -> AgentSpec:
    """An agent whose instructions are its name, so that the script knows who asks."""
    return spec(name=name, instructions=f"I am {name}.", **fields)


def team(members: Mapping[str, AgentSpec] | None = None, **fields: Any) -> AgentSpec:
    """A lead with two members under a supervisor."""
    members = {"ann": agent("ann"), "bob": agent("bob")} if members is None else members
    made = {"coordinator": Choice(name="supervisor"), "agents": members, **fields}
    return agent("lead", **made)


def delegated(member: str, task: str, ident: str = "c1") -> ToolCall:
    """The lead's call that gives a task."""
    return call("delegate", ident, member=member, task=task)


def by_agent(script: Script) -> Callable[[Request], Sequence[Item]]:
    """A turn for `ScriptedBackend`: the next line of the agent that asks, by how often it has spoken."""

    def turn(request: Request) -> Sequence[Item]:
        messages = request.messages or ()
        system = next(m.content for m in messages if m.role == "system")
        name = next(name for name in script if f"I am {name}." in system)
        said = sum(m.role == "assistant" for m in messages)
        return script[name][min(said, len(script[name]) - 1)]

    return turn


def by_task(
    members: Mapping[str, Callable[[str], Sequence[Item] | str]],
) -> Callable[[Request], Sequence[Item]]:
    """A turn for `ScriptedBackend`: what a member says to the task that it was given.

    After a call of a tool of its own it answers with what the tool returned.
    """

    def turn(request: Request) -> Sequence[Item]:
        messages = request.messages or ()
        system = next(m.content for m in messages if m.role == "system")
        name = next(name for name in members if f"I am {name}." in system)
        if messages[-1].role == "tool":
            return [messages[-1].content]
        task = next(m.content for m in messages if m.role == "user")
        said = members[name](task)
        return [said] if isinstance(said, str) else said

    return turn


def rehearsed(
    lead: AgentSpec,
    goal: str,
    says: Mapping[str, Callable[[str], str | None]],
    tokens: Callable[[str], int] = lambda task: 1,
) -> tuple[Concludes | GivesUp, Team]:
    """How a team without a lead ends, and what it came to, in memory alone: for many or large samples.

    Args:
        says: what each member answers; None where it fails.
        tokens: what a member's run uses for a task.
    """
    coordinator = coordinator_for(lead)
    state = RunState(run_id="run_1", spec=lead, goal=goal, tenant="t")
    while True:
        seen = Team(state=state, members=coordinator.members(state))
        move = coordinator.next(seen)
        if isinstance(move, Concludes | GivesUp):
            return move, seen
        assert isinstance(move, Assigns)
        given, results, children = [], {}, dict(state.children)
        for place, each in enumerate(move.assignments):
            said, made = says[each.member](each.task), as_call(place, state.step, each)
            given.append(made)
            results[place] = ToolReturned(
                step=state.step,
                index=place,
                call_id=made.id,
                tool=made.name,
                status="failed" if said is None else "ok",
                content=said or "it failed",
            )
            children[state.step, place] = SubRun(
                step=state.step,
                index=place,
                run_id=f"run_1-{state.step}-{place}",
                agent=each.member,
                goal=each.task,
                budget=Budget(),
                status="failed" if said is None else "answered",
                used=Amount(tokens=tokens(each.task)),
            )
        done = Exchange(
            step=state.step,
            purpose="coordinate",
            calls=tuple(given),
            coordinated=True,
            results=results,
            outcome="called_tools",
        )
        exchanges = (*state.exchanges, done)
        state = replace(state, step=state.step + 1, exchanges=exchanges, children=children)


def kinds(h: Harness, run_id: str) -> list[str]:
    """The kinds of a run's events, in order."""
    return [record.kind for record in h.records(run_id)]


def arguments(text: str) -> dict[str, Any]:
    """The arguments of a journaled call."""
    made: dict[str, Any] = json.loads(text)
    return made


__all__ = ["FREE", "agent", "arguments", "by_agent", "by_task", "delegated", "kinds", "rehearsed", "team"]
