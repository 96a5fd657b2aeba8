"""Speed of a served model, as the requests that went through it met it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pentad.types import Usage

_WEIGHT: Final = 0.2
"""Of the latest request."""
_WAITING: Final = ("queue", "admission")
"""Spans that a request waited in; they tell of the load, not of the speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Moving averages over requests; 0 while nothing was measured. The same requests give the same speed.

    Prompt tokens that a cache supplied cost nothing, and longer prompts weigh more.
    """

    prompt_s: float = 0.0
    """Seconds until the first piece of an answer, without waiting."""
    prompt_tokens: float = 0.0
    """Tokens computed for it."""
    token_s: float = 0.0
    """Seconds between tokens of one answer."""
    at_s: float = 0.0
    """When the latest of the requests ended."""

    def after(self, usage: Usage, first_s: float, total_s: float, now_s: float) -> Speed:
        """The speed once one more request has ended.

        Args:
            usage: what it consumed.
            first_s: seconds from its arrival until the first piece of the answer.
            total_s: until its end.
            now_s: when it ended.
        """
        waited_s = sum(span.end_s - span.start_s for span in usage.spans if span.name in _WAITING)
        tokens = usage.completion_tokens
        each_s = (total_s - first_s) / (tokens - 1) if tokens > 1 else self.token_s
        return Speed(
            prompt_s=_mixed(self.prompt_s, max(0.0, first_s - waited_s)),
            prompt_tokens=_mixed(self.prompt_tokens, max(1, usage.prompt_tokens - usage.cached_tokens)),
            token_s=_mixed(self.token_s, each_s),
            at_s=now_s,
        )

    def first_s(self, prompt_tokens: int) -> float:
        """Expected seconds until the first piece of an answer to such a prompt, when nobody waits."""
        return self.prompt_s / self.prompt_tokens * prompt_tokens if self.prompt_tokens else 0.0


def _mixed(known: float, latest: float) -> float:
    return known + _WEIGHT * (latest - known) if known else latest
