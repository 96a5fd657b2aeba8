"""Short requests beside long prompts: who is short, and how much of the time long prompts get.

    chunk of a long prompt        steps of short requests alone    chunk
    [........ chunk_s ........]   [.. at least chunk_s for 3x ..]  [........

A chunk as long as some steps does little but compute; many small ones would read the weights, and the
prompt's own keys and values, over and over. So the long prompt pauses rather than shrinks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pentad.execution.pace import Pace
from pentad.execution.scheduling import SequenceView

SHORT_TOKENS: Final = 512
"""A request is short while it has cost no more tokens, computed and generated, than this."""
_LEAST_TOKENS: Final = 64
"""Of a chunk: with fewer, reading weights and the prompt's own keys and values takes much of the time."""
_ANSWER_STEPS: Final = 12
"""Steps that the shortest answer whose waiting counts may lose: of 20, so that the end of a chunk fits in."""


def is_short(seq: SequenceView) -> bool:
    """Whether little was and is to be computed for the request so far; cached tokens cost nothing."""
    return seq.num_tokens - seq.num_cached <= SHORT_TOKENS


def chunk_tokens(pace: Pace, budget: int, slowdown: float) -> int:
    """Tokens of long prompts in one step: at least 1, at most `budget`.

    Half of the time that a short answer may lose can pass until the step ends that is under way when
    it comes.

    Args:
        pace: how long steps take; unknown, nothing is cut.
        budget: tokens of the step.
        slowdown: how many times its time alone a short request may take; above 1.
    """
    if not (pace.least_s and pace.prompt_token_s):
        return budget
    most_s = (slowdown - 1) / 2 * _ANSWER_STEPS * pace.least_s
    tokens = int(min(most_s / pace.prompt_token_s, budget))
    return min(budget, max(tokens - tokens % _LEAST_TOKENS, _LEAST_TOKENS))


def pauses(longs: Iterable[SequenceView], now_s: float, slowdown: float) -> bool:
    """Whether long prompts wait, as short requests have had less time than their share since the last chunk.

    The other half of what a short answer may lose: for a slowdown of 3, long prompts get half of the time.
    """
    latest = max(longs, key=lambda seq: seq.chunk_ended_s)
    return now_s - latest.chunk_ended_s < latest.chunk_s * 2 / (slowdown - 1)
