"""Metering: instants and counts of every generation, on their way past."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from pentad.application.gateway.metrics import Metrics
from pentad.execution.backend import ChoiceDone, Delta, NoticeDelta, PromptDelta, StreamDone
from pentad.types import Clock


@dataclass(slots=True)
class Pulse:
    """When models last produced a token, for /health."""

    last_s: dict[str, float] = field(default_factory=dict)


async def metered(
    deltas: AsyncGenerator[Delta, None], model: str, *, metrics: Metrics, pulse: Pulse, clock: Clock
) -> AsyncGenerator[Delta, None]:
    """The same deltas. Times run from the first call, on one clock."""
    started_s = clock()
    meter = metrics.generation(model)
    before: dict[int, float] = {}
    outcome = "error"
    try:
        async with aclosing(deltas) as stream:
            async for delta in stream:
                now = clock()
                if isinstance(delta, StreamDone):
                    meter.usage(delta.usage)
                elif not isinstance(delta, (NoticeDelta, PromptDelta)):
                    pulse.last_s[model] = now
                    if not before:
                        meter.first_token(now - started_s)
                    previous = before.get(delta.choice)
                    if isinstance(delta, ChoiceDone):
                        outcome = delta.reason
                    elif previous is not None:
                        meter.inter_token(now - previous)
                    before[delta.choice] = now
                yield delta
    except GeneratorExit:
        outcome = "cancelled"
        raise
    except BaseException as error:
        outcome = "error" if isinstance(error, Exception) else "cancelled"
        raise
    finally:
        meter.done(outcome, clock() - started_s)
