"""CoELA: members act in rounds and say something to each other only where it is worth more than it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Report, Team
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import field, plain
from pentad.model.relevance import words
from pentad.ranges import in_range

_OVER = ("done", "nothing", "none", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coela(Leaderless):
    """Has members act at once, round by round, each with its memory and what reached it of the others.

    A member answers with `act:` and, if it likes, `tell:`. What it tells reaches the others when the share
    of its words that they have not read yet is worth more than `message_cost`; else it is not sent. It is
    over when nobody acts any more.

    Source: Zhang et al. 2023, "Building Cooperative Embodied Agents Modularly with LLMs" (CoELA), section
    4: perception, memory, communication, planning, execution. Ours puts the decision to send into a rule,
    so that it costs no call and can be tested; perception and execution are the member's tools.
    """

    rounds: int = 6
    """Rounds of actions, at most."""
    message_cost: float = 0.3
    """What a message must be worth, 0 to 1, to be sent; 0 sends all."""
    memory: int = 8
    """Own actions and messages that a member is shown, at most, the newest."""

    name: ClassVar[str] = "coela"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("rounds", self.rounds, least=1)
        in_range("message_cost", self.message_cost, least=0, most=1)
        in_range("memory", self.memory, least=1)

    def move(self, team: Team) -> Move:
        """The next round, until nobody acts or the rounds are over."""
        over = team.rounds and all(plain(action(r)) in _OVER for r in team.rounds[-1])
        if over or len(team.rounds) >= self.rounds:
            return self.best(team)
        seen, values = self.memories(team)
        given = tuple(
            Assignment(member=m, task=self._turn(team, seen[m]), purpose="act", about=len(team.rounds))
            for m in team.members
        )
        decisions = [
            self.decision("message", "send" if self._sends(worth) else "keep", {f"{m}'s worth": worth})
            for m, worth in (values[-1] if values else {}).items()
        ]
        return Assigns(assignments=given, decisions=tuple(decisions))

    def memories(self, team: Team) -> tuple[dict[str, list[str]], list[dict[str, float]]]:
        """What each member remembers, and for each round what each message was worth."""
        seen: dict[str, list[str]] = {member: [] for member in team.members}
        values = []
        for reports in team.rounds:
            worth = {}
            known = {
                m: {w for line in [team.state.goal, *lines] for w in words(line)} for m, lines in seen.items()
            }
            for report in reports:
                said = field(report.text, "tell") if report.ok else ""
                others = [m for m in team.members if m != report.member]
                if said and plain(said) not in _OVER and others:
                    worth[report.member] = max(_new(said, known[m]) for m in others)
            for report in reports:
                seen[report.member].append(f"you did: {action(report)}")
                if self._sends(worth.get(report.member)):
                    for member in team.members:
                        if member != report.member:
                            seen[member].append(f"{report.member} said: {field(report.text, 'tell')}")
            values.append(worth)
        return seen, values

    def _sends(self, worth: float | None) -> bool:
        """Whether a message of that worth reaches the others; None for a member that has none."""
        return worth is not None and (worth > self.message_cost or self.message_cost == 0)

    def best(self, team: Team) -> Concludes | GivesUp:
        """What was done, round by round."""
        done = [
            f"{report.member}: {action(report)}"
            for report in team.reports
            if report.ok and plain(action(report)) not in _OVER
        ]
        if not done:
            return GivesUp(why="nobody did anything")
        told = sum(self._sends(worth) for row in self.memories(team)[1] for worth in row.values())
        sent = self.decision("messages", f"{told} sent", constraint=f"worth above {self.message_cost:g}")
        return Concludes(answer="\n".join(done), decisions=(sent,))

    def _turn(self, team: Team, seen: list[str]) -> str:
        shown = "\n".join(seen[-self.memory :]) or "nothing yet"
        return (
            f"{team.state.goal}\n\nWhat you remember:\n{shown}\n\nDo one thing now and say it as "
            "`act: ...`, or `act: done` where nothing is left for you. If the others must know something, "
            "add `tell: ...`."
        )


def action(report: Report) -> str:
    """What a member did in a turn: its `act:` line, or all of its answer where it has none."""
    return (field(report.text, "act") or report.text.strip()) if report.ok else ""


def _new(said: str, known: set[str]) -> float:
    """The share of a message's words, 0 to 1, that its receiver has not read."""
    told = words(said)
    return sum(word not in known for word in told) / len(told) if told else 0.0
