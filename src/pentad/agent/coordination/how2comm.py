"""How2comm: members share only what they are sure of and others are not; old news counts less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.coordination.base import Assignment, Assigns, Concludes, GivesUp, Move, Report, Team
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import numbered, plain
from pentad.ranges import in_range

_UNSAID = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one member holds about one place."""

    value: str
    confidence: float
    """0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class How2Comm(Leaderless):
    """Has members say what they see at numbered places, and passes on the few items that tell others much.

    An item is sent to a member when its sender is sure (`sure` or more) and the member is not. Received
    items lose `fading` of their confidence for each round that they are old. The surest sighting of each
    place is the team's.

    Source: Yang et al. 2023, "How2comm: Communication-Efficient and Collaboration-Pragmatic Multi-Agent
    Perception", sections 3.2 and 3.3: mutual information gates what is sent, delay is compensated. Ours
    sends symbols, not feature maps, and gates by both sides' confidence.
    """

    rounds: int = 2
    """Rounds of looking, at most; between two of them items are passed on."""
    sure: float = 0.6
    """The confidence, 0 to 1, from which an item may be sent; below it one is wanted."""
    fading: float = 0.1
    """What an item loses of its confidence, 0 to 1, for each round that it is old."""

    name: ClassVar[str] = "how2comm"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("rounds", self.rounds, least=1)
        in_range("sure", self.sure, least=0, most=1)
        in_range("fading", self.fading, least=0, most=1)

    def move(self, team: Team) -> Move:
        """A look; then what is worth sending, and another look by those who got something."""
        if not team.rounds:
            task = (
                f"{team.state.goal}\n\nSay what you see at each numbered place and how sure you are, 0 to 1, "
                "a line each like `3: car 0.9`. Leave out what you cannot see."
            )
            return self.asks(team.members, task, "look")
        if len(team.rounds) >= self.rounds:
            return self.best(team)
        seen = self.seen(team)
        news = {m: self.news(seen, m) for m in team.members}
        if not any(news.values()):
            return self.best(team)
        given = tuple(
            Assignment(member=m, task=_again(team, items), purpose="look", about=len(team.rounds))
            for m, items in news.items()
            if items
        )
        counts = {m: float(len(items)) for m, items in news.items()}
        whole = sum(len(items) for items in seen.values()) * (len(seen) - 1)
        decision = self.decision("items", f"{sum(map(len, news.values()))} of {whole}", {**counts})
        return Assigns(assignments=given, decisions=(decision,))

    def seen(self, team: Team) -> dict[str, dict[int, Sighting]]:
        """What each member holds now, its older sightings faded."""
        held: dict[str, dict[int, Sighting]] = {member: {} for member in team.members}
        for age, reports in zip(range(len(team.rounds) - 1, -1, -1), team.rounds, strict=True):
            for report in reports:
                for place, sighting in sightings(report).items():
                    faded = sighting.confidence * (1 - self.fading) ** age
                    known = held[report.member].get(place)
                    if known is None or faded >= known.confidence:
                        held[report.member][place] = Sighting(value=sighting.value, confidence=faded)
        return held

    def news(self, seen: Mapping[str, Mapping[int, Sighting]], member: str) -> dict[int, Sighting]:
        """The items that are worth sending to a member: others are sure of them, and it is not."""
        wanted: dict[int, Sighting] = {}
        for sender, items in seen.items():
            for place, item in items.items():
                own = seen[member].get(place)
                lacks = own is None or own.confidence < self.sure
                better = place not in wanted or item.confidence > wanted[place].confidence
                if sender != member and item.confidence >= self.sure and lacks and better:
                    wanted[place] = item
        return wanted

    def best(self, team: Team) -> Concludes | GivesUp:
        """The surest sighting of each place."""
        fused = fuse(self.seen(team))
        if not fused:
            said = [report.text for report in team.reports if report.ok]
            return Concludes(answer=said[-1]) if said else GivesUp(why="nobody saw anything")
        sure = {str(place): item.confidence for place, item in sorted(fused.items())}
        lines = [f"{place}: {item.value}" for place, item in sorted(fused.items())]
        return Concludes(answer="\n".join(lines), decisions=(self.decision("places", "answer", {**sure}),))


def sightings(report: Report) -> dict[int, Sighting]:
    """What a member says that it sees, by place: lines `3: car 0.9`; without a number it is half sure."""
    found = {}
    for place, said in (numbered(report.text) if report.ok else {}).items():
        value, _, last = said.rpartition(" ")
        try:
            confidence = min(1.0, max(0.0, float(last)))
        except ValueError:
            value, confidence = said, _UNSAID
        if value.strip():
            found[place] = Sighting(value=plain(value), confidence=confidence)
    return found


def fuse(seen: Mapping[str, Mapping[int, Sighting]]) -> dict[int, Sighting]:
    """The surest sighting of each place; of equals that of the member named first."""
    fused: dict[int, Sighting] = {}
    for items in seen.values():
        for place, item in items.items():
            if place not in fused or item.confidence > fused[place].confidence:
                fused[place] = item
    return fused


def _again(team: Team, items: Mapping[int, Sighting]) -> str:
    told = "\n".join(f"{place}: {item.value} {item.confidence:.2f}" for place, item in sorted(items.items()))
    return (
        f"{team.state.goal}\n\nOthers are sure of this:\n{told}\n\nSay anew what is at these places and "
        "how sure you are, a line each like `3: car 0.9`."
    )
