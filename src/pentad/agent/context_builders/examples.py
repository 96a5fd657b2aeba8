"""Examples: solved cases like the goal, chosen by meaning, shown as turns before the conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pentad.agent.context_builders.base import Built, ContextInput, OldestOut, assemble, room
from pentad.agent.context_builders.compact import Compact
from pentad.agent.example_lines import LineForm, example_lines, text_of
from pentad.agent.memory.window import Overflow
from pentad.agent.planning.base import MessageGroup
from pentad.ranges import in_range
from pentad.types import Decision, Message

_NAMED_CHARACTERS = 40
Shown = tuple[str, MessageGroup]
"""A case, and the turn that shows it with what was made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples(OldestOut):
    """Puts the stored examples nearest to the goal in front, as user and assistant turns, nearest last.

    They are chosen once per goal by the encoder that is served, or by shared words where none is, so all
    prompts of a run begin alike. Examples that do not fit beside what is pinned are left out, the farthest
    first; the conversation is then made to fit as `compact` does.

    Source: Liu et al. 2021, "What Makes Good In-Context Examples for GPT-3?", section 3 (kNN over sentence
    embeddings), as the survey's semantic in-context learning. Ours adds shared words to the cosine.
    Exactness: lossy; the metric is accuracy beside as many random examples. Cost: one embedding per
    example, once in a process, and the examples' prompt tokens.
    """

    file: str = ""
    """JSON lines with `input` and `output`; empty shows no examples."""
    k: int = 4
    """Examples shown, at most."""

    overflows: ClassVar[frozenset[Overflow]] = Compact.overflows
    name: ClassVar[str] = "examples"

    def __post_init__(self) -> None:
        in_range("k", self.k, least=0)

    def goal(self, given: ContextInput) -> tuple[int, int | None]:
        """All that there is room for."""
        return room(given), given.window.max_turns

    async def build(self, given: ContextInput) -> Built:
        """The draft with examples in front, within the limit. Raises InvalidRequest for its file."""
        if not self.file or not self.k:
            return await OldestOut.build(self, given)
        known = self.apt(given, await asyncio.to_thread(self.kept))
        if not known:
            return await OldestOut.build(self, given)
        scores = await given.relevance.scores([given.state.goal], [case for case, _ in known])
        best = sorted(range(len(known)), key=lambda i: (-scores[i], i))[: self.k]
        shown = await asyncio.to_thread(self._fitting, given, [known[i][1] for i in best])
        draft = replace(given.draft, turns=(*reversed(shown), *given.draft.turns))
        built = await OldestOut.build(self, replace(given, draft=draft))
        decision = Decision(
            layer="agent",
            policy=self.name,
            subject="examples",
            chosen=f"{len(shown)} of {len(known)}",
            candidates=tuple((known[i][0][:_NAMED_CHARACTERS], round(scores[i], 4)) for i in best),
            constraint=f"k {self.k}, {given.limit} prompt tokens",
        )
        return replace(built, chosen=(decision,))

    def kept(self) -> Sequence[Shown]:
        """All examples of the file. Raises InvalidRequest."""
        return example_lines(self.file, _FORM)

    def apt(self, given: ContextInput, known: Sequence[Shown]) -> Sequence[Shown]:  # noqa: ARG002
        """Those that may stand before this draft."""
        return known

    def _fitting(self, given: ContextInput, best: list[MessageGroup]) -> list[MessageGroup]:
        """As many of the best as fit beside what is pinned."""
        for most in range(len(best), 0, -1):
            draft = replace(given.draft, turns=(*best[:most], *given.draft.turns))
            messages = assemble(draft, given.state, (), given.state.summary, given.media)
            if given.count(messages) <= room(given):
                return best[:most]
        return []


def _read(value: Any) -> Shown:
    asked, answered = text_of(value, "input"), text_of(value, "output")
    messages = (Message(role="user", content=asked), Message(role="assistant", content=answered))
    return asked, MessageGroup(messages=messages, pinned=True)


_FORM = LineForm(
    what="examples",
    wants="texts 'input' and 'output'",
    read=_read,
    hint='set context.options.file to JSON lines like {"input": "Where is it?", "output": "parcel"}',
    param="context",
)
