"""MASC: members who are sure of a task teach those who are not, and keep their own expertise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import Concludes, GivesUp, Move, Report, Team
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import field, share, without
from pentad.agent.coordination.votes import told, vote
from pentad.ranges import in_range

_ENDING = "End with two lines: `answer: ...`, and `confidence: ` how sure you are, 0 to 1."


@dataclass(frozen=True, slots=True, kw_only=True)
class Masc(Leaderless):
    """Has all answer with their confidence; the experts teach, the others answer anew; weights vote.

    Whoever is an expert in this task is never taught, so that what it knows stays as it was; a lesson goes
    to those below `expert` only. The vote weighs each answer by the confidence of who gave it.

    Source: survey III-A, socialized learning: collective collaboration, reciprocal altruism, protected
    expertise. Ours teaches in the prompt, not in weights, so that nothing can be unlearnt.
    """

    expert: float = 0.7
    """The confidence, 0 to 1, from which a member is an expert in the task."""
    teachers: int = 2
    """Experts who teach, at most, the surest first."""

    name: ClassVar[str] = "masc"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("expert", self.expert, least=0, most=1)
        in_range("teachers", self.teachers, least=1)

    def move(self, team: Team) -> Move:
        """Answers, lessons, answers of who was taught."""
        if not team.rounds:
            return self.asks(team.members, f"{team.state.goal}\n\n{_ENDING}", "answer")
        first, last = team.rounds[0], team.rounds[-1]
        sure = {r.member: confidence(r) for r in first if r.ok}
        experts = sorted((m for m in sure if sure[m] >= self.expert), key=lambda m: -sure[m])[: self.teachers]
        pupils = [m for m in sure if sure[m] < self.expert]
        if last[0].purpose == "answer" and experts and pupils:
            task = (
                f"{team.state.goal}\n\nOthers are not sure of this. Teach them how to go about it, in brief."
            )
            decision = self.decision("teachers", ", ".join(experts), {**sure}, f"expert from {self.expert:g}")
            return self.asks(experts, task, "teach", decisions=(decision,))
        if last[0].purpose == "teach" and any(r.ok for r in last):
            return self.asks(pupils, f"{team.state.goal}\n\n{told(last)}\n\n{_ENDING}", "learn")
        return self.best(team)

    def best(self, team: Team) -> Concludes | GivesUp:
        """The vote, by confidence, of each member's newest answer."""
        newest: dict[str, Report] = {}
        for report in team.reports:
            if report.purpose in ("answer", "learn") and report.ok:
                newest[report.member] = report
        weights = {m: max(confidence(r), 0.01) for m, r in newest.items()}
        found = vote(_plain(list(newest.values())), weights)
        if found is None:
            return GivesUp(why="no member answered")
        decision = self.decision("answer", found.answer, found.by_answer, "confidence of each side")
        return Concludes(answer=found.answer, decisions=(decision,))


def confidence(report: Report) -> float:
    """How sure a member says that it is, 0 to 1; half where it does not."""
    return share(field(report.text, "confidence"), 0.5)


def _plain(reports: Sequence[Report]) -> list[Report]:
    return [
        Report(member=r.member, task=r.task, text=without(r.text, ["confidence"]), ok=r.ok) for r in reports
    ]
