"""Backend: anything that answers a Request with a stream of deltas. One stream, one fold.

Our engine, llama.cpp and any OpenAI-compatible endpoint are backends alike; the layers above
cannot tell them apart but by their capabilities.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from pentad.content import MediaKind
from pentad.types import FinishReason, Message, Request, ToolCall, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """Log probability of one generated token and its alternatives; `data` are the token's bytes."""

    text: str
    data: bytes
    logprob: float
    alternatives: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """A piece of answer text; always whole characters."""

    text: str
    choice: int = 0
    kind: Literal["text", "reasoning"] = "text"
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeDelta:
    """Something else is done than was asked, known before the first token. No part of the answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDelta:
    """The prompt's tokens, where their log probabilities were asked for; before any text."""

    tokens: tuple[TokenLogprob, ...]
    """The first has nothing before it: its log probability is 0 and means nothing."""
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of a tool call. The first delta of a call carries `id` and `name`."""

    index: int
    """Which call of this turn, from 0."""
    choice: int = 0
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    """Next fragment of the JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceDone:
    """One choice is complete."""

    reason: FinishReason
    choice: int = 0
    stop: str | None = None
    """The stop string that ended it, if one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDone:
    """The last event of every stream that did not raise."""

    usage: Usage


ChoiceDelta = PromptDelta | TextDelta | ToolCallDelta | ChoiceDone
"""What belongs to one choice."""
Delta = NoticeDelta | ChoiceDelta | StreamDone


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One folded answer."""

    message: Message
    reason: FinishReason
    reasoning: str = ""
    stop: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt: tuple[TokenLogprob, ...] = ()
    """The prompt's tokens, where their log probabilities were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The plain answer: what the deltas of one stream add up to."""

    choices: tuple[Choice, ...]
    usage: Usage

    @property
    def message(self) -> Message:
        """The first choice's message."""
        return self.choices[0].message


@dataclass(slots=True)
class _Folding:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, tuple[str, str, list[str]]] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt: tuple[TokenLogprob, ...] = ()
    done: ChoiceDone | None = None


def fold(deltas: Iterable[Delta]) -> Completion:
    """The completion that a whole stream of deltas amounts to.

    Raises ValueError when the stream is not whole: no StreamDone, or a choice without an end.
    """
    choices: dict[int, _Folding] = {}
    usage: Usage | None = None
    for delta in deltas:
        if isinstance(delta, NoticeDelta):
            continue
        if isinstance(delta, StreamDone):
            usage = delta.usage
            continue
        state = choices.setdefault(delta.choice, _Folding())
        match delta:
            case PromptDelta():
                state.prompt = delta.tokens
            case TextDelta():
                (state.text if delta.kind == "text" else state.reasoning).append(delta.text)
                state.logprobs.extend(delta.logprobs)
            case ToolCallDelta():
                if delta.id is not None:
                    state.calls[delta.index] = (delta.id, delta.name or "", [])
                state.calls[delta.index][2].append(delta.arguments)
            case ChoiceDone():
                state.done = delta
    if usage is None:
        raise ValueError("the stream ended without StreamDone")
    return Completion(choices=tuple(_choice(choices[i], i) for i in sorted(choices)), usage=usage)


def _choice(state: _Folding, index: int) -> Choice:
    if state.done is None:
        raise ValueError(f"choice {index} has no end")
    calls = tuple(ToolCall(id=i, name=n, arguments="".join(a)) for i, n, a in state.calls.values())
    return Choice(
        message=Message(role="assistant", content="".join(state.text), tool_calls=calls),
        reason=state.done.reason,
        reasoning="".join(state.reasoning),
        stop=state.done.stop,
        logprobs=tuple(state.logprobs),
        prompt=state.prompt,
    )


async def collect(stream: AsyncIterator[Delta]) -> Completion:
    """The fold of an asynchronous stream."""
    return fold([delta async for delta in stream])


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do, as data, so that a router or a check need not try."""

    model: str
    context_length: int
    remote: bool = False
    """Whether the prompt leaves this machine."""
    tools: bool = True
    formats: frozenset[str] = frozenset({"text"})
    logprobs: bool = False
    token_prompts: bool = False
    """Whether `Request.token_ids` and exact token counts are served."""
    media: frozenset[MediaKind] = frozenset()
    """Parts beside text that it takes: `image`, `audio`, `file`."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Field of Sampling to the value that holds where a request leaves it open."""


class Backend(Protocol):
    """Serves one model (coverage.md, interface 19)."""

    @property
    def capabilities(self) -> Capabilities: ...

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """The answer as it is made. Closing the iterator cancels the request within two steps.

        Raises on first iteration, before any delta: InvalidRequest, ContextLengthExceeded,
        Overloaded, Unavailable; later: BackendFailed.
        """
        ...

    def count_tokens(self, request: Request) -> int:
        """Prompt tokens of the request, tools and template included. Not all remotes can: Incompatible."""
        ...

    def stats(self) -> dict[str, float]:
        """Gauges and counters by name, for metrics; cheap."""
        ...

    def check(self) -> str | None:
        """None while healthy: a token was produced lately, or nothing was asked; else the reason."""
        ...

    async def close(self) -> None:
        """Finishes or cancels what runs, then gives everything back."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """Scores documents for a query."""

    def score_counted(self, query: str, documents: Sequence[str]) -> tuple[list[float], int]:
        """One score per document, higher for better ones, and how many tokens all pairs have.

        Raises InvalidRequest on an empty text, ContextLengthExceeded on a pair too long.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def dimensions(self) -> int: ...

    def embed_counted(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """One vector of length `dimensions` per text, and how many tokens all texts have.

        Raises ContextLengthExceeded on a text too long.
        """
        ...
