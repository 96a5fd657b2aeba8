"""Agent graph: members are nodes that hand what they come to along edges, and may create or halt nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import field as option
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Report, Team
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import field, plain, without
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.ranges import in_range

_DIRECTIVES = ("ask", "create", "halt")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentGraph(Leaderless):
    """Hands each node's result along its edges; nodes may ask others, create nodes and halt the graph.

    A node answers freely; a line `ask: NAME: TASK` gives a task to another node, `create: NAME: ROLE` makes
    a node like the one that says it, `halt: NAME` takes a node out, and `halt: all` ends the run. A node
    that gets the same task for the third time is in a loop, and the task goes nowhere.

    Source: Talebirad and Nadiri 2023, "Multi-Agent Collaboration: Harnessing the Power of Intelligent LLM
    Agents", sections 3 and 4: agents as nodes with role, state and plugins, who create, halt and supervise;
    their AutoGPT, BabyAGI and Gorilla are edges here: `{a: [a]}`, `{a: [b], b: [c], c: [a]}`, `{a: [b]}`.
    """

    edges: Mapping[str, tuple[str, ...]] = option(default_factory=dict)
    """For each node those who get what it comes to; nodes without edges end there."""
    max_created: int = 4
    """Nodes that may be created in a run."""
    loops: int = 2
    """Times that a node may get the same task; the next one is a loop."""

    name: ClassVar[str] = "agent-graph"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("max_created", self.max_created, least=0)
        in_range("loops", self.loops, least=1)

    def members(self, state: RunState) -> Mapping[str, AgentSpec]:
        """The agent's own and those that nodes have created, as far as the limit allows."""
        own = state.spec.agents
        made = dict(own)
        for report in Team(state=state, members=own).reports:
            name, _, role = field(report.text, "create").partition(":")
            name = name.strip()
            if (
                report.ok
                and name.isidentifier()
                and name not in made
                and len(made) - len(own) < self.max_created
            ):
                made[name] = replace(
                    made[report.member], name=name, description=role.strip(), instructions=role.strip()
                )
        return made

    def move(self, team: Team) -> Move:
        """The tasks that the newest results lead to, until none is left."""
        if not team.rounds:
            first = next(iter(team.members))
            return Assigns(assignments=(Assignment(member=first, task=team.state.goal, purpose="node"),))
        halted = {field(report.text, "halt") for report in team.reports if report.ok}
        if "all" in halted:
            return self.best(team)
        seen = Counter((report.member, plain(report.task)) for report in team.reports)
        given: list[Assignment] = []
        stopped: list[Assignment] = []
        for report in team.rounds[-1]:
            for member, task in self._handed(team, report):
                if member in team.members and member not in halted:
                    key = (member, plain(task))
                    loop = seen[key] >= self.loops
                    seen[key] += 1
                    (stopped if loop else given).append(Assignment(member=member, task=task, purpose="node"))
        decisions = [
            self.decision("loop", each.member, constraint=f"given {self.loops} times") for each in stopped
        ]
        decisions += [self.decision("node", each.member, dict.fromkeys(team.members)) for each in given]
        if not given:
            ended = self.best(team)
            return replace(ended, decisions=(*decisions, *ended.decisions))
        return Assigns(assignments=tuple(given), decisions=tuple(decisions))

    def best(self, team: Team) -> Concludes | GivesUp:
        """What the newest node that answered came to."""
        for report in reversed(team.reports):
            text = without(report.text, _DIRECTIVES)
            if report.ok and text:
                return Concludes(answer=text, decisions=(self.decision("answer", report.member),))
        return GivesUp(why="no node answered")

    def _handed(self, team: Team, report: Report) -> list[tuple[str, str]]:
        """Whom a result gives what."""
        if not report.ok:
            return []
        said = without(report.text, _DIRECTIVES)
        along = f"{team.state.goal}\n\n{report.member} came to: {said}"
        asked, _, task = field(report.text, "ask").partition(":")
        found = [(asked.strip(), task.strip())] if task.strip() else []
        return found + [(member, along) for member in self.edges.get(report.member, ())]
