"""Peer-verify: a second member checks or derives anew what the first came to, before it is the answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from pentad.agent.coordination.base import (
    MEMBERS,
    PEERS,
    Assignment,
    Assigns,
    Concludes,
    GivesUp,
    Move,
    Report,
    Team,
)
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.verdict import ASKED, Verdict, read_verdict, same_result
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerVerify(Leaderless):
    """Commits a member's result only once another member has verified it; a rejected one is done again.

    The first member named does the task, the others judge it, each try by the next of them. What nobody
    verified is not the answer: the run ends as refused, with the last result and the reason.

    Source: survey III-A, output verification between agents. Ours may have the judge derive the result
    anew, without seeing it, so that it cannot be talked into it.
    """

    mode: Literal["check", "derive"] = "check"
    """The judge reads the result and says whether it is right, or derives its own, to be compared."""
    tries: int = 2
    """Results that are judged, at most."""

    name: ClassVar[str] = "peer-verify"
    needs: ClassVar[frozenset[str]] = frozenset({MEMBERS, PEERS})

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("tries", self.tries, least=1)

    def move(self, team: Team) -> Move:
        """A result, its verdict, and so on, until one is approved or the tries are over."""
        author, *judges = team.members
        last = team.reports[-1] if team.reports else None
        if last is None:
            return self._asks(Assignment(member=author, task=team.state.goal, purpose="do"), team.members)
        done = [report for report in team.reports if report.purpose == "do"]
        if last.purpose == "do" and last.ok:
            judge = judges[(len(done) - 1) % len(judges)]
            task = team.state.goal if self.mode == "derive" else _check(team.state.goal, last.text)
            return self._asks(Assignment(member=judge, task=task, purpose="judge", about=len(done)), judges)
        verdict = self._verdict(done[-1], last)
        if verdict.judgement == "approved":
            decision = self.decision("verdict", "approved", constraint=f"by {last.member}")
            return Concludes(answer=done[-1].text, decisions=(decision,))
        if len(done) >= self.tries:
            return self.best(team)
        again = _again(team.state.goal, done[-1].text, verdict.reason)
        return self._asks(Assignment(member=author, task=again, purpose="do", about=len(done)), team.members)

    def best(self, team: Team) -> Concludes | GivesUp:
        """The newest result, which is not committed."""
        done = [report for report in team.reports if report.purpose == "do"]
        if not done:
            return GivesUp(why="no member answered")
        verdict = self._verdict(done[-1], team.reports[-1])
        why = f"the result was not verified in {len(done)} of {self.tries} tries ({verdict.judgement})"
        decision = self.decision("verdict", verdict.judgement, constraint=f"by {team.reports[-1].member}")
        return GivesUp(why=why, answer=done[-1].text if done[-1].ok else "", decisions=(decision,))

    def _verdict(self, result: Report, last: Report) -> Verdict:
        if last.purpose == "do":
            return Verdict(judgement="unclear", reason=last.text)
        return same_result(last, result) if self.mode == "derive" else read_verdict(last)

    def _asks(self, given: Assignment, among: Iterable[str]) -> Assigns:
        decision = self.decision(given.purpose, given.member, dict.fromkeys(among))
        return Assigns(assignments=(given,), decisions=(decision,))


def _check(goal: str, result: str) -> str:
    return (
        f"Somebody was asked:\n{goal}\n\nThe answer given:\n{result}\n\n"
        f"Work it out for yourself, then say whether that answer is right. {ASKED}"
    )


def _again(goal: str, result: str, reason: str) -> str:
    return (
        f"{goal}\n\nAn earlier answer was not accepted:\n{result}\n\nThe reason: {reason or 'none was given'}"
    )
