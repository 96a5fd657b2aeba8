"""Examples: solved cases like the goal, chosen by meaning, shown as turns before the conversation."""

from __future__ import annotations

import asyncio
import functools
import pathlib
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.context_builders.base import Built, ContextInput, OldestOut, assemble, room
from pentad.agent.context_builders.compact import Compact
from pentad.agent.memory.window import Overflow
from pentad.agent.planning.base import MessageGroup
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json
from pentad.ranges import in_range
from pentad.types import Decision, Message

_NAMED_CHARACTERS = 40
_MOST_BYTES = 8 << 20


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
    name = "examples"

    def __post_init__(self) -> None:
        in_range("k", self.k, least=0)

    def goal(self, given: ContextInput) -> tuple[int, int | None]:
        """All that there is room for."""
        return room(given), given.window.max_turns

    async def build(self, given: ContextInput) -> Built:
        """The draft with examples in front, within the limit. Raises InvalidRequest for its file."""
        if not self.file or not self.k:
            return await OldestOut.build(self, given)
        known = await asyncio.to_thread(_read, self.file)
        scores = await given.relevance.scores([given.state.goal], [case for case, _ in known])
        best = sorted(range(len(known)), key=lambda i: (-scores[i], i))[: self.k]
        shown = await asyncio.to_thread(self._fitting, given, [known[i] for i in best])
        draft = replace(given.draft, turns=(*map(_turn, reversed(shown)), *given.draft.turns))
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

    def _fitting(self, given: ContextInput, best: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """As many of the best as fit beside what is pinned."""
        for most in range(len(best), 0, -1):
            turns = (*map(_turn, best[:most]), *given.draft.turns)
            draft = replace(given.draft, turns=turns)
            messages = assemble(draft, given.state, (), given.state.summary, given.media)
            if given.count(messages) <= room(given):
                return best[:most]
        return []


def _turn(example: tuple[str, str]) -> MessageGroup:
    asked, answered = example
    messages = (Message(role="user", content=asked), Message(role="assistant", content=answered))
    return MessageGroup(messages=messages, pinned=True)


def _read(name: str) -> tuple[tuple[str, str], ...]:
    path = pathlib.Path(name)
    try:
        about = path.stat()
    except OSError as error:
        raise _wrong(name, error.strerror or "cannot be read") from None
    if about.st_size > _MOST_BYTES:
        raise _wrong(name, f"has {about.st_size} bytes, at most {_MOST_BYTES}")
    return _parsed((name, about.st_mtime_ns, about.st_size))


@functools.lru_cache(maxsize=16)
def _parsed(state: tuple[str, int, int]) -> tuple[tuple[str, str], ...]:
    """The examples of a file, as it stands with that time of change and that size."""
    name, found = state[0], []
    for number, line in enumerate(pathlib.Path(name).read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            made = parse_json(line)
            example = made["input"], made["output"]
        except (ValueError, KeyError, TypeError):
            example = None, None
        if not all(isinstance(part, str) and part.strip() for part in example):
            raise _wrong(name, f"line {number} has no texts 'input' and 'output'")
        found.append(example)
    return tuple(found)


def _wrong(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"examples {name!r}: {why}",
        hint='set context.options.file to JSON lines like {"input": "Where is it?", "output": "parcel"}',
        param="context",
    )
