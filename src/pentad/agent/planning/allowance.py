"""What a run can still afford: planners ask before they spend."""

from __future__ import annotations

import math

from pentad.agent.planning.base import ModelCallDraft
from pentad.agent.state import RunState

_FIRST_PROMPT = 256
"""Tokens of a prompt beyond the goal, assumed before any call was made."""


def call_tokens(state: RunState, max_tokens: int) -> int:
    """Tokens that one more model call takes at most, going by the prompts so far."""
    calls = state.totals.model_calls
    if calls:
        return math.ceil(state.totals.prompt_tokens / calls) + max_tokens
    return len(state.goal.encode("utf-8", "replace")) // 3 + _FIRST_PROMPT + max_tokens


def prompt_tokens(draft: ModelCallDraft) -> int:
    """Tokens of a draft's prompt at most: a byte in three, and some for each message."""
    texts = [draft.system, *(m.content for turn in draft.turns for m in turn.messages)]
    return sum(len(text.encode("utf-8", "replace")) // 3 + 8 for text in texts)


def calls_left(state: RunState, max_tokens: int) -> int | None:
    """How many model calls of that length the run can make beside its answer; None where nothing bounds them.

    Steps bound them too: the last one answers. Prompts, money and time of a call are taken to be the
    mean of those so far. It may be negative.
    """
    left = state.budget_left
    bounds: list[int] = [state.spec.max_steps - state.step]
    if left.tokens is not None:
        spare = left.tokens - call_tokens(state, state.spec.max_tokens)
        bounds.append(spare // call_tokens(state, max_tokens))
    calls = state.totals.model_calls
    if left.cost is not None and calls and state.totals.cost > 0:
        bounds.append(int(left.cost * calls / state.totals.cost) - 1)
    if left.wall_s is not None and calls and state.active_s > 0:
        bounds.append(int(left.wall_s * calls / state.active_s) - 1)
    return min(bounds)


def bounded(state: RunState, max_tokens: int, least: int = 1) -> bool:
    """Whether the run can make so many such calls and still answer."""
    left = calls_left(state, max_tokens)
    return left is None or left >= least
