"""LLM-Co: members infer what the partner will do, list what is feasible, and the joint action is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

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
from pentad.agent.coordination.reading import field, plain
from pentad.ranges import in_range
from pentad.types import Decision

WAIT = "wait"
"""The action of a member for whom nothing feasible is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a member would do, as it says."""

    action: str
    feasible: tuple[str, ...]
    """Its own list, in the form in which actions compare, the best first; empty where it lists none."""
    expects: str
    """What it expects of its partner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmCo(Leaderless):
    """Plays rounds in which each member says what the others will do, what is feasible, and what it does.

    The joint action holds no action that its member did not list as feasible, and no action twice: where
    two want the same, it is theirs of whom a partner expected it, and the other takes its next feasible
    one. It is over when all wait or say `done`.

    Source: Agashe et al. 2023, "LLM-Coordination", section 3: state description, partner's intention,
    feasible actions, choice. Ours resolves conflicts by the partners' expectations.
    """

    rounds: int = 6
    """Joint actions, at most."""

    name: ClassVar[str] = "llm-co"
    needs: ClassVar[frozenset[str]] = frozenset({MEMBERS, PEERS})

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("rounds", self.rounds, least=1)

    def move(self, team: Team) -> Move:
        """The next round, until nobody acts or the rounds are over."""
        joint = [joint_action(intents(reports)) for reports in team.rounds]
        over = joint and all(action in (WAIT, "done") for action in joint[-1].values())
        if over or len(joint) >= self.rounds:
            return self.best(team)
        given = tuple(
            Assignment(member=m, task=_turn(team, m, joint), purpose="intend", about=len(joint))
            for m in team.members
        )
        return Assigns(assignments=given, decisions=self._chosen(team))

    def best(self, team: Team) -> Concludes | GivesUp:
        """The joint actions so far, a line for each round."""
        joint = [joint_action(intents(reports)) for reports in team.rounds]
        lines = [
            _said(actions) for actions in joint if any(a not in (WAIT, "done") for a in actions.values())
        ]
        if not lines:
            return GivesUp(why="nobody did anything")
        return Concludes(answer="\n".join(lines), decisions=self._chosen(team))

    def _chosen(self, team: Team) -> tuple[Decision, ...]:
        if not team.rounds:
            return ()
        wanted = intents(team.rounds[-1])
        given = joint_action(wanted)
        changed = [m for m in given if given[m] != plain(wanted[m].action)]
        why = f"{', '.join(changed)} gave way or named nothing feasible" if changed else None
        options = {f"{m}: {plain(each.action)}": None for m, each in wanted.items()}
        return (self.decision("joint action", _said(given), {**options}, why),)


def intents(reports: tuple[Report, ...]) -> dict[str, Intent]:
    """What each member of a round would do."""
    return {
        report.member: Intent(
            action=(field(report.text, "action") or report.text) if report.ok else WAIT,
            feasible=tuple(plain(a) for a in field(report.text, "feasible").split(",") if a.strip()),
            expects=plain(field(report.text, "partner")),
        )
        for report in reports
    }


def joint_action(wanted: Mapping[str, Intent]) -> dict[str, str]:
    """One action for each member: feasible as it says, and none that two cannot both do."""
    given: dict[str, str] = {}

    def expected(member: str) -> bool:
        """Whether somebody else counts on the action that the member wants."""
        return any(
            plain(wanted[member].action) in each.expects
            for m, each in wanted.items()
            if m != member and each.expects
        )

    for member in sorted(wanted, key=lambda m: not expected(m)):
        own = wanted[member]
        action = plain(own.action)
        options = own.feasible if own.feasible and action not in own.feasible else (action, *own.feasible)
        free = [o for o in options if o in (WAIT, "done") or o not in given.values()]
        given[member] = free[0] if free else WAIT
    return {member: given[member] for member in wanted}


def _said(actions: Mapping[str, str]) -> str:
    return ", ".join(f"{member}: {action}" for member, action in actions.items())


def _turn(team: Team, member: str, joint: list[dict[str, str]]) -> str:
    so_far = "\n".join(_said(actions) for actions in joint) or "nothing yet"
    partners = ", ".join(m for m in team.members if m != member)
    return (
        f"{team.state.goal}\n\nYou are {member}; your partners: {partners}. Done so far, round by round:\n"
        f"{so_far}\n\nAnswer with three lines: `partner: ` what your partner does next, `feasible: ` what "
        "you can do now, parted by commas, the best first, and `action: ` the one you do. Where nothing is "
        "left, `action: done`."
    )
