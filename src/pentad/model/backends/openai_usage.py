"""Tokens of a remote answer: as the endpoint reports them, if the text bears that out, else estimated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pentad.content import Media
from pentad.errors import BackendFailed
from pentad.types import Decision, Request, Usage

BYTES_PER_TOKEN = 4
"""For estimates; a common rule of thumb for English."""
MAX_BYTES_PER_TOKEN = 16
"""No tokenizer packs more into its tokens on average; a report below that is not believed."""
IMAGE_TOKENS = 1600
"""Of one image: what Anthropic and OpenAI count at most for one that they scale down to what they look at."""
AUDIO_BYTES_PER_TOKEN = 800
"""Ten tokens a second, as OpenAI counts, at 64 kbit/s; other sounds have more bytes a second."""
FILE_BYTES_PER_TOKEN = 16
"""Some 3,000 tokens for a page of PDF of 50 kB."""
MAX_TOKENS = 10**9
"""No request takes more; a report above it is not believed either."""


def prompt_bytes(request: Request) -> int:
    """UTF-8 bytes of everything that the request says to the model."""
    texts = [request.text or ""]
    for message in request.messages or ():
        texts += [message.content, *(call.name + call.arguments for call in message.tool_calls)]
    texts += [f"{tool.name}{tool.description}{tool.parameters}" for tool in request.tools]
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def media_tokens(request: Request) -> int:
    """Tokens that an endpoint may count for parts that are no text: high, so that budgets hold."""
    return sum(_part_tokens(part) for part in request.media)


def _part_tokens(part: Media) -> int:
    match part.kind:
        case "image":
            return IMAGE_TOKENS
        case "audio":
            return part.size_bytes // AUDIO_BYTES_PER_TOKEN + 1
        case "file":
            return part.size_bytes // FILE_BYTES_PER_TOKEN + 1


def estimated_tokens(size_bytes: int) -> int:
    """Tokens that a text of this size likely has."""
    return math.ceil(size_bytes / BYTES_PER_TOKEN)


def usage_of(
    reported: Mapping[str, Any] | None, *, prompt_bytes: int, answer_bytes: int, most_answer_tokens: int
) -> Usage:
    """The usage of one request.

    A report of fewer tokens than the text can have would leave budgets untouched, so the estimate
    takes its place, marked by a Decision. The estimate of the answer stays within what was asked for.

    Args:
        reported: the endpoint's `usage`; None where it sent none.
        most_answer_tokens: what all choices together were asked to have at most.

    Raises BackendFailed for counts that are no token counts.
    """
    prompt = estimated_tokens(prompt_bytes)
    answer = min(estimated_tokens(answer_bytes), most_answer_tokens)
    if reported is None:
        usage = Usage(prompt_tokens=prompt, completion_tokens=answer)
        return replace(usage, decisions=(_estimated("the endpoint reports no usage"),))
    details = reported.get("prompt_tokens_details") or {}
    answer_details = reported.get("completion_tokens_details") or {}
    usage = Usage(
        prompt_tokens=_count(reported.get("prompt_tokens")),
        cached_tokens=_count(details.get("cached_tokens")),
        completion_tokens=_count(reported.get("completion_tokens")),
        reasoning_tokens=_count(answer_details.get("reasoning_tokens")),
    )
    doubted = []
    if usage.prompt_tokens * MAX_BYTES_PER_TOKEN < prompt_bytes:
        doubted.append(f"{usage.prompt_tokens} prompt tokens for {prompt_bytes} bytes")
        usage = replace(usage, prompt_tokens=prompt)
    if usage.completion_tokens * MAX_BYTES_PER_TOKEN < answer_bytes:
        doubted.append(f"{usage.completion_tokens} completion tokens for {answer_bytes} bytes")
        usage = replace(usage, completion_tokens=max(usage.completion_tokens, answer))
    if usage.cached_tokens > usage.prompt_tokens:
        usage = replace(usage, cached_tokens=usage.prompt_tokens)
    if doubted:
        reason = f"the endpoint reports {' and '.join(doubted)}"
        usage = replace(usage, decisions=(_estimated(reason),))
    return usage


def _estimated(reason: str) -> Decision:
    return Decision(
        layer="model", policy="characters", subject="usage", chosen="estimated", constraint=reason
    )


def _count(value: Any) -> int:
    """A token count as sent; a negative one would give budget back, so it is refused."""
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
        said = repr(value)[:40]
        raise BackendFailed(f"the endpoint reported {said} tokens", hint="do not trust its usage")
    return value
