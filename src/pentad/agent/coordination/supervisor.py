"""Supervisor: a lead agent that gives tasks to the members of its team and reads what they answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.codec import dumps, encode
from pentad.agent.coordination.base import MEMBERS, LeadActs, Move, Team, TeamCost
from pentad.agent.coordination.delegate import delegate_action
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.choice import Choice
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """Lets a lead agent give tasks to named sub-agents, several at once, and merge their answers.

    The lead decides by its own planner; it sees one more tool, `delegate`, whose result is the
    member's answer. A member's run sees its task and nothing else of the lead's, unless it inherits.

    With `depth` above 1 the tree is recursive: a lead with many members gives its tasks to supervisors of
    groups, so that no prompt names all of them; each is a run within the run and the budget above it.

    Source: survey III-A, centralised structure: a lead plans, assigns to workers and merges, and the
    hierarchy of AWS Bedrock's multi-agent collaboration. Ours gives each task a budget of its own, carved
    from the lead's.
    """

    keep_fraction: float = 0.25
    """What the lead keeps, 0 to 1, of the budget that is left when it gives out tasks."""
    max_tasks: int = 16
    """Tasks that a run gives out, at most; then the lead goes on by itself."""
    depth: int = 1
    """Levels of supervisors; above 1 the members are grouped under supervisors made of the lead."""
    span: int = 4
    """Whom each supervisor leads, at most, where `depth` is above 1 and that many levels suffice."""

    name: ClassVar[str] = "supervisor"
    needs: ClassVar[frozenset[str]] = frozenset({MEMBERS})

    def __post_init__(self) -> None:
        in_range("keep_fraction", self.keep_fraction, least=0, most=1)
        in_range("max_tasks", self.max_tasks, least=1)
        in_range("depth", self.depth, least=1, most=8)
        in_range("span", self.span, least=2)

    def members(self, state: RunState) -> Mapping[str, AgentSpec]:
        """The agent's own; below a tree of supervisors, those of the level below."""
        own = state.spec.agents
        if self.depth == 1 or len(own) <= self.span:
            return own
        groups = grouped(own, min(self.span, -(-len(own) // 2)))
        return {f"group-{n + 1}": self._chief(state.spec, n, group) for n, group in enumerate(groups)}

    def _chief(self, lead: AgentSpec, number: int, group: Mapping[str, AgentSpec]) -> AgentSpec:
        """A supervisor of a group: the lead, without its tools, over fewer members."""
        options = {"keep_fraction": self.keep_fraction, "max_tasks": self.max_tasks, "span": self.span}
        leads = ", ".join(group)
        return replace(
            lead,
            name=f"{lead.name[:50]}-{number + 1}",
            description=f"leads {leads}",
            tools=(),
            tool_options={},
            mcp_servers={},
            agents=group,
            coordinator=Choice(name=self.name, options={**options, "depth": self.depth - 1}),
        )

    def actions(self, team: Team) -> tuple[Tool, ...]:
        """`delegate`, until `max_tasks` have been given out in the steps before."""
        given = sum(child.step < team.state.step for child in team.log)
        return (delegate_action(team.members),) if given < self.max_tasks else ()

    def next(self, team: Team) -> Move:  # noqa: ARG002
        """The lead, always."""
        return LeadActs()

    def cost(self, team: Team) -> TeamCost:
        """A run for each task that may still be given out, and the action in every prompt."""
        told = sum(len(dumps(encode(action.spec))) for action in self.actions(team))
        return TeamCost(sub_runs=max(0, self.max_tasks - len(team.log)), prompt_tokens=math.ceil(told / 3))


def grouped(members: Mapping[str, AgentSpec], groups: int) -> tuple[Mapping[str, AgentSpec], ...]:
    """The members in that many groups of nearly equal size, in their order."""
    names, size, more = list(members), *divmod(len(members), groups)
    starts = [n * size + min(n, more) for n in range(groups + 1)]
    return tuple({name: members[name] for name in names[starts[n] : starts[n + 1]]} for n in range(groups))
