"""ContextBuilder: a planner's draft, made to fit the token budget. What is left out is declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from pentad.agent.events import Compacted
from pentad.agent.planning.base import Draft, Turn
from pentad.agent.spec import WindowChoice
from pentad.agent.state import RunState
from pentad.agent.tools.calling import shown
from pentad.errors import ContextLengthExceeded
from pentad.types import Message

Count = Callable[[tuple[Message, ...]], int]
"""Prompt tokens of the request with these messages."""
Summarise = Callable[[str], Awaitable[str]]
"""A short text in place of a long one; a model call of the same run."""

_SUMMARY_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Messages that fit, their size, and what had to be left out to get there."""

    messages: tuple[Message, ...]
    tokens: int
    compacted: Compacted | None = None


class ContextBuilder:
    """Puts system text, memories, the window of turns and the task into a prompt.

    Args:
        window: how much may stay, and what to do with the rest.
        summarise: used when `window.overflow` is `summarise`.
    """

    def __init__(self, window: WindowChoice, summarise: Summarise) -> None:
        self._window = window
        self._summarise = summarise

    async def build(self, draft: Draft, state: RunState, count: Count, limit_tokens: int) -> Built:
        """The messages of the draft within `limit_tokens`.

        Raises ContextLengthExceeded when even the pinned turns do not fit, or nothing may be left out.
        """
        limit = min(limit_tokens, self._window.max_tokens or limit_tokens)
        loose = sum(not turn.pinned for turn in draft.turns)
        before_drop = min(state.dropped_turns, loose)
        whole = assemble(draft, state, before_drop, state.summary)
        tokens = count(whole)
        least = before_drop
        if self._window.max_turns is not None:
            least = max(least, loose - self._window.max_turns)
        if tokens <= limit and least == before_drop:
            return Built(messages=whole, tokens=tokens)
        if self._window.overflow == "refuse":
            raise self._too_long(tokens, limit, "memory.window.overflow is 'refuse'")
        room = limit - (_SUMMARY_TOKENS if self._window.overflow == "summarise" else 0)
        drop = _fewest(lambda n: count(assemble(draft, state, n, state.summary)) <= room, least, loose)
        if drop is None:
            raise self._too_long(tokens, limit, "nothing more can be left out")
        summary = state.summary
        if self._window.overflow == "summarise" and drop > before_drop:
            summary = await self._summarise(_transcript(draft, before_drop, drop, state.summary))
        messages = assemble(draft, state, drop, summary)
        after = count(messages)
        if after > limit:
            raise self._too_long(after, limit, "the summary is too long")
        compacted = Compacted(
            step=state.step,
            reason="turns" if tokens <= limit else "tokens",
            dropped_turns=drop,
            before_tokens=tokens,
            after_tokens=after,
            summary=summary,
        )
        return Built(messages=messages, tokens=after, compacted=compacted)

    def _too_long(self, tokens: int, limit: int, why: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"the prompt has {tokens} tokens, {limit} are available and {why}",
            hint="shorten the goal or instructions, lower max_tokens, or use a model with a longer context",
            param="goal",
        )


def assemble(draft: Draft, state: RunState, drop: int, summary: str) -> tuple[Message, ...]:
    """The draft's messages without its `drop` oldest loose turns, with summary and memories noted."""
    notes = _notes(state, summary if drop else "")
    messages = [Message(role="system", content=draft.system)] if draft.system else []
    skipped = 0
    for turn in draft.turns:
        if not turn.pinned and skipped < drop:
            skipped += 1
            continue
        group = list(turn.messages)
        if turn.pinned and notes:
            group[0] = replace(group[0], content=f"{notes}\n\n{group[0].content}")
            notes = ""
        messages += group
    return tuple(replace(m, content=shown(m.content)) for m in messages)


def _notes(state: RunState, summary: str) -> str:
    """Memories and summary stand in a user message: they are data and never gain the system's voice."""
    parts = []
    if state.recalled:
        parts.append("Notes from memory:\n" + "\n".join(f"- {text}" for _, text, _ in state.recalled))
    if summary:
        parts.append(f"Earlier, in short: {summary}")
    return "\n\n".join(parts)


def _fewest(fits: Callable[[int], bool], least: int, most: int) -> int | None:
    """The smallest n in least..most that fits (fitting is monotone), or None."""
    if not fits(most):
        return None
    low, high = least, most
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _transcript(draft: Draft, start: int, end: int, summary: str) -> str:
    loose: Sequence[Turn] = [turn for turn in draft.turns if not turn.pinned][start:end]
    lines = [f"{m.role}: {m.content}" for turn in loose for m in turn.messages if m.content]
    return "\n".join(([f"Summary so far: {summary}"] if summary else []) + lines)
