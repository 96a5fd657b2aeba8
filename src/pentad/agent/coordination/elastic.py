"""Elastic: a team that grows while its members disagree, and stays small on easy tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import Concludes, GivesUp, Move, Team
from pentad.agent.coordination.cards import best, fit
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.votes import vote
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic(Leaderless):
    """Asks the members that fit best, and more of them only while the votes leave the answer open.

    It stops once an answer leads by `lead` votes, or once those who were not asked could not change it.

    Source: survey VII-B1, elastic collaboration; Aggarwal et al. 2023, "Let's Sample Step by Step:
    Adaptive-Consistency", for stopping on a settled vote. Ours asks members in the order of their cards.
    """

    start: int = 2
    """Members asked at once at the beginning."""
    lead: int = 2
    """Votes by which the first answer must be ahead of the second, at least."""
    most: int = 5
    """Members asked in all, at most."""

    name: ClassVar[str] = "elastic"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        for option in ("start", "lead", "most"):
            in_range(option, getattr(self, option), least=1)

    def move(self, team: Team) -> Move:
        """The next members, or the answer."""
        fits = fit(team.state.goal, team.members)
        order = best(fits, min(self.most, len(fits)))
        asked = len(team.reports)
        ahead = self._ahead(team)
        # Each of those who are left could bring the second one nearer by a vote.
        if asked >= len(order) or (asked and ahead >= self.lead) or (asked and ahead > len(order) - asked):
            return self.best(team)
        more = order[asked : asked + (self.start if not asked else max(1, self.lead - ahead))]
        why = f"{ahead} votes ahead of {self.lead}" if asked else f"{len(more)} to begin with"
        decision = self.decision("team", ", ".join(more), {**fits}, why)
        return self.asks(more, team.state.goal, "answer", asked, (decision,))

    def best(self, team: Team) -> Concludes | GivesUp:
        """The vote so far."""
        found = vote(team.reports)
        if found is None:
            return GivesUp(why="no member answered")
        size = f"{len(team.reports)} of {len(team.members)} members asked"
        return Concludes(
            answer=found.answer, decisions=(self.decision("answer", found.answer, found.by_answer, size),)
        )

    def _ahead(self, team: Team) -> int:
        found = vote(team.reports)
        counts = sorted((int(n) for n in found.by_answer.values()), reverse=True) if found else []
        return counts[0] - (counts[1] if len(counts) > 1 else 0) if counts else 0
