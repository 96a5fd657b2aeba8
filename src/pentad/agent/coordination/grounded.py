"""Grounded: the next step of a plan is the one that is likely and that grounding members find feasible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import (
    MEMBERS,
    PEERS,
    Concludes,
    GivesUp,
    Move,
    Report,
    Team,
)
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import numbered, plain, share
from pentad.ranges import in_range
from pentad.types import Decision

_UNSAID = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounded(Leaderless):
    """Builds a plan step by step: one member proposes steps with odds, the others score what is feasible.

    The step with the highest product of odds and all scores is taken. The first member proposes; each other
    is one grounding (what can be done here, what is safe, what is preferred), a model or a tool.

    Source: Huang et al. 2023, "Grounded Decoding", section 3: token probability times grounded scores. Ours
    takes the product over whole steps, as SayCan (Ahn et al. 2022) does, because members are agents and
    a token of a step means nothing to a tool that scores it.
    """

    steps: int = 3
    """Steps of the plan, at most; each takes two of the run's steps."""
    least: float = 0.05
    """The product, 0 to 1, below which no proposal is taken and the plan ends."""

    name: ClassVar[str] = "grounded"
    needs: ClassVar[frozenset[str]] = frozenset({MEMBERS, PEERS})

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("steps", self.steps, least=1)
        in_range("least", self.least, least=0, most=1)

    def move(self, team: Team) -> Move:
        """Proposals, scores, proposals, until a proposal is `done` or nothing feasible is left."""
        proposer, *grounders = team.members
        plan = self.plan(team)
        if not team.rounds or team.rounds[-1][0].purpose == "ground":
            ended = team.rounds and (len(plan) < len(team.rounds) // 2 or len(plan) >= self.steps)
            if ended or (plan and plain(plan[-1]) == "done"):
                return self.best(team)
            return self.asks(
                [proposer], _propose(team.state.goal, plan), "propose", len(plan), self._taken(team)
            )
        options = _options(team.rounds[-1][0])
        if not options:
            return self.best(team)
        task = _ground(team.state.goal, plan, list(options))
        return self.asks(grounders, task, "ground", len(plan))

    def plan(self, team: Team) -> tuple[str, ...]:
        """The steps taken so far."""
        plan: list[str] = []
        for scores in self._rounds(team):
            taken = max(scores, key=lambda step: scores[step])
            if scores[taken] < self.least or plain(taken) in map(plain, plan):
                break
            plan.append(taken)
        return tuple(plan)

    def best(self, team: Team) -> Concludes | GivesUp:
        """The plan so far."""
        plan = [step for step in self.plan(team) if plain(step) != "done"]
        if not plan:
            return GivesUp(why="no step was both proposed and feasible", decisions=self._taken(team))
        listed = "\n".join(f"{n + 1}. {step}" for n, step in enumerate(plan))
        return Concludes(answer=listed, decisions=self._taken(team))

    def _taken(self, team: Team) -> tuple[Decision, ...]:
        rounds = self._rounds(team)
        if not rounds:
            return ()
        scores = rounds[-1]
        return (
            self.decision("step", max(scores, key=lambda s: scores[s]), {**scores}, f"least {self.least:g}"),
        )

    def _rounds(self, team: Team) -> list[dict[str, float]]:
        """For each pair of proposals and scores the product of every proposal."""
        found = []
        for before, after in zip(team.rounds, team.rounds[1:], strict=False):
            if after[0].purpose == "ground":
                options = _options(before[0])
                said = [numbered(report.text) for report in after if report.ok]
                found.append(
                    {
                        step: odds * math.prod(share(row.get(n + 1, ""), _UNSAID) for row in said)
                        for n, (step, odds) in enumerate(options.items())
                    }
                )
        return found


def _options(report: Report) -> dict[str, float]:
    """The proposed steps with their odds: lines `1: STEP | 0.6`; a plain answer is one step."""
    if not report.ok:
        return {}
    found: dict[str, float] = {}
    for said in numbered(report.text).values() or [report.text.strip()]:
        step, _, odds = said.partition("|")
        found.setdefault(step.strip(), share(odds, 1.0))
    return {step: odds for step, odds in found.items() if step}


def _propose(goal: str, plan: tuple[str, ...]) -> str:
    so_far = "\n".join(f"- {step}" for step in plan) or "none"
    return (
        f"{goal}\n\nSteps so far:\n{so_far}\n\nPropose up to four next steps, a line each with how likely "
        "it is the right one, like `1: open the drawer | 0.6`. Where nothing is left to do, propose `done`."
    )


def _ground(goal: str, plan: tuple[str, ...], options: list[str]) -> str:
    so_far = "\n".join(f"- {step}" for step in plan) or "none"
    listed = "\n".join(f"{n + 1}: {step}" for n, step in enumerate(options))
    return (
        f"{goal}\n\nSteps so far:\n{so_far}\n\nScore each of these next steps, 0 where it cannot be done "
        f"now and 1 where nothing speaks against it, a line each like `1: 0.8`:\n{listed}"
    )
