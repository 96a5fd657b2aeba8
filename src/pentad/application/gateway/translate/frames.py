"""What all streamed dialects share: JSON pieces and the end of a choice."""

from __future__ import annotations

from typing import Any

import msgspec

from pentad.application.gateway.schemas.chat import (
    ChoiceLogprobs,
    ContentLogprob,
    TopLogprob,
)
from pentad.errors import BackendFailed, PentadError
from pentad.execution.backend import TokenLogprob
from pentad.types import FinishReason

encode = msgspec.json.Encoder().encode
"""Any value as JSON bytes; a string costs about 100 ns."""

DONE = b"data: [DONE]\n\n"


def data_frame(value: Any) -> bytes:
    """One `data:` event."""
    return b"data: " + encode(value) + b"\n\n"


def event_frame(name: str, value: Any) -> bytes:
    """One named event."""
    return b"event: " + name.encode() + b"\ndata: " + encode(value) + b"\n\n"


def finish_reason(reason: FinishReason) -> str:
    """The reason as clients know it. Raises BackendFailed for an answer that has no end."""
    if reason == "cancelled":
        raise cancelled()
    return reason


def cancelled() -> PentadError:
    """For requests that someone ended from inside."""
    return BackendFailed("the request was cancelled before its end", hint="send it again")


def logprob_content(logprobs: tuple[TokenLogprob, ...]) -> ChoiceLogprobs:
    """Token log probabilities in OpenAI's chat shape."""
    return ChoiceLogprobs(
        content=[
            ContentLogprob(
                token=one.text,
                logprob=one.logprob,
                bytes=list(one.data),
                top_logprobs=[
                    TopLogprob(token=text, bytes=list(data), logprob=logprob)
                    for text, data, logprob in one.alternatives
                ],
            )
            for one in logprobs
        ]
    )
