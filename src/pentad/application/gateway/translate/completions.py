"""Completions: raw prompts down, text up. Several prompts run at once and share one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from msgspec import UNSET

from pentad.application.gateway.context import wire_usage
from pentad.application.gateway.schemas.completions import (
    CompletionAnswer,
    CompletionChoice,
    CompletionRequest,
    LegacyLogprobs,
)
from pentad.application.gateway.translate.chat import structured
from pentad.application.gateway.translate.chat_answer import Explain
from pentad.application.gateway.translate.frames import DONE, data_frame, encode, finish_reason
from pentad.application.gateway.translate.options import sampling
from pentad.errors import InvalidRequest
from pentad.execution.backend import (
    ChoiceDone,
    Completion,
    Delta,
    StreamDone,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from pentad.types import OutputFormat, Request, RunContext, Usage

MAX_CHOICES = 128
"""Prompts times n of one request."""


def completion_requests(
    body: CompletionRequest, *, request_id: str, tenant: str, context: RunContext
) -> list[Request]:
    """One request per prompt. Raises InvalidRequest naming the field at fault."""
    prompts = _prompts(body.prompt)
    choices = len(prompts) * (body.n or 1)
    if choices > MAX_CHOICES:
        raise InvalidRequest(
            f"{len(prompts)} prompts times n={body.n or 1} are {choices} choices; at most {MAX_CHOICES}",
            param="prompt",
        )
    for name, served in (("suffix", body.suffix), ("echo", body.echo)):
        if served:
            raise InvalidRequest(f"{name} is not served here", hint=f"leave {name} out", param=name)
    if body.best_of not in (None, body.n or 1):
        raise InvalidRequest(f"best_of is {body.best_of}; only n is served", param="best_of")
    extra = body.structured_outputs
    common: dict[str, Any] = {
        "model": body.model or "",
        "format": OutputFormat() if extra is None else structured(extra),
        "sampling": sampling(body, max_tokens=body.max_tokens or 16, logprobs=body.logprobs),
        "tenant": tenant,
        "cache_salt": body.cache_salt or "",
        "priority": body.priority or 0,
        "context": context,
    }
    return [
        Request(id=f"{request_id}-{index}", **_prompt_field(prompt), **common)
        for index, prompt in enumerate(prompts)
    ]


def _prompts(prompt: str | Sequence[str | int | Sequence[int]]) -> list[str | Sequence[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if all(isinstance(one, int) for one in prompt):
        return [[one for one in prompt if isinstance(one, int)]]
    mixed = [one for one in prompt if not isinstance(one, int)]
    if len(mixed) != len(prompt):
        raise InvalidRequest("prompt mixes token ids with texts or lists", param="prompt")
    return mixed


def _prompt_field(prompt: str | Sequence[int]) -> dict[str, Any]:
    return {"text": prompt} if isinstance(prompt, str) else {"token_ids": tuple(prompt)}


async def merged(
    streams: Sequence[AsyncGenerator[Delta, None]], per_stream: int
) -> AsyncGenerator[Delta, None]:
    """The deltas of several streams as they come, choices numbered on, usage summed.

    The queue between is small, so that a slow reader slows the streams.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for delta in only:
                yield delta
        return
    queue: asyncio.Queue[Delta | Exception] = asyncio.Queue(maxsize=64)

    async def pump(stream: AsyncGenerator[Delta, None], offset: int) -> None:
        try:
            async with aclosing(stream) as deltas:
                async for delta in deltas:
                    shifted = (
                        delta
                        if isinstance(delta, StreamDone)
                        else replace(delta, choice=delta.choice + offset)
                    )
                    await queue.put(shifted)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(pump(one, i * per_stream)) for i, one in enumerate(streams)]
    usages: list[Usage] = []
    try:
        while len(usages) < len(streams):
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if isinstance(item, StreamDone):
                usages.append(item.usage)
            else:
                yield item
        yield StreamDone(usage=_total(usages))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _total(usages: Sequence[Usage]) -> Usage:
    return Usage(
        prompt_tokens=sum(u.prompt_tokens for u in usages),
        cached_tokens=sum(u.cached_tokens for u in usages),
        completion_tokens=sum(u.completion_tokens for u in usages),
        reasoning_tokens=sum(u.reasoning_tokens for u in usages),
        cost=sum(u.cost for u in usages),
        spans=tuple(span for u in usages for span in u.spans),
        decisions=tuple(decision for u in usages for decision in u.decisions),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionChunks:
    """Writes the events of one streamed completion."""

    id: str
    created: int
    model: str
    include_usage: bool
    explain: Explain

    async def frames(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
        """Text pieces, finish reasons, usage if asked, `[DONE]`."""
        fields = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        head = b"data: " + encode(fields)[:-1]
        tail = b',"usage":null}\n\n' if self.include_usage else b"}\n\n"
        offsets: dict[int, int] = {}
        async with aclosing(deltas) as stream:
            async for delta in stream:
                match delta:
                    case StreamDone():
                        explained = self.explain(delta.usage)
                        if self.include_usage or explained is not None:
                            end = {**fields, "choices": [], "usage": wire_usage(delta.usage)}
                            yield data_frame(end | ({} if explained is None else {"pentad": explained}))
                    case TextDelta():
                        offset = offsets.get(delta.choice, 0)
                        offsets[delta.choice] = offset + len(delta.text)
                        logprobs = encode(_legacy(delta.logprobs, offset)) if delta.logprobs else b"null"
                        yield (
                            b'%s,"choices":[{"index":%d,"text":%s,"logprobs":%s,"finish_reason":null}]%s'
                            % (head, delta.choice, encode(delta.text), logprobs, tail)
                        )
                    case ChoiceDone():
                        yield (
                            b'%s,"choices":[{"index":%d,"text":"","logprobs":null,"finish_reason":%s}]%s'
                            % (head, delta.choice, encode(finish_reason(delta.reason)), tail)
                        )
                    case ToolCallDelta():
                        pass  # a raw completion has no tools to call
        yield DONE


def completion_answer(
    completion: Completion, *, id: str, created: int, model: str, explain: Explain
) -> CompletionAnswer:
    """The plain answer."""
    explained = explain(completion.usage)
    return CompletionAnswer(
        id=id,
        created=created,
        model=model,
        choices=[
            CompletionChoice(
                index=index,
                text=choice.message.content,
                finish_reason=finish_reason(choice.reason),
                logprobs=_legacy(choice.logprobs, 0) if choice.logprobs else None,
            )
            for index, choice in enumerate(completion.choices)
        ],
        usage=wire_usage(completion.usage),
        pentad=UNSET if explained is None else explained,
    )


def _legacy(logprobs: Sequence[TokenLogprob], offset: int) -> LegacyLogprobs:
    offsets = []
    for one in logprobs:
        offsets.append(offset)
        offset += len(one.text)
    return LegacyLogprobs(
        tokens=[one.text for one in logprobs],
        token_logprobs=[one.logprob for one in logprobs],
        top_logprobs=[{text: logprob for text, _, logprob in one.alternatives} for one in logprobs],
        text_offset=offsets,
    )
