"""Completions: raw prompts as Requests. Several prompts run at once and share one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from pentad.application.gateway.schemas.completions import CompletionRequest
from pentad.application.gateway.translate.formats import structured
from pentad.application.gateway.translate.options import given, sampling
from pentad.errors import InvalidRequest
from pentad.execution.backend import Delta, NoticeDelta, StreamDone
from pentad.types import OutputFormat, Request, RunContext, Usage, together

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
    if body.suffix:
        raise InvalidRequest("suffix is not served here", hint="leave suffix out", param="suffix")
    scores = body.logprobs if body.echo else None
    if scores is not None and (body.n or 1) > 1:
        raise InvalidRequest(
            f"echo with logprobs and n={body.n}; a prompt is scored for one choice",
            hint="leave n out, or send the scored prompt as a request of its own",
            param="n",
        )
    if body.best_of not in (None, body.n or 1):
        raise InvalidRequest(f"best_of is {body.best_of}; only n is served", param="best_of")
    extra = body.structured_outputs
    common: dict[str, Any] = {
        "model": body.model or "",
        "format": OutputFormat() if extra is None else structured(extra),
        "sampling": replace(
            sampling(body, max_tokens=given(body.max_tokens, 16), logprobs=body.logprobs),
            prompt_logprobs=scores,
        ),
        "tenant": tenant,
        "cache_salt": body.cache_salt or "",
        "priority": body.priority or 0,
        "context": context,
    }
    return [
        Request(
            id=f"{request_id}-{index}" if len(prompts) > 1 else request_id,
            **_prompt_field(prompt),
            **common,
        )
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
                        if isinstance(delta, (StreamDone, NoticeDelta))
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
        energy=together(u.energy for u in usages),
        spans=tuple(span for u in usages for span in u.spans),
        decisions=tuple(decision for u in usages for decision in u.decisions),
    )
