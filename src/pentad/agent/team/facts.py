"""Facts: what agents of a team know together, each with who said it, how sure, and who may read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pentad.agent.codec import Malformed, decode, encode
from pentad.agent.team.replica import State
from pentad.model.relevance import shared_words
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that one agent knows, with its provenance."""

    subject: str
    """What it is about, as agents look it up."""
    value: str
    source: str
    """The agent that said it."""
    evidence: str = ""
    """Where it has it from: a run and a step, a document, a tool."""
    confidence: float = 1.0
    """0 to 1, as its source says."""
    readers: tuple[str, ...] | None = None
    """Agents that may read it beside its source; None lets all."""

    def __post_init__(self) -> None:
        in_range("confidence", self.confidence, least=0, most=1)

    def visible_to(self, agent: str) -> bool:
        """Whether the agent may read it."""
        return self.readers is None or agent == self.source or agent in self.readers


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackboard:
    """The facts of a team over a replicated state, so that each agent may keep a copy of its own.

    Agents overwrite only what they said themselves: each source has its own place for a subject, so what
    two say about one subject stands side by side, and `resolved` says which holds and why. Each source says
    its facts in its own copy, under its own name.
    """

    state: State = field(default_factory=State)

    def say(self, fact: Fact) -> Blackboard:
        """With the fact, in place of what its source said of the subject before."""
        return Blackboard(state=self.state.put(fact.source, f"{fact.subject}\n{fact.source}", encode(fact)))

    def take_back(self, source: str, subject: str) -> Blackboard:
        """Without what the source said of the subject."""
        return Blackboard(state=self.state.drop(f"{subject}\n{source}"))

    def merge(self, other: Blackboard) -> Blackboard:
        """What both hold together."""
        return Blackboard(state=self.state.merge(other.state))

    def facts(self, agent: str) -> tuple[Fact, ...]:
        """All that the agent may read, by source; what is malformed is none."""
        found = (fact for entry in self.state.entries if (fact := _fact(entry.value)))
        return tuple(fact for fact in found if fact.visible_to(agent))

    def by_subject(self, agent: str) -> Mapping[str, tuple[Fact, ...]]:
        """What the agent may read of each subject: the surest first, of equals by the source's name."""
        found: dict[str, list[Fact]] = {}
        for fact in self.facts(agent):
            found.setdefault(fact.subject, []).append(fact)
        return {
            subject: tuple(sorted(said, key=lambda fact: (-fact.confidence, fact.source, fact.value)))
            for subject, said in found.items()
        }

    def resolved(self, agent: str) -> Mapping[str, Fact]:
        """For each subject the fact that holds: the value that has most confidence behind it in sum."""
        held: dict[str, Fact] = {}
        for subject, said in self.by_subject(agent).items():
            behind: dict[str, float] = {}
            for fact in said:
                behind[fact.value] = behind.get(fact.value, 0.0) + fact.confidence
            held[subject] = max(said, key=lambda fact: (behind[fact.value], fact.confidence))
        return held

    def conflicts(self, agent: str) -> Mapping[str, tuple[Fact, ...]]:
        """The subjects of which sources say different things, with all that they say."""
        found = self.by_subject(agent)
        return {subject: said for subject, said in found.items() if len({f.value for f in said}) > 1}

    def recall(self, agent: str, question: str, k: int) -> tuple[Fact, ...]:
        """The facts that hold and are nearest to a question by shared words, best first, at most `k`."""
        held = list(self.resolved(agent).values())
        scores = shared_words(question, [f"{fact.subject} {fact.value}" for fact in held]) if held else []
        order = sorted(range(len(held)), key=lambda place: -scores[place])
        return tuple(held[place] for place in order[:k] if scores[place] > 0)


def _fact(value: Any) -> Fact | None:
    try:
        return decode(Fact, value)
    except (Malformed, ValueError):
        return None
