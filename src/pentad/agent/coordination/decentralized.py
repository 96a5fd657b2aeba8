"""Decentralized: no lead; members bid for pieces of work on a shared board and hand them over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Report, Team
from pentad.agent.coordination.board import WORK, Board, allot, board, pieces_of, worded
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import field, numbered, share
from pentad.agent.team.message import Message
from pentad.ranges import in_range

_UNSAID = 0.5
"""The bid of a member who was asked and named no number for a piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decentralized(Leaderless):
    """Has members bid for the pieces that the goal lists; the best bid works, and may hand over to a peer.

    A member that failed is not asked again for that piece, and after `patience` failures in a row not at
    all: its pieces go to the next bids. No model leads, so none can be lost with the run.

    Source: survey III-A, decentralised structure; the contract net of Smith 1980 for bids. Ours keeps the
    board in the journal, so that it is the same after a restart.
    """

    per_member: int = 1
    """Pieces that a member has at a time, at most."""
    patience: int = 2
    """Failures in a row after which a member is not asked any more."""

    name: ClassVar[str] = "decentralized"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("per_member", self.per_member, least=1)
        in_range("patience", self.patience, least=1)

    def move(self, team: Team) -> Move:
        """Bids first, then work by bids until every piece is done or nobody is left for one."""
        tasks = pieces_of(team.state.goal)
        if not team.rounds:
            return self.asks(team.members, _call(tasks), "bid")
        now = self._board(team)
        bids = {member: self._bids(team, now, member) for member in team.members if member not in now.down}
        given = allot(now.open, bids, self.per_member)
        if not given:
            return self.best(team)
        decisions = tuple(
            self.decision(
                "piece", each.member, {m: row.get(each.about) for m, row in bids.items()}, each.task
            )
            for each in given
        )
        said = tuple(replace(each, task=_work(team, each)) for each in given)
        return Assigns(assignments=said, decisions=decisions)

    def best(self, team: Team) -> Concludes | GivesUp:
        """The board."""
        now = self._board(team)
        if not now.done:
            return GivesUp(why=f"none of {len(now.pieces)} pieces of work was done")
        left = f"{len(now.open)} of {len(now.pieces)} not done" if now.open else None
        who = {piece.task: None for piece in now.pieces}
        return Concludes(answer=now.answer(), decisions=(self.decision("board", "answer", who, left),))

    def _board(self, team: Team) -> Board:
        """The board, where a piece that was handed over is still open."""
        return board(team, pieces_of(team.state.goal), self.patience, lambda report: bool(_peer(report)))

    def _bids(self, team: Team, now: Board, member: str) -> dict[int, float]:
        """What the member offers for each open piece that it has not failed at; a peer's wish comes first."""
        wished = {report.about: _peer(report) for report in team.reports if report.purpose == WORK}
        offered = {each.body["task"]: each.body["confidence"] for each in proposals(team, member)}
        return {
            piece.number: 1.0 + offered.get(piece.number, _UNSAID)
            if wished.get(piece.number) == member
            else offered.get(piece.number, _UNSAID)
            for piece in now.open
            if member not in piece.tried
        }


def proposals(team: Team, member: str) -> tuple[Message, ...]:
    """The bids of one member, as typed messages: what cannot be read as one is none."""
    pieces = len(pieces_of(team.state.goal))
    return tuple(
        Message(
            kind="propose",
            id=f"bid.{number}",
            sender=report.member,
            receiver="*",
            body={"task": number, "confidence": share(said, _UNSAID)},
        )
        for report in team.reports
        if report.purpose == "bid" and report.ok and report.member == member
        for number, said in ((n - 1, s) for n, s in numbered(report.text).items())
        if 0 <= number < pieces
    )


def _peer(report: Report) -> str:
    return field(report.text, "hand over") if report.ok else ""


def _call(tasks: tuple[str, ...]) -> str:
    listed = "\n".join(f"{number + 1}: {task}" for number, task in enumerate(tasks))
    return (
        f"Pieces of work are on offer to the team:\n{listed}\n\nDo none of them now. For each, say how sure "
        "you are that you would do it well, as a line with its number and a share of 0 to 1, like `1: 0.7`."
    )


def _work(team: Team, given: Assignment) -> str:
    peers = ", ".join(member for member in team.members if member != given.member)
    task = worded(team.state.goal, given.task)
    if not peers:
        return task
    return (
        f"{task}\n\nIf a peer should do this in your place, answer with one line and nothing else: "
        f"`hand over: NAME`. Peers: {peers}."
    )
