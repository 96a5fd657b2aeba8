"""Cards: what members say that they are good for, and how well that fits a task."""

from __future__ import annotations

from collections.abc import Mapping

from pentad.agent.spec import AgentSpec
from pentad.model.relevance import shared_words


def fit(task: str, members: Mapping[str, AgentSpec]) -> dict[str, float]:
    """For each member the share, 0 to 1, of the task's words that its name and description have.

    By words and not by vectors, for a coordinator's move follows from the journal alone.
    """
    cards = [f"{name} {spec.description}" for name, spec in members.items()]
    return dict(zip(members, shared_words(task, cards), strict=True))


def best(scores: Mapping[str, float], count: int) -> tuple[str, ...]:
    """The names with the highest scores, best first; of equals the first named."""
    return tuple(sorted(scores, key=lambda name: -scores[name])[:count])
