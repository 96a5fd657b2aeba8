"""Deltas as text_completion events, and their fold as a text_completion; the prompt in front if asked."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from msgspec import UNSET

from pentad.application.gateway.context import wire_usage
from pentad.application.gateway.schemas.completions import CompletionAnswer, CompletionChoice, LegacyLogprobs
from pentad.application.gateway.translate.chat_answer import Explain
from pentad.application.gateway.translate.frames import DONE, data_frame, encode, finish_reason
from pentad.execution.backend import (
    ChoiceDelta,
    ChoiceDone,
    Completion,
    Delta,
    NoticeDelta,
    PromptDelta,
    StreamDone,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)


class TextOffsets:
    """Where tokens begin in the text that their bytes make, counted in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._chars = 0

    def place(self, data: bytes) -> int:
        """The offset of the next token: whole characters that came before it."""
        before = self._chars
        self._chars += len(self._decoder.decode(data))
        return before


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """The prompts that stand in front of the answers to them."""

    texts: Sequence[str] = ()
    per_prompt: int = 1
    """Choices of each prompt, one behind the other."""

    def of(self, choice: int) -> str:
        """What comes in front of a choice; nothing if no echo was asked."""
        return self.texts[choice // self.per_prompt] if self.texts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionChunks:
    """Writes the events of one streamed completion."""

    id: str
    created: int
    model: str
    include_usage: bool
    explain: Explain
    echo: Echo = Echo()

    async def frames(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """Text pieces, finish reasons, usage if asked, `[DONE]`."""
        fields = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        head = b"data: " + encode(fields)[:-1]
        tail = b',"usage":null}\n\n' if self.include_usage else b"}\n\n"
        offsets: dict[int, TextOffsets] = {}
        async with aclosing(deltas) as stream:
            async for delta in stream:
                if isinstance(delta, StreamDone):
                    explained = self.explain(delta.usage)
                    if self.include_usage or explained is not None:
                        end = {**fields, "choices": [], "usage": wire_usage(delta.usage)}
                        yield data_frame(end | ({} if explained is None else {"pentad": explained}))
                elif not isinstance(delta, NoticeDelta):
                    for piece in self._pieces(delta, offsets):
                        yield b'%s,"choices":[{"index":%d,%s}]%s' % (head, delta.choice, piece, tail)
        yield DONE

    def _pieces(self, delta: ChoiceDelta, offsets: dict[int, TextOffsets]) -> Iterator[bytes]:
        """What a delta adds to its choice, the prompt before the first of it."""
        choice = delta.choice
        if choice not in offsets:
            offsets[choice] = TextOffsets()
            if echoed := self.echo.of(choice):
                scored = delta.tokens if isinstance(delta, PromptDelta) else ()
                logprobs = encode(_legacy(scored, offsets[choice], scored[:1])) if scored else b"null"
                yield _text_piece(echoed, logprobs)
                if not scored:
                    offsets[choice].place(echoed.encode())
        match delta:
            case TextDelta():
                logprobs = encode(_legacy(delta.logprobs, offsets[choice])) if delta.logprobs else b"null"
                if not delta.logprobs:
                    offsets[choice].place(delta.text.encode())
                yield _text_piece(delta.text, logprobs)
            case ChoiceDone():
                yield b'"text":"","logprobs":null,"finish_reason":%s' % encode(finish_reason(delta.reason))
            case ToolCallDelta() | PromptDelta():
                pass  # a raw completion has no tools to call


def _text_piece(text: str, logprobs: bytes) -> bytes:
    return b'"text":%s,"logprobs":%s,"finish_reason":null' % (encode(text), logprobs)


def completion_answer(
    completion: Completion,
    *,
    id: str,
    created: int,
    model: str,
    explain: Explain,
    echo: Echo = Echo(),
    logprobs: bool = False,
) -> CompletionAnswer:
    """The plain answer.

    Args:
        completion: what came up.
        id: of the answer; created: Unix time; model: the name that it carries.
        explain: makes its `pentad` object.
        echo: the prompts to put in front.
        logprobs: whether log probabilities were asked for: an empty answer has empty lists of them.
    """
    explained = explain(completion.usage)
    return CompletionAnswer(
        id=id,
        created=created,
        model=model,
        choices=[
            CompletionChoice(
                index=index,
                text=echo.of(index) + choice.message.content,
                finish_reason=finish_reason(choice.reason),
                logprobs=_legacy((*choice.prompt, *choice.logprobs), TextOffsets(), choice.prompt[:1])
                if logprobs or choice.logprobs
                else None,
            )
            for index, choice in enumerate(completion.choices)
        ],
        usage=wire_usage(completion.usage),
        pentad=UNSET if explained is None else explained,
    )


def _legacy(
    logprobs: Sequence[TokenLogprob], offsets: TextOffsets, first: Sequence[TokenLogprob] = ()
) -> LegacyLogprobs:
    """Parallel lists. `first` holds the token, if it is among these, that has nothing before it."""
    unknown = len(first)
    known = logprobs[unknown:]
    return LegacyLogprobs(
        tokens=[one.text for one in logprobs],
        token_logprobs=[*[None] * unknown, *(one.logprob for one in known)],
        top_logprobs=[*[None] * unknown, *(_top(one) for one in known)],
        text_offset=[offsets.place(one.data) for one in logprobs],
    )


def _top(one: TokenLogprob) -> dict[str, float]:
    return {text: logprob for text, _, logprob in one.alternatives}
