"""Arrival traces: what is asked when, and what waits for what."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.ranges import in_range
from pentad.types import Hints, Objective

MAX_TOKENS = 10**7
"""Of one prompt or answer; what is longer is a slip."""
_WORD = 1 << 64
_FEW_SEGMENTS: Final = 64
"""Of prompts that are put together from texts that are remembered; with more, one sum is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceItem:
    """One request of a trace."""

    id: str
    arrival_s: float = 0.0
    """Seconds from the start of the trace; without meaning when `after` is set."""
    prompt_tokens: int
    output_tokens: int
    segments: tuple[tuple[int, int], ...] = ()
    """(content id, tokens) from the front of the prompt; equal ids in front are equal tokens, so
    they meet in the prefix cache. What they leave of the prompt is the item's own."""
    blocks: tuple[tuple[int, int], ...] = ()
    """Content ids from the front of the prompt as inclusive ranges, each of `block_tokens` tokens; in the
    place of `segments` where there are many."""
    block_tokens: float = 1.0
    after: str | None = None
    """The item that must have finished before this one arrives (the next step of an agent run)."""
    joins: tuple[str, ...] = ()
    """Others that must have finished as well: the last steps of sub-agents."""
    pause_s: float = 0.0
    """Time between the last of these finishes and this arrival: a tool call, or a person's."""
    run: str | None = None
    """The agent run, or sub-agent's, that it is a step of."""
    root: str | None = None
    """The run that started the sub-agent; None where it is no sub-agent's."""
    hints: Hints | None = None
    """What its sender expects to follow; None announces what the trace itself knows, pauses included."""
    priority: int = 0
    tenant: str = "default"
    model: str = ""
    """Which of several simulated models answers it; empty: the first."""
    objective: Objective | None = None
    """What it wishes; None: what the whole trace is judged by, which its engine is not told."""
    run_deadline_s: float | None = None
    """Seconds from its run's first arrival within which its run must be done; what is left of them is its own
    deadline when it arrives."""
    data_label: str | None = None
    """Of its data; `local` keeps it away from remote sites."""
    slo_class: str = ""
    """Name under which the report counts it beside others of its kind."""

    def __post_init__(self) -> None:
        in_range("arrival_s", self.arrival_s)
        in_range("prompt_tokens", self.prompt_tokens, least=1, most=MAX_TOKENS)
        in_range("output_tokens", self.output_tokens, least=1, most=MAX_TOKENS)
        in_range("pause_s", self.pause_s, least=0)
        in_range("run_deadline_s", self.run_deadline_s, least=0)
        in_range("block_tokens", self.block_tokens, above=0)
        assert not (self.blocks and self.segments), "the contents of a prompt are given twice"

    @property
    def waits_for(self) -> tuple[str, ...]:
        """All items that must have finished before this one arrives."""
        return self.joins if self.after is None else (self.after, *self.joins)


def prompt_of(item: TraceItem, vocab_size: int, *, seed: int = 0) -> tuple[int, ...]:
    """Token ids for an item: the same item and seed always give the same prompt.

    A token is a hash of its content's id and of its place in that.
    """
    if item.segments and len(item.segments) <= _FEW_SEGMENTS:
        return _joined(item, vocab_size, seed)
    contents, places = _contents(item)
    mixed = _mixed(_mixed(contents + np.uint64(_word(f"seed/{seed}"))) + places.astype(np.uint64))
    return tuple((mixed % np.uint64(vocab_size)).tolist())


def _joined(item: TraceItem, vocab_size: int, seed: int) -> tuple[int, ...]:
    """The prompt of an item of few segments: those of the steps before it in its run are made already."""
    left = item.prompt_tokens
    parts = []
    for id, tokens in item.segments:
        if left <= 0:
            break
        text = _text_of(id if 0 <= id < _WORD else _word(f"shared/{id}"), tokens, vocab_size, seed)
        parts.append(text if tokens <= left else text[:left])
        left -= tokens
    if left > 0:
        parts.append(_text(_word(f"own/{item.id}"), left, vocab_size, seed))
    return tuple(itertools.chain.from_iterable(parts))


def _text(content: int, tokens: int, vocab_size: int, seed: int) -> tuple[int, ...]:
    """The first tokens of a content."""
    start = np.uint64(_mixed_word(content + _word(f"seed/{seed}")))
    mixed = _mixed(start + np.arange(tokens, dtype=np.uint64))
    return tuple((mixed % np.uint64(vocab_size)).tolist())


_text_of = functools.lru_cache(maxsize=1024)(_text)


def stand_alone(items: Iterable[TraceItem]) -> bool:
    """Whether no item has anything to do with another: no shared contents, no run, nothing announced."""
    return not any(
        item.segments or item.blocks or item.run or item.after or item.joins or item.hints for item in items
    )


