"""Tiered: recent turns whole, older ones shortened, the oldest summed up; each can be brought back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.context_builders.base import ContextInput, OldestOut, transcript
from pentad.agent.memory.window import Overflow
from pentad.agent.model_events import LeftTurn, LeftTurns
from pentad.agent.planning.base import MessageGroup
from pentad.model.reduction.base import Reducible
from pentad.model.reduction.extractive import Extractive
from pentad.ranges import in_range
from pentad.types import Message

TOOL = "earlier"
"""The built-in tool that brings a turn back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiered(OldestOut):
    """Keeps the newest turns whole, shows older ones shortened and the oldest as a summary, each with its id.

    When the prompt is full it is cut to `recent_fraction` of its limit. Each turn that leaves gets an id
    (`t1`, `t2`, ...) and is kept whole in the run's journal. The `older` newest of them stay as their
    sentences nearest to the goal; those before are summed up by the model where `memory.window.overflow` is
    `summarise`, else only their ids are told. An agent with the tool `earlier` brings any of them back by its
    id. Between two cuts the prompt begins alike; a restart shows the same words, for they are journaled.

    Exactness: lossy; each cut is recorded with the ids. Cost: an embedding per sentence of a turn that
    leaves; a model call per cut with `summarise`.
    """

    recent_fraction: float = 0.6
    """Of the limit, what pinned and whole turns may take after a cut; above 0, at most 1."""
    older: int = 8
    """Turns that are shown shortened, at most."""
    short_tokens: int = 48
    """Of one that is; at least 16."""

    overflows: ClassVar[frozenset[Overflow]] = frozenset({"trim", "summarise", "refuse"})
    renews: ClassVar[bool] = True
    name = "tiered"

    def __post_init__(self) -> None:
        in_range("recent_fraction", self.recent_fraction, above=0, most=1)
        in_range("older", self.older, least=0)
        in_range("short_tokens", self.short_tokens, least=16)

    def goal(self, given: ContextInput) -> tuple[int, int | None]:
        """The fraction of the limit."""
        return int(given.limit * self.recent_fraction), given.window.max_turns

    async def left(
        self, given: ContextInput, gone: Sequence[MessageGroup], fits: Callable[[str], bool]
    ) -> tuple[str, LeftTurns | None]:
        """What stands for the turns that left, and those turns with their ids; as much as fits."""
        before = given.state.left or LeftTurns()
        first = len(before.turns) + 1
        fresh = [await self._short(given, f"t{first + at}", turn) for at, turn in enumerate(gone)]
        turns = (*before.turns, *fresh)
        shown = turns[max(before.summed, len(turns) - self.older) :] if self.older else ()
        summed, summary = len(turns) - len(shown), before.summary
        if given.window.overflow == "summarise" and summed > before.summed:
            texts = [turn.text for turn in turns[before.summed : summed]]
            summary = await given.summarise(
                "\n".join([*([f"Summary so far: {summary}"] if summary else []), *texts])
            )
        can_call = any(tool.name == TOOL for tool in given.draft.tools)
        for skipped in range(len(shown) + 1):
            text = _note(summary, summed + skipped, shown[skipped:], can_call)
            if fits(text):
                break
        else:
            text = summary if fits(summary) else ""
        return text, LeftTurns(turns=tuple(fresh), summary=summary, summed=summed)

    async def _short(self, given: ContextInput, ident: str, turn: MessageGroup) -> LeftTurn:
        text = transcript(turn)

        def count(part: str) -> int:
            message = Message(role="user", content=part)
            return given.count((message,)) - given.count((replace(message, content=""),))

        reducible = Reducible(text=text, goal=given.state.goal, count=count, relevance=given.relevance)
        made = await Extractive(max_tokens=self.short_tokens).reduce(reducible)
        return LeftTurn(id=ident, text=text, short=" ".join(made.text.split()))


def _note(summary: str, summed: int, shown: Sequence[LeftTurn], can_call: bool) -> str:
    """The words that stand in the prompt for what left it."""
    parts = [summary] if summary else []
    if summed:
        ids = "t1" if summed == 1 else f"t1 to t{summed}"
        parts.append(f"Turns {ids} are summed up above." if summary else f"Turns {ids} are left out.")
    if shown:
        parts.append("\n".join(["Older turns, shortened:", *(f"[{turn.id}] {turn.short}" for turn in shown)]))
    if can_call:
        parts.append(f"The tool {TOOL} shows one whole.")
    return "\n".join(parts)
