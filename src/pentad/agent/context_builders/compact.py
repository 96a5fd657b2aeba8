"""Compact: as much of the conversation as fits; the rest is trimmed or summarised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.context_builders.base import ContextInput, OldestOut, room
from pentad.agent.memory.window import Overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Compact(OldestOut):
    """Leaves out the fewest oldest turns, and puts a summary in their place where the agent says so.

    Exactness: lossy; every prompt out of which something was left is recorded. Cost: a model call per
    summary (`memory.window.overflow: summarise`). Once a conversation is full each further turn
    pushes one out, so that the prompt's beginning, which a prefix cache could keep, changes each time.
    """

    overflows: ClassVar[frozenset[Overflow]] = frozenset({"trim", "summarise", "refuse"})
    name = "compact"

    def goal(self, given: ContextInput) -> tuple[int, int | None]:
        """All that there is room for."""
        return room(given), given.window.max_turns
