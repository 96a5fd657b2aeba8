"""What one model call used and which choices were made for it, as attributes and events of its span."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pentad.tracing import spans as names
from pentad.tracing.spans import Attribute, SpanEvent
from pentad.types import Decision, Usage

DECISION = "pentad.decision"
_FIRST = frozenset({"prefill", "remote_first_token"})
"""Spans that end with the first token."""
_PHASES = ("queue", "prefill", "decode")


def usage_attributes(usage: Usage, *, began_s: float, ended_s: float) -> dict[str, Attribute]:
    """Tokens, energy, cost and times of one model call.

    Args:
        began_s, ended_s: the call's instants on the clock of the usage's spans; times that do not lie between
            them are of another clock, and left out.
    """
    told: dict[str, Attribute] = {
        names.INPUT_TOKENS: usage.prompt_tokens,
        names.OUTPUT_TOKENS: usage.completion_tokens,
        names.CACHED_TOKENS: usage.cached_tokens,
    }
    if usage.reasoning_tokens:
        told[names.REASONING_TOKENS] = usage.reasoning_tokens
    if usage.cost:
        told["pentad.cost"] = usage.cost
    if usage.energy is not None:
        told["pentad.energy.joules"] = usage.energy.joules
        told["pentad.energy.source"] = usage.energy.source
    within = [span for span in usage.spans if began_s <= span.start_s <= span.end_s <= ended_s]
    first = [span.end_s for span in within if span.name in _FIRST]
    if first:
        told[names.FIRST_CHUNK_S] = min(first) - began_s
    for phase in _PHASES:
        taken = [span.end_s - span.start_s for span in within if span.name == phase]
        if taken:
            told[f"pentad.{phase}_s"] = sum(taken)
    return told


def decision_events(
    decisions: Iterable[Decision], *, at_s: float, clock_s: float, timed: bool = True
) -> Iterator[SpanEvent]:
    """Each choice that a layer made, as an event.

    Args:
        at_s, clock_s: one instant on the wall clock and on the clock of the decisions.
        timed: whether the decisions' own instants are of that clock; else all are put at `at_s`.
    """
    for decision in decisions:
        ago_s = clock_s - decision.at_s if timed and 0 < decision.at_s <= clock_s else 0.0
        told: dict[str, Attribute] = {
            "pentad.layer": decision.layer,
            "pentad.policy": decision.policy,
            "pentad.subject": decision.subject,
            "pentad.chosen": decision.chosen,
        }
        if decision.constraint:
            told["pentad.constraint"] = decision.constraint
        yield SpanEvent(name=DECISION, at_s=at_s - ago_s, attributes=told)


def message(role: str, text: str) -> dict[str, Any]:
    """A message of one text, as `gen_ai.input.messages` has it."""
    return {"role": role, "parts": [{"type": "text", "content": text}]}