def last_token_of(item: TraceItem, vocab_size: int, *, seed: int = 0) -> int:
    """The last token of the prompt of an item without contents that others have, as in `prompt_of`."""
    assert not item.segments, f"item {item.id!r} has contents that others may have"
    assert not item.blocks, f"item {item.id!r} has contents that others may have"
    content = _mixed_word(_word(f"own/{item.id}") + _word(f"seed/{seed}"))
    return _mixed_word(content + item.prompt_tokens - 1) % vocab_size


_Contents = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]


def _contents(item: TraceItem) -> _Contents:
    """[prompt tokens] the content id of each token, and its place in that content."""
    count = item.prompt_tokens
    if item.blocks:
        ids = np.concatenate([np.arange(first, last + 1, dtype=np.uint64) for first, last in item.blocks])
        at = np.arange(min(count, int(len(ids) * item.block_tokens)))
        block = np.minimum((at / item.block_tokens).astype(np.int64), len(ids) - 1)
        known = ids[block], at - np.ceil(block * item.block_tokens).astype(np.int64)
    else:
        lengths = np.array([tokens for _, tokens in item.segments], np.int64)
        lengths = np.diff(np.minimum(np.cumsum(lengths), count), prepend=0)
        words = [id if 0 <= id < _WORD else _word(f"shared/{id}") for id, _ in item.segments]
        known = np.repeat(np.array(words, np.uint64), lengths), _places(lengths)
    own = count - len(known[0])
    if not own:
        return known
    ids = np.full(own, _word(f"own/{item.id}"), np.uint64)
    return np.concatenate((known[0], ids)), np.concatenate((known[1], np.arange(own)))


def _places(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0 1 2 ... within each of the lengths."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _word(name: str) -> int:
    """A number of 64 bits for a name."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mixed_word(word: int) -> int:
    """What `_mixed` makes of one word."""
    word = (word + 0x9E3779B97F4A7C15) % _WORD
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % _WORD
    return word ^ (word >> 31)


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Words whose bits all depend on all of each one's (the finalizer of splitmix64)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def rescaled(items: Iterable[TraceItem], rate_scale: float) -> tuple[TraceItem, ...]:
    """The items in arrival order, the first arriving at 0, `rate_scale` times as fast."""
    in_range("rate_scale", rate_scale, above=0)
    ordered = sorted(items, key=lambda item: item.arrival_s)
    start_s = ordered[0].arrival_s
    return tuple(replace(item, arrival_s=(item.arrival_s - start_s) / rate_scale) for item in ordered)


def poisson(
    count: int,
    *,
    rate_per_s: float,
    prompt_tokens: tuple[int, int],
    output_tokens: tuple[int, int],
    seed: int = 0,
) -> tuple[TraceItem, ...]:
    """Memoryless arrivals with lengths drawn evenly from [low, high]."""
    in_range("limit", count, least=1)
    in_range("rate_per_s", rate_per_s, above=0)
    in_range("seed", seed, least=0)
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1 / rate_per_s, count))
    prompts = draw.integers(*prompt_tokens, size=count, endpoint=True)
    outputs = draw.integers(*output_tokens, size=count, endpoint=True)
    items = (
        TraceItem(id=f"r{i}", arrival_s=float(at), prompt_tokens=int(prompt), output_tokens=int(output))
        for i, (at, prompt, output) in enumerate(zip(arrivals, prompts, outputs, strict=True))
    )
    return rescaled(items, 1.0)


def agent_run(
    run: str, *, arrival_s: float, steps: int, first_prompt: int, added: int, output: int, pause_s: float
) -> tuple[TraceItem, ...]:
    """The requests of one agent run: each step's prompt is the last one and `added` tokens more.

    Args:
        run: name; step i is the item `{run}/{i}`.
        first_prompt: tokens of the first prompt.
        added: tokens that each later prompt adds: the answer before it and the tool's result.
        output: tokens that each step generates.
        pause_s: duration of the tool call between two steps.
    """
    return tuple(
        TraceItem(
            id=f"{run}/{i}",
            arrival_s=arrival_s,
            prompt_tokens=first_prompt + i * added,
            output_tokens=output,
            segments=tuple((_content_id(run, j), added if j else first_prompt) for j in range(i + 1)),
            after=f"{run}/{i - 1}" if i else None,
            pause_s=pause_s if i else 0.0,
            run=run,
        )
        for i in range(steps)
    )


def _content_id(run: str, part: int) -> int:
    """A number for part `part` of a run's prompt; different runs get different ones."""
    return int.from_bytes(f"{run}/{part}".encode(), "big")
