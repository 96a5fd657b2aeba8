"""Balance: each piece of work goes to a member who fits it and has had least to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.coordination.base import Assigns, Concludes, GivesUp, Move, Team
from pentad.agent.coordination.board import Board, allot, board, pieces_of, worded
from pentad.agent.coordination.cards import fit
from pentad.agent.coordination.leaderless import Leaderless
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance(Leaderless):
    """Gives the pieces that the goal lists to members who fit them, the least loaded first.

    Who has used more tokens than the members on average waits until the others have caught up, so that
    pieces of very different size leave nobody with most of the work.

    Source: survey III-A, task allocation; least work left, as in queueing. Ours knows what a piece cost
    once it is done, in tokens of the member's run, since nobody can say it before.
    """

    skill: float = 0.5
    """What a full match of card and piece is worth, at least 0, beside an average piece of load's 1."""
    per_member: int = 1
    """Pieces that a member has at a time, at most."""
    patience: int = 2
    """Failures in a row after which a member is not asked any more."""

    name: ClassVar[str] = "balance"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("skill", self.skill, least=0)
        in_range("per_member", self.per_member, least=1)
        in_range("patience", self.patience, least=1)

    def move(self, team: Team) -> Move:
        """The next pieces, until each is done or nobody is left for one."""
        now = self._board(team)
        scores = self.scores(team, now)
        given = allot(now.open, scores, self.per_member)
        if not given:
            return self.best(team)
        decisions = tuple(
            self.decision(
                "piece",
                each.member,
                {member: row.get(each.about) for member, row in scores.items()},
                f"load {now.load[each.member]} tokens",
            )
            for each in given
        )
        said = tuple(replace(each, task=worded(team.state.goal, each.task)) for each in given)
        return Assigns(assignments=said, decisions=decisions)

    def scores(self, team: Team, now: Board) -> dict[str, dict[int, float]]:
        """For each member who may have more the worth of giving it each piece; load counts against it."""
        alive = {name: spec for name, spec in team.members.items() if name not in now.down}
        if not alive:
            return {}
        mean = sum(now.load[name] for name in alive) / len(alive)
        piece = sum(now.load.values()) / len(now.done) if now.done else 1.0
        free = {n: s for n, s in alive.items() if now.load[n] <= mean}
        fits = {each.number: fit(each.task, free) for each in now.open}
        return {
            name: {
                each.number: self.skill * fits[each.number][name] - now.load[name] / max(piece, 1.0)
                for each in now.open
                if name not in each.tried
            }
            for name in free
        } or {}

    def best(self, team: Team) -> Concludes | GivesUp:
        """The board."""
        now = self._board(team)
        if not now.done:
            return GivesUp(why=f"none of {len(now.pieces)} pieces of work was done")
        load = {name: float(tokens) for name, tokens in now.load.items()}
        return Concludes(answer=now.answer(), decisions=(self.decision("load", "answer", load),))

    def _board(self, team: Team) -> Board:
        return board(team, pieces_of(team.state.goal), self.patience)
