"""What the runtime asks of a context builder (coverage.md, interface 5), and what builders share."""

from __future__ import annotations

import asyncio
import functools
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from pentad.agent.memory.window import Overflow, Recent, Window
from pentad.agent.model_events import Compacted, LeftTurns
from pentad.agent.off_loop import off_loop
from pentad.agent.planning.base import MessageGroup, ModelCallDraft
from pentad.agent.state import RunState
from pentad.agent.tools.invocation import shown
from pentad.content import Media
from pentad.errors import ContextLengthExceeded, Incompatible
from pentad.model.relevance import Relevance
from pentad.types import Decision, Exactness, Message

Count = Callable[[tuple[Message, ...]], int]
"""Prompt tokens of the request with these messages."""
Summarise = Callable[[str], Awaitable[str]]
"""A short text in place of a long one; a model call of the same run."""

SUMMARY_TOKENS = 128
"""Room kept free for a summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextInput:
    """What a prompt is built from. `draft` and `state` come of the journal, so a restart builds the same."""

    draft: ModelCallDraft
    state: RunState
    window: Window
    """How much may stay, and what is to happen to the rest."""
    limit_tokens: int
    """What the model's context leaves for the prompt."""
    count: Count
    """Counts in a thread of its own: a long history takes a while."""
    summarise: Summarise
    relevance: Relevance = field(default_factory=lambda: Relevance(None))
    """How near texts are to the goal."""
    media: tuple[Media, ...] = ()
    """What the goal shows beside its text, with data."""

    @property
    def limit(self) -> int:
        """The tokens that bind: the model's, the agent's or those of the way that was chosen."""
        limits = (self.limit_tokens, self.window.max_tokens, self.draft.context_tokens)
        return min(limit for limit in limits if limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Messages that fit, their size, and what had to be left out to get there."""

    messages: tuple[Message, ...]
    tokens: int
    compacted: Compacted | None = None
    """None exactly where nothing was left out of this prompt that the last one had."""
    chosen: tuple[Decision, ...] = ()
    """What the builder decided besides."""

    def decisions(self, policy: str, limit_tokens: int, at_s: float) -> tuple[Decision, ...]:
        """What was decided about the prompt, as it is recorded."""
        others = tuple(replace(one, at_s=at_s) for one in self.chosen)
        if self.compacted is None:
            return others
        before, after = self.compacted.before_tokens, self.tokens
        decision = Decision(
            layer="agent",
            policy=policy,
            subject="prompt",
            chosen=f"compacted to {after} tokens",
            candidates=((f"whole, {before} tokens", None), (f"compacted, {after} tokens", None)),
            constraint=f"{limit_tokens} prompt tokens",
            at_s=at_s,
        )
        return (decision, *others)


class ContextBuilder(Protocol):
    """Makes drafts fit. Holds no state; leaves out loose groups only, and says so."""

    exactness: ClassVar[Exactness]
    overflows: ClassVar[frozenset[Overflow]]
    """Values of `memory.window.overflow` that it can carry out."""

    @property
    def name(self) -> str: ...

    async def build(self, given: ContextInput) -> Built:
        """The messages of the draft within the limit.

        Raises ContextLengthExceeded when even the pinned groups do not fit, or nothing may be left out.
        """
        ...


def check_window(builder: ContextBuilder, window: Window) -> None:
    """Raises Incompatible where the builder cannot do what the window asks for."""
    if window.overflow not in builder.overflows:
        raise Incompatible(
            f"context {builder.name!r} cannot {window.overflow}, as memory.window.overflow says",
            hint=f"set memory.window.overflow to one of {', '.join(sorted(builder.overflows))}, "
            "or another context",
            param="context",
        )


class OldestOut:
    """A builder that leaves out the oldest loose groups; its strategies say how many.

    Groups leave for good: a prompt never regains what an earlier one of the run left out.
    """

    exactness: ClassVar[Exactness] = "lossy"
    overflows: ClassVar[frozenset[Overflow]] = frozenset({"trim", "refuse"})

    renews: ClassVar[bool] = False
    """Whether `left` writes anew all that stands for what left, so that its size now does not count."""

    @abstractmethod
    def goal(self, given: ContextInput) -> tuple[int, int | None]:
        """Tokens and loose groups, at most, of a prompt out of which something has to be left."""

    async def build(self, given: ContextInput) -> Built:
        """The draft without the oldest groups, as few or as many as the strategy says."""
        draft, state = given.draft, given.state
        loose = [turn for turn in draft.turns if not turn.pinned]
        recent = given.window.start(loose, dropped=state.dropped_turns)
        chars = sum(len(message.content) for turn in draft.turns for message in turn.messages)
        work = functools.partial(self._fit, given, recent)
        tokens, gone = await off_loop(work, chars=chars)
        if gone is None:
            messages = assemble(draft, state, recent.read(), state.summary, given.media)
            return Built(messages=messages, tokens=tokens)
        kept = recent.read()

        def fits(summary: str) -> bool:
            return given.count(assemble(draft, state, kept, summary, given.media)) <= given.limit

        summary, left = await self.left(given, gone, fits) if gone else (state.summary, None)
        messages = assemble(draft, state, kept, summary, given.media)
        after = await asyncio.to_thread(given.count, messages)
        if after > given.limit:
            raise _too_long(after, given.limit, "the summary is too long")
        compacted = Compacted(
            step=state.step,
            reason="turns" if tokens <= given.limit else "tokens",
            dropped_turns=recent.dropped,
            before_tokens=tokens,
            after_tokens=after,
            summary=summary,
            left=left,
        )
        return Built(messages=messages, tokens=after, compacted=compacted)

    async def left(
        self,
        given: ContextInput,
        gone: Sequence[MessageGroup],
        fits: Callable[[str], bool],  # noqa: ARG002 (for those that can make it shorter)
    ) -> tuple[str, LeftTurns | None]:
        """What stands in the prompt for the turns that leave it now, and those turns if they are kept by id.

        A text that does not fit is refused as too long.

        Args:
            fits: whether the prompt has room for such a text.
        """
        if given.window.overflow != "summarise":
            return given.state.summary, None
        lines = [f"Summary so far: {given.state.summary}"] if given.state.summary else []
        return await given.summarise("\n".join([*lines, *map(transcript, gone)])), None

    def _fit(
        self, given: ContextInput, recent: Recent[MessageGroup]
    ) -> tuple[int, Sequence[MessageGroup] | None]:
        """The size of the prompt before, and the turns that had to go; None when all fit as they are."""
        draft, state, limit = given.draft, given.state, given.limit

        def size(kept: Sequence[MessageGroup], summary: str = "" if self.renews else state.summary) -> int:
            return given.count(assemble(draft, state, kept, summary, given.media))

        tokens = size(recent.read(), state.summary)
        if tokens <= limit and not recent.overflowing():
            return tokens, None
        if given.window.overflow == "refuse":
            raise _too_long(tokens, limit, "memory.window.overflow is 'refuse'")
        wished, most = self.goal(given)
        gone = recent.trim(lambda kept: size(kept) <= wished, most=most)
        if gone is None:
            # What is pinned takes more than the strategy wishes for, but may still fit.
            gone = recent.trim(lambda kept: size(kept) <= room(given))
        if gone is None:
            raise _too_long(tokens, limit, "nothing more can be left out")
        return tokens, gone


def room(given: ContextInput) -> int:
    """The tokens that the loose and pinned groups may take together."""
    return given.limit - (SUMMARY_TOKENS if given.window.overflow == "summarise" else 0)


def assemble(
    draft: ModelCallDraft,
    state: RunState,
    kept: Sequence[MessageGroup],
    summary: str,
    media: Sequence[Media] = (),
) -> tuple[Message, ...]:
    """The draft's messages with only the `kept` loose turns, with summary and memories noted.

    What the goal shows beside its text stands behind the text of the turn that is noted.
    """
    notes = _notes(state, summary)
    messages = [Message(role="system", content=draft.system)] if draft.system else []
    out = sum(not turn.pinned for turn in draft.turns) - len(kept)
    for turn in draft.turns:
        if not turn.pinned and out > 0:
            out -= 1
            continue
        group = list(turn.messages)
        if turn.noted and notes:
            group[0] = group[0].behind(f"{notes}\n\n")
            notes = ""
        if turn.noted and media:
            at = len(group[0].content)
            shown_there = tuple(replace(one, at=at) for one in media)
            group[0] = replace(group[0], media=(*group[0].media, *shown_there))
            media = ()
        messages += group
    return tuple(m if m.content.isascii() else replace(m, content=shown(m.content)) for m in messages)


def _notes(state: RunState, summary: str) -> str:
    """Memories and summary stand in a user message: they are data and never gain the system's voice."""
    parts = []
    if state.recalled:
        parts.append("Notes from memory:\n" + "\n".join(f"- {text}" for _, text, _ in state.recalled))
    if summary:
        parts.append(f"Earlier, in short: {summary}")
    return "\n\n".join(parts)


def transcript(turn: MessageGroup) -> str:
    """A turn in lines of `role: text`; calls of tools as they were made."""
    lines = []
    for message in turn.messages:
        if message.content:
            lines.append(f"{message.role}: {message.content}")
        lines += [f"{message.role} calls {call.name} {call.arguments}" for call in message.tool_calls]
    return "\n".join(lines)


def _too_long(tokens: int, limit: int, why: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"the prompt has {tokens} tokens, {limit} are available and {why}",
        hint="shorten the goal or instructions, lower max_tokens, or use a model with a longer context",
        param="goal",
    )
