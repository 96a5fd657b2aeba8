"""What an engine counts about itself, and what it concludes about the time to come."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pentad.types import FinishReason

_RECENT = 64
_LONGEST_RETRY_S = 60.0


@dataclass(slots=True, kw_only=True)
class Counters:
    """Sums since the engine started. Written by its thread, read by any."""

    steps: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    """Of admitted sequences, cached ones included."""
    generation_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0
    step_seconds: float = 0.0
    scheduler_seconds: float = 0.0
    runner_seconds: float = 0.0
    _ends_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def ended(self, finish: FinishReason | None, now_s: float) -> None:
        """Counts a sequence that ended; no reason means that it failed."""
        self._ends_s.append(now_s)
        if finish is None:
            self.failed += 1
        elif finish == "cancelled":
            self.cancelled += 1
        else:
            self.finished += 1

    def drain_s(self, waiting: int, now_s: float) -> float:
        """Seconds in which as many sequences as are waiting should end, at the recent rate.

        1 to 60; 1 while too few have ended to tell.
        """
        ends = self._ends_s
        if len(ends) < 2:
            return 1.0
        elapsed_s = now_s - ends[0]
        return min(max(waiting * elapsed_s / len(ends), 1.0), _LONGEST_RETRY_S)

    def as_dict(self) -> dict[str, float]:
        """By metric name; `overhead` is what a step costs beside the runner."""
        return {
            "steps_total": self.steps,
            "preemptions_total": self.preemptions,
            "prompt_tokens_total": self.prompt_tokens,
            "generation_tokens_total": self.generation_tokens,
            "requests_finished_total": self.finished,
            "requests_cancelled_total": self.cancelled,
            "requests_failed_total": self.failed,
            "requests_refused_total": self.refused,
            "step_seconds_total": self.step_seconds,
            "scheduler_seconds_total": self.scheduler_seconds,
            "runner_seconds_total": self.runner_seconds,
            "overhead_seconds_total": max(0.0, self.step_seconds - self.runner_seconds),
        }
