"""Debate: members answer, read each other, revise; the vote of the last round decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Team
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.votes import told, vote
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Debate(Leaderless):
    """Has all members answer and revise what they said after reading the others; the vote decides.

    It stops early once `enough` of them agree, since further rounds could only repeat it.

    Source: Du et al. 2023, "Improving Factuality and Reasoning in Language Models through Multiagent
    Debate", section 2; Smit et al. 2023, "Should we be going MAD?", section 4, for the agreement that the
    prompt asks for. Ours has the members that the agent file names, who may differ in model and tools.
    """

    rounds: int = 2
    """Rounds in all, the first answers among them; 1 is a plain vote."""
    agreement: float = 0.9
    """How readily members should agree with the others, 0 to 1, as their prompt says."""
    enough: float = 1.0
    """The share of votes, 0 to 1, at which no further round is held."""

    name: ClassVar[str] = "debate"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("rounds", self.rounds, least=1)
        in_range("agreement", self.agreement, least=0, most=1)
        in_range("enough", self.enough, above=0, most=1)

    def move(self, team: Team) -> Move:
        """The next round, until members agree or the rounds are over."""
        if not team.rounds:
            return self.asks(team.members, team.state.goal, "answer")
        last = team.rounds[-1]
        found = vote(last)
        if found is None or found.share >= self.enough or len(team.rounds) >= self.rounds:
            return self.best(team)
        speaking = [report.member for report in last if report.ok]
        revisions = tuple(
            Assignment(member=m, task=self._revision(team, m), purpose="revise", about=len(team.rounds))
            for m in speaking
        )
        why = f"{found.share:.0%} agree, {self.enough:.0%} would be enough"
        decision = self.decision("round", f"{len(team.rounds) + 1}", found.by_answer, why)
        return Assigns(assignments=revisions, decisions=(decision,))

    def best(self, team: Team) -> Concludes | GivesUp:
        """The vote of the last round."""
        found = vote(team.rounds[-1]) if team.rounds else None
        if found is None:
            return GivesUp(why="no member answered")
        decision = self.decision("answer", found.answer, found.by_answer, f"{found.share:.0%} of the votes")
        return Concludes(answer=found.answer, decisions=(decision,))

    def _revision(self, team: Team, member: str) -> str:
        last = team.rounds[-1]
        own = next(report.text for report in last if report.member == member)
        return (
            f"{team.state.goal}\n\nYou answered:\n{own}\n\n{told(last, but=member)}\n\n"
            f"You should agree with the others {self.agreement:.0%} of the time. "
            "Weigh their answers against yours, then give your answer anew, ending with: answer: ..."
        )
