"""DyLAN: layers of members who rate each other; weak ones are dropped, and importance picks a team."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Report, Team
from pentad.agent.coordination.cards import best
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import field, normal, share, without
from pentad.agent.coordination.votes import told, vote
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Dylan(Leaderless):
    """Has members answer in layers and rate the answers before; keeps the best rated, stops on consensus.

    At the end each member's importance is propagated back through the ratings; the record names the
    `team` most important, to be the members of later runs of the kind.

    Source: Liu et al. 2023, "A Dynamic LLM-Powered Agent Network" (DyLAN), sections 3.2 and 3.3: ranker
    from the second layer on, early stop above two thirds, importance by back-propagated ratings. Ours
    ranks by the mean rating in place of another model's list, which costs no call.
    """

    layers: int = 3
    """Layers of answers, at most."""
    keep: int = 2
    """Members kept after the second layer, by the ratings of their peers."""
    team: int = 3
    """Members that the record names as the team for tasks of this kind."""

    name: ClassVar[str] = "dylan"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        for option in ("layers", "keep", "team"):
            in_range(option, getattr(self, option), least=1)

    def move(self, team: Team) -> Move:
        """The next layer, until more than two thirds agree or the layers are over."""
        if not team.rounds:
            return self.asks(team.members, team.state.goal, "layer")
        last = _answers(team.rounds[-1], team)
        found = vote(last)
        if found is None or found.share > 2 / 3 or len(team.rounds) >= self.layers:
            return self.best(team)
        speaking = [r.member for r in last if r.ok]
        decisions = []
        if len(team.rounds) > 1:
            rated = ratings(team.rounds[-1], speaking)
            mean = {m: sum(row.get(m, 0.0) for row in rated.values()) / len(rated) for m in speaking}
            speaking = list(best(mean, self.keep))
            decisions.append(self.decision("layer", ", ".join(speaking), {**mean}, "mean rating"))
        asked = tuple(
            Assignment(member=m, task=_layer(team, last, m), purpose="layer", about=len(team.rounds))
            for m in speaking
        )
        return Assigns(assignments=asked, decisions=tuple(decisions))

    def best(self, team: Team) -> Concludes | GivesUp:
        """The vote of the last layer, with the importance of each member."""
        last = _answers(team.rounds[-1], team) if team.rounds else ()
        found = vote(last)
        if found is None:
            return GivesUp(why="no member answered")
        worth = importance(team)
        chosen = ", ".join(best(worth, self.team))
        return Concludes(
            answer=found.answer,
            decisions=(
                self.decision("answer", found.answer, found.by_answer, f"{found.share:.0%} of the votes"),
                self.decision("team", chosen, {**worth}, "importance"),
            ),
        )


def ratings(layer: Sequence[Report], of: Sequence[str]) -> dict[str, dict[str, float]]:
    """How each member of a layer rated the answers before, 0 to 1, where it said so: `NAME: 0.7`."""
    return {
        report.member: {name: share(said, 0.0) for name in of if (said := field(report.text, name))}
        for report in layer
        if report.ok
    }


def importance(team: Team) -> dict[str, float]:
    """Each member's share, summing to 1, in the answer of the last layer.

    Those who gave the winning answer share 1 in the last layer; a layer before gets what the ratings of
    the one after it hand back, each in proportion, and equally where a member rated nobody.
    """
    names = list(team.members)
    total = dict.fromkeys(names, 0.0)
    found = vote(_answers(team.rounds[-1], team))
    last = [r for r in _answers(team.rounds[-1], team) if r.ok]
    winners = [r.member for r in last if found and normal(r.text) == normal(found.answer)]
    here = {m: 1.0 / len(winners) for m in winners}
    for number in range(len(team.rounds) - 1, -1, -1):
        for member, worth in here.items():
            total[member] += worth
        if number == 0:
            break
        before = [r.member for r in team.rounds[number - 1] if r.ok]
        rated = ratings(team.rounds[number], before)
        handed = dict.fromkeys(before, 0.0)
        for member, worth in here.items():
            row = {n: s for n, s in rated.get(member, {}).items() if s > 0} or dict.fromkeys(before, 1.0)
            for name, score in row.items():
                handed[name] += worth * score / sum(row.values())
        here = handed
    whole = sum(total.values()) or 1.0
    return {name: worth / whole for name, worth in total.items()}


def _answers(layer: Sequence[Report], team: Team) -> tuple[Report, ...]:
    """The layer's answers without the ratings in them."""
    return tuple(
        Report(member=r.member, task=r.task, ok=r.ok, text=without(r.text, list(team.members))) for r in layer
    )


def _layer(team: Team, last: Sequence[Report], member: str) -> str:
    return (
        f"{team.state.goal}\n\n{told(last)}\n\nRate each of these answers, a line each, like "
        f"`{member}: 0.7`. Then give your own answer, ending with: answer: ..."
    )
