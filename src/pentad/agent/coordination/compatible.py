"""Compatible: members are chained where what one gives is what the next takes, by how they did on trial."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as option
from typing import ClassVar

from pentad.agent.coordination.base import Concludes, GivesUp, Move, Team
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.coordination.reading import normal
from pentad.agent.spec import AgentSpec
from pentad.model.relevance import shared_words
from pentad.ranges import in_range

_CARD = re.compile(r"\b(takes|gives)\s*:\s*([^;.\n]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What an agent takes and gives, in the words of the ontology; empty where its card does not say."""

    takes: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatible(Leaderless):
    """Chains members whose cards fit together, the best of them on a trial task, and runs the goal through.

    A card is in the description: `takes: text; gives: json, table`. Two members fit when all that the
    second takes is what the first gives, by the words of `same`; without a fitting pair no task is given
    out at all. With a `trial` each member does it first, and the chain with the best scores is taken.

    Source: survey VII-D1, agent compatibility and universal communication: cards, ontology, trial runs.
    """

    team: int = 2
    """Members of the chain."""
    same: Mapping[str, str] = option(default_factory=dict)
    """The ontology: words of cards that mean another, as `{report: text}`."""
    trial: str = ""
    """A task that members do before they are chosen; "" chooses by cards alone."""
    expects: str = ""
    """What a good answer to the trial says."""

    name: ClassVar[str] = "compatible"

    def __post_init__(self) -> None:
        Leaderless.__post_init__(self)
        in_range("team", self.team, least=1)

    def move(self, team: Team) -> Move:
        """The trial, then the goal through the chain, one member after the other."""
        chains = self.chains(team.members)
        if not chains:
            cards = "; ".join(f"{m}: {spec.description or 'no card'}" for m, spec in team.members.items())
            return GivesUp(
                why=f"no {self.team} members fit together by their cards ({cards}); change takes or gives"
            )
        tried = [r for r in team.reports if r.purpose == "trial"]
        if self.trial and not tried:
            able = dict.fromkeys(m for chain in chains for m in chain)
            return self.asks(able, self.trial, "trial")
        scores = self.scores(team)
        chain = max(chains, key=lambda c: sum(scores.get(m, 0.0) for m in c))
        done = [r for r in team.reports if r.purpose == "link"]
        if done and (not done[-1].ok or len(done) >= len(chain)):
            return self.best(team)
        task = team.state.goal + (f"\n\n{done[-1].member} came to:\n{done[-1].text}" if done else "")
        worth = {" > ".join(c): sum(scores.get(m, 0.0) for m in c) for c in chains}
        decision = self.decision("chain", " > ".join(chain), {**worth}, "trial" if self.trial else "cards")
        return self.asks([chain[len(done)]], task, "link", len(done), (decision,))

    def chains(self, members: Mapping[str, AgentSpec]) -> list[tuple[str, ...]]:
        """Every order of `team` members in which each takes what the one before gives."""
        cards = {name: self.card(spec) for name, spec in members.items()}
        size = min(self.team, len(members))
        return [
            chain
            for chain in itertools.islice(itertools.permutations(members, size), 10_000)
            if all(cards[b].takes <= cards[a].gives for a, b in itertools.pairwise(chain))
        ]

    def card(self, spec: AgentSpec) -> Card:
        """What the member's description says that it takes and gives, in the words of the ontology."""
        found: dict[str, frozenset[str]] = {}
        for key, listed in _CARD.findall(spec.description):
            said = (word.strip().casefold() for word in listed.split(","))
            found[key.casefold()] = frozenset(self.same.get(word, word) for word in said if word)
        return Card(**found)

    def scores(self, team: Team) -> dict[str, float]:
        """How each did on trial, 0 to 1: 1 for the answer as expected, else by the words that it shares."""
        return {
            r.member: 1.0
            if normal(r.text) == normal(self.expects)
            else shared_words(self.expects, [r.text])[0] * 0.9
            for r in team.reports
            if r.purpose == "trial" and r.ok
        }

    def best(self, team: Team) -> Concludes | GivesUp:
        """What the last link came to."""
        done = [r for r in team.reports if r.purpose == "link"]
        if not done or not done[-1].ok:
            return GivesUp(why=f"the chain broke: {done[-1].text}" if done else "no member answered")
        return Concludes(answer=done[-1].text, decisions=(self.decision("answer", done[-1].member),))
