"""Board: the pieces of work of a run, what became of each, and who is at hand; folded from the reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pentad.agent.coordination.base import Assignment, Report, Team

_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+(.+)")
WORK = "work"
"""The purpose of assignments that carry out a piece of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One piece of work."""

    number: int
    """From 0, in the order of the goal."""
    task: str
    result: str | None = None
    """None until somebody has done it."""
    tried: tuple[str, ...] = ()
    """Who failed at it or passed it on, in order."""
    by: str = ""
    """Who did it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """All pieces, and what is known of the members' state."""

    pieces: tuple[Piece, ...]
    down: frozenset[str] = frozenset()
    """Members whose last `patience` tasks all failed: nobody waits for them any more."""
    load: Mapping[str, int] = field(default_factory=dict)
    """Tokens that each member has used so far."""

    @property
    def open(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if piece.result is None)

    @property
    def done(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if piece.result is not None)

    def answer(self) -> str:
        """What the team has come to: each piece with its result, or that there is none."""
        if len(self.pieces) == 1:
            return self.pieces[0].result or ""
        return "\n".join(
            f"{piece.task}: {'not done' if piece.result is None else piece.result}" for piece in self.pieces
        )


def pieces_of(goal: str) -> tuple[str, ...]:
    """The pieces that a goal lists, an item of a list each; the goal itself where it lists none."""
    items = [match[1].strip() for line in goal.splitlines() if (match := _ITEM.fullmatch(line))]
    return tuple(items) if items else (goal,)


def worded(goal: str, task: str) -> str:
    """A piece as a member reads it: after what the goal says before its list."""
    lines = goal.splitlines()
    first = next((place for place, line in enumerate(lines) if _ITEM.fullmatch(line)), 0)
    return "\n".join([*lines[:first], task]).strip()


def board(
    team: Team, tasks: Sequence[str], patience: int, passed: Callable[[Report], bool] = lambda _: False
) -> Board:
    """The board after all that came back.

    Args:
        tasks: the pieces by their number; reports of purpose `work` are about them.
        patience: failures in a row after which a member counts as down, at least 1.
        passed: whether an answer leaves the piece to somebody else.
    """
    pieces = [Piece(number=number, task=task) for number, task in enumerate(tasks)]
    row: dict[str, int] = {}
    load: dict[str, int] = dict.fromkeys(team.members, 0)
    for report in team.reports:
        row[report.member] = 0 if report.ok else row.get(report.member, 0) + 1
        load[report.member] = load.get(report.member, 0) + report.tokens
        if report.purpose == WORK and report.about < len(pieces):
            pieces[report.about] = _after(pieces[report.about], report, report.ok and not passed(report))
    down = frozenset(member for member, failures in row.items() if failures >= patience)
    return Board(pieces=tuple(pieces), down=down, load=load)


def _after(piece: Piece, report: Report, did: bool) -> Piece:
    if piece.result is not None:
        return piece
    if did:
        return replace(piece, result=report.text, by=report.member)
    return replace(piece, tried=(*piece.tried, report.member))


def allot(
    pieces: Iterable[Piece], scores: Mapping[str, Mapping[int, float]], per_member: int
) -> tuple[Assignment, ...]:
    """Who does what next: the best scores first, each member up to `per_member` pieces, each piece once.

    Args:
        scores: by member, for each piece that it may do; higher is sooner. Of equals the first counts.

    Returns: assignments in the order of the pieces.
    """
    wanted = {piece.number: piece for piece in pieces}
    order = {member: place for place, member in enumerate(scores)}
    offers = sorted(
        ((-score, number, order[m], m) for m, row in scores.items() for number, score in row.items()),
    )
    given: dict[int, str] = {}
    taken: dict[str, int] = dict.fromkeys(scores, 0)
    for _, number, _, member in offers:
        if number in wanted and number not in given and taken[member] < per_member:
            given[number] = member
            taken[member] += 1
    return tuple(
        Assignment(member=given[number], task=wanted[number].task, purpose=WORK, about=number)
        for number in sorted(given)
    )
