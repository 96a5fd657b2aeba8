"""Requests that say when their turn should come, beside those that do not: one order that never flips.

    arrived  |----------- patience_s ----------->|        without hints: wanted by then
    arrived  |-- slack_s -->|                             with a deadline: wanted earlier

Both are sorted by the instant at which they are wanted, so that a request is overtaken only by those that
arrive within `patience_s` after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pentad.execution.hints import TurnHints
from pentad.execution.pace import Pace
from pentad.execution.scheduling import SequenceView
from pentad.resource.scheduling.base import StepBuilder

PATIENCE_S: Final = 30.0
"""Within how long requests that say nothing want their turn, unless somebody says otherwise."""
_LEAST_TOKENS: Final = 16
"""Of prompts in a step, however short a step is wished: so that none stands still."""


def lead_s(hints: TurnHints | None, patience_s: float) -> float:
    """How much earlier than it did a request counts as having arrived; 0 to `patience_s`.

    The last request of a run counts as wanted within half of the patience, one with r requests behind it
    within 1 - 1 / (2 + 2 r) of it: runs that are nearly done are done first.
    """
    if hints is None:
        return 0.0
    lead = 0.0 if hints.slack_s is None else max(0.0, patience_s - hints.slack_s)
    if hints.remaining_steps is not None:
        lead = max(lead, patience_s / (2 + 2 * hints.remaining_steps))
    return lead


def prompt_tokens(
    decodes: Iterable[SequenceView], pace: Pace, budget: int
) -> tuple[int, SequenceView | None]:
    """Tokens of prompts in one step that keep it as short as the decoding sequences wish, and who bound it.

    Args:
        decodes: the sequences that get their next token in the step.
        pace: how long steps take; unknown, nothing is cut.
        budget: tokens that are left of the step.
    """
    if not (pace.least_s and pace.prompt_token_s):
        return budget, None
    tightest = None
    for seq in decodes:
        wished_s = None if seq.turn_hints is None else seq.turn_hints.inter_token_s
        if wished_s is not None:
            tokens = max(_LEAST_TOKENS, int((wished_s - pace.least_s) / pace.prompt_token_s))
            if tokens < budget:
                budget, tightest = tokens, seq
    return budget, tightest


def note_order(draft: StepBuilder, waiting: Sequence[SequenceView], patience_s: float) -> None:
    """Records which admitted requests their hints have let pass one that came before them and still waits.

    Candidates are scored by the lead that counted.
    """
    hinted = [seq for seq, _ in draft.prefills if seq.turn_hints is not None and not seq.num_computed]
    if not hinted:
        return
    given = {seq.id for seq, _ in draft.prefills}
    left = [seq for seq in waiting if seq.id not in given]
    for seq in hinted:
        passed = [o for o in left if o.arrived_s < seq.arrived_s and o.priority <= seq.priority]
        if passed and lead_s(seq.turn_hints, patience_s):
            draft.note(
                "order", seq.id, "slack", (seq, passed[0]), lambda one: lead_s(one.turn_hints, patience_s)
            )
