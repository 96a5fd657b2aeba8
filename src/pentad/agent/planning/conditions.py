"""Post-conditions of sub-goals: what their results must show, checked without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.agent.exchange import Exchange
from pentad.agent.planning.progress import Unmet, short
from pentad.agent.tools.base import Tool

SHOWS = "shows"
"""The field of a task that says what its result must contain; empty where anything will do."""
TOLD = (
    "In `shows` give a word or number that the result must contain if the task is done, or an empty text "
    "if you cannot know it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the results of sub-goals must contain."""

    shows: Sequence[str]
    """By the place of the sub-goal; upper and lower case are the same."""
    repeatable: Mapping[str, bool]
    """By tool: whether it may be called again after a result that does not fit."""

    def __call__(self, place: int, exchange: Exchange) -> Unmet | None:
        wanted = self.shows[place].strip() if place < len(self.shows) else ""
        said = " ".join(result.content for _, result in sorted(exchange.results.items()))
        if not wanted or wanted.casefold() in said.casefold():
            return None
        again = all(self.repeatable.get(call.name, False) for call in exchange.calls)
        return Unmet(problem=short(f"the result does not show {wanted!r}: {said}"), final=not again)


def conditions(shows: Sequence[str], tools: Sequence[Tool]) -> Conditions:
    """The check of sub-goals that must show this; what may have an effect is not called twice for it."""
    return Conditions(shows=tuple(shows), repeatable={t.name: t.effects == "none" for t in tools})


def with_shows(item: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a task with the field `shows` beside its others."""
    properties = {**item["properties"], SHOWS: {"type": "string", "maxLength": 80}}
    return {**item, "properties": properties, "required": [*item["required"], SHOWS]}
