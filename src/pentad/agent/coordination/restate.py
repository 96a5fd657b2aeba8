"""Restate: members say what they understood before they act; who means something else is set right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import field as option
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Report, Team
from pentad.agent.coordination.board import WORK, Board, allot, board, pieces_of, worded
from pentad.agent.coordination.cards import fit
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.team.glossary import Contract, Drift
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Restate(Leaderless):
    """Gives pieces to members who fit, but only after they restated the goal and the terms as meant.

    A member whose restatement drifts is told what was meant, and restates again; after `tries` it gets no
    work. The drift stands in the record.

    Source: survey III-A, semantic understanding and consistency across agents. Ours compares words, numbers
    and negation, so that a move follows from the journal alone; `Contract.drifts` takes an encoder too.
    """

    terms: Mapping[str, str] = option(default_factory=dict)
    """The glossary: what each term means in this team."""
    least: float = 0.2
    """The share of words, 0 to 1, below which a meaning counts as another."""
    tries: int = 2
    """Restatements of a member, at most."""

    name: ClassVar[str] = "restate"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("least", self.least, least=0, most=1)
        in_range("tries", self.tries, least=1)

    def move(self, team: Team) -> Move:
        """Restatements until all agree or are out of tries, then the pieces."""
        heard = {
            m: [r for r in team.reports if r.member == m and r.purpose == "restate"] for m in team.members
        }
        found = {m: self._drifts(team, said[-1]) for m, said in heard.items() if said}
        asking = [m for m, said in heard.items() if not said or (found[m] and len(said) < self.tries)]
        started = any(report.purpose == WORK for report in team.reports)
        if asking and not started:
            given = tuple(
                Assignment(member=m, task=self._ask(team, found.get(m, ())), purpose="restate")
                for m in asking
            )
            drifted = [self.decision("drift", m, constraint=_said(found[m])) for m in asking if found.get(m)]
            return Assigns(assignments=given, decisions=tuple(drifted))
        now = self._board(team)
        agreed = {m: spec for m, spec in team.members.items() if m not in now.down and not found.get(m)}
        fits = {p.number: fit(p.task, agreed) for p in now.open}
        scores = {m: {p.number: fits[p.number][m] for p in now.open if m not in p.tried} for m in agreed}
        given = allot(now.open, scores, 1)
        if not given:
            return self.best(team)
        left_out = {m: None for m in team.members if m not in agreed}
        decision = self.decision("agreed", ", ".join(agreed), left_out, "restated as meant")
        said = tuple(replace(each, task=worded(team.state.goal, each.task)) for each in given)
        return Assigns(assignments=said, decisions=(decision,))

    def best(self, team: Team) -> Concludes | GivesUp:
        """The board."""
        now = self._board(team)
        if not now.done:
            return GivesUp(why="no member restated the goal as it was meant, or none did its work")
        return Concludes(answer=now.answer(), decisions=(self.decision("board", "answer"),))

    def _board(self, team: Team) -> Board:
        return board(team, pieces_of(team.state.goal), 2)

    def _drifts(self, team: Team, report: Report) -> tuple[Drift, ...]:
        if not report.ok:
            return (Drift(about="goal", meant=team.state.goal, understood=report.text, score=0.0),)
        return Contract(goal=team.state.goal, terms=self.terms, least=self.least).drifts(report.text)

    def _ask(self, team: Team, drifts: tuple[Drift, ...]) -> str:
        wanted = "".join(f"\n{term}: ..." for term in self.terms)
        meanings = f" Then say what each of these means, a line each:{wanted}" if wanted else ""
        told = "".join(f"\n{d.about}: {d.meant}" for d in drifts)
        again = f"\n\nYou understood something else. What is meant:{told}" if drifts else ""
        asked = f"Do not do this yet. Say in one sentence what is asked:\n{team.state.goal}"
        return f"{asked}{again}\n\n{meanings}".strip()


def _said(drifts: tuple[Drift, ...]) -> str:
    return "; ".join(f"{d.about}: {d.understood!r:.60} is not {d.meant!r:.60}" for d in drifts)
