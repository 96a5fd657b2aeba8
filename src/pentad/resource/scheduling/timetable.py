"""Timetable: when sequences will be done, if nothing else comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pentad.execution.scheduling import SequenceView
from pentad.resource.scheduling.base import todo_tokens
from pentad.resource.scheduling.step_estimate import StepEstimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Instants:
    """Of one sequence, in seconds from now."""

    first_s: float
    """Its next token; the first one, of a sequence in its prompt."""
    end_s: float
    """Its last token."""


def answer_left(seq: SequenceView) -> int:
    """Tokens that a sequence is still to generate: as many as it may have."""
    return max(1, seq.max_tokens - seq.num_generated)


def timetable(
    estimate: StepEstimate,
    token_budget: int,
    decoding: Iterable[SequenceView],
    prompts: Iterable[SequenceView],
) -> dict[str, Instants]:
    """When each sequence gets its next and its last token; every answer as long as it may be.

    Each step gives a token to all that decode, and fills the budget with the first prompt that is not
    computed yet; a prompt that is complete decodes from the next step on. Cost: linear in the sequences and
    the steps of prompts.

    Args:
        estimate: of a step's time.
        token_budget: tokens of a step.
        decoding: sequences that generate.
        prompts: those that do not yet, in the order in which they will be computed.
    """
    now_s = 0.0
    first_s: dict[str, float] = {}
    end_s: dict[str, float] = {}
    left = {seq.id: answer_left(seq) for seq in decoding}
    context = {seq.id: seq.num_tokens for seq in decoding}

    def advance(seconds: float, steps: int) -> None:
        nonlocal now_s
        for id in tuple(left):
            first_s.setdefault(id, now_s + seconds / steps)
            left[id] -= steps
            context[id] += steps
            if left[id] <= 0:
                end_s[id] = now_s + seconds
                del left[id], context[id]
        now_s += seconds

    for seq in prompts:
        todo = todo_tokens(seq)
        while todo > 0:
            chunk = min(todo, max(1, token_budget - len(left)))
            end = seq.num_tokens - todo + chunk
            pairs = chunk * end - chunk * (chunk - 1) // 2
            draws = bool(left) or chunk == todo
            slots: float = sum(context.values()) + end
            advance(estimate.seconds(len(left), chunk, slots, pairs, draws=draws), 1)
            todo -= chunk
        first_s[seq.id] = now_s
        left[seq.id] = answer_left(seq) - 1
        context[seq.id] = seq.num_tokens + 1
        if not left[seq.id]:
            end_s[seq.id] = now_s
            del left[seq.id], context[seq.id]
    while left:
        steps = min(left.values())
        slots = sum(context.values()) + len(left) * (steps - 1) / 2
        advance(steps * estimate.seconds(len(left), 0, slots, 0), steps)
    return {id: Instants(first_s=first_s[id], end_s=at) for id, at in end_s.items()}
