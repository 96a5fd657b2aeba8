"""Model calls that broke: what is journaled of them, and how long to wait before the next try."""

from __future__ import annotations

from pentad.agent.model_events import ModelAsked, ModelFailed
from pentad.errors import Overloaded, PentadError

_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 5.0


def failed(asked: ModelAsked, error: PentadError, retry: bool, streamed: bool) -> ModelFailed:
    """The event of a call that broke; the reservation comes back where nothing can have been computed."""
    refused = isinstance(error, Overloaded) or error.status < 500
    return ModelFailed(
        step=asked.step,
        attempt=asked.attempt,
        error=str(error),
        retry=retry,
        started=streamed or not refused,
    )


def pause_s(error: PentadError, number: int) -> float:
    """How long to wait before try number `number` + 1: as the backend wishes, or twice as long each time."""
    wished = error.retry_after_s if isinstance(error, Overloaded) else 0.0
    return float(min(_MAX_BACKOFF_S, max(wished, _BACKOFF_S * 2 ** (number - 1))))
