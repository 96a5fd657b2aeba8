"""ContextBuilder: a planner's draft, made to fit the token budget. What is left out is declared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from pentad.agent.memory.window import Recent, Window
from pentad.agent.model_events import Compacted
from pentad.agent.planning.base import MessageGroup, ModelCallDraft
from pentad.agent.state import RunState
from pentad.agent.tools.invocation import shown
from pentad.errors import ContextLengthExceeded
from pentad.types import Message

Count = Callable[[tuple[Message, ...]], int]
"""Prompt tokens of the request with these messages."""
Summarise = Callable[[str], Awaitable[str]]
"""A short text in place of a long one; a model call of the same run."""

SUMMARY_TOKENS = 128
"""Room kept free for a summary."""


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

    def __init__(self, window: Window, summarise: Summarise) -> None:
        self._window = window
        self._summarise = summarise

    async def build(self, draft: ModelCallDraft, state: RunState, count: Count, limit_tokens: int) -> Built:
        """The messages of the draft within `limit_tokens`.

        Raises ContextLengthExceeded when even the pinned turns do not fit, or nothing may be left out.
        """
        limit = min(limit_tokens, self._window.max_tokens or limit_tokens)
        loose = [turn for turn in draft.turns if not turn.pinned]
        recent = self._window.start(loose, dropped=state.dropped_turns)
        # In a thread: counting the tokens of a long history takes a while.
        tokens, gone = await asyncio.to_thread(self._fit, draft, state, count, recent, limit)
        if gone is None:
            messages = assemble(draft, state, recent.read(), state.summary)
            return Built(messages=messages, tokens=tokens)
        summary = state.summary
        if gone and self._window.overflow == "summarise":
            summary = await self._summarise(_transcript(gone, state.summary))
        messages = assemble(draft, state, recent.read(), summary)
        after = await asyncio.to_thread(count, messages)
        if after > limit:
            raise _too_long(after, limit, "the summary is too long")
        compacted = Compacted(
            step=state.step,
            reason="turns" if tokens <= limit else "tokens",
            dropped_turns=recent.dropped,
            before_tokens=tokens,
            after_tokens=after,
            summary=summary,
        )
        return Built(messages=messages, tokens=after, compacted=compacted)

    def _fit(
        self, draft: ModelCallDraft, state: RunState, count: Count, recent: Recent[MessageGroup], limit: int
    ) -> tuple[int, Sequence[MessageGroup] | None]:
        """The size of the prompt before, and the turns that had to go; None when all fit as they are."""
        tokens = count(assemble(draft, state, recent.read(), state.summary))
        if tokens <= limit and not recent.overflowing():
            return tokens, None
        if self._window.overflow == "refuse":
            raise _too_long(tokens, limit, "memory.window.overflow is 'refuse'")
        room = limit - (SUMMARY_TOKENS if self._window.overflow == "summarise" else 0)
        gone = recent.trim(lambda kept: count(assemble(draft, state, kept, state.summary)) <= room)
        if gone is None:
            raise _too_long(tokens, limit, "nothing more can be left out")
        return tokens, gone


def assemble(
    draft: ModelCallDraft, state: RunState, kept: Sequence[MessageGroup], summary: str
) -> tuple[Message, ...]:
    """The draft's messages with only the `kept` loose turns, with summary and memories noted."""
    notes = _notes(state, summary)
    messages = [Message(role="system", content=draft.system)] if draft.system else []
    out = sum(not turn.pinned for turn in draft.turns) - len(kept)
    for turn in draft.turns:
        if not turn.pinned and out > 0:
            out -= 1
            continue
        group = list(turn.messages)
        if turn.noted and notes:
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


def _transcript(gone: Sequence[MessageGroup], summary: str) -> str:
    lines = [f"{m.role}: {m.content}" for turn in gone for m in turn.messages if m.content]
    return "\n".join(([f"Summary so far: {summary}"] if summary else []) + lines)


def _too_long(tokens: int, limit: int, why: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"the prompt has {tokens} tokens, {limit} are available and {why}",
        hint="shorten the goal or instructions, lower max_tokens, or use a model with a longer context",
        param="goal",
    )
