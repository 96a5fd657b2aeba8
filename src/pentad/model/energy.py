"""Energy of answers: each request's share of what the machine uses while it is under way."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from pentad.execution.backend import Delta, StreamDone, TextDelta, ToolCallDelta
from pentad.resource.request_energy import RequestEnergy


async def metered_energy(
    answer: AsyncGenerator[Delta, None], energy: RequestEnergy, prompt_tokens: int = 0
) -> AsyncGenerator[Delta, None]:
    """The same deltas; the usage at the end tells what the request used. A cancelled one stops counting.

    Args:
        prompt_tokens: of the request, about; they count as computed with its first token.
    """
    waiting = prompt_tokens
    key = object()
    energy.begin(key)
    try:
        async with aclosing(answer) as deltas:
            async for delta in deltas:
                if isinstance(delta, TextDelta | ToolCallDelta):
                    energy.computed(key, waiting + 1)
                    waiting = 0
                if isinstance(delta, StreamDone):
                    delta = StreamDone(usage=replace(delta.usage, energy=energy.end(key)))
                yield delta
    finally:
        energy.end(key)
