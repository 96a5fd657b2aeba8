"""Thoughts: answers that a planner asked for to decide later steps; drafts of them, and the fold of them."""

from __future__ import annotations

from dataclasses import replace

from pentad.agent.exchange import Exchange
from pentad.agent.planning.base import MessageGroup, ModelCallDraft
from pentad.agent.state import RunState
from pentad.types import Decision, Message, OutputFormat


def think(
    label: str,
    system: str,
    text: str,
    *,
    max_tokens: int,
    form: OutputFormat | None = None,
    samples: int = 1,
    temperature: float | None = None,
) -> ModelCallDraft:
    """A draft whose answer is material for later steps; its exchange bears `label`."""
    turn = MessageGroup(messages=(Message(role="user", content=text),), pinned=True, noted=True)
    return ModelCallDraft(
        purpose="think",
        system=system,
        turns=(turn,),
        format=form or OutputFormat(),
        max_tokens=max_tokens,
        next_hint="model",
        samples=samples,
        temperature=temperature,
        label=label,
    )


def json_form(properties: dict[str, object]) -> OutputFormat:
    """The form of a JSON object that has exactly these properties."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return OutputFormat(kind="json_schema", value=schema)


def labelled(state: RunState, label: str) -> tuple[Exchange, ...]:
    """The thoughts of that label, in order; without those that were of no use."""
    return tuple(e for e in state.closed if e.label == label and e.outcome == "thought")


def lost(state: RunState, label: str) -> int:
    """How many answers of that label were of no use since the last one that was."""
    count = 0
    for exchange in reversed(state.closed):
        if exchange.label != label:
            continue
        if exchange.outcome != "failed":
            break
        count += 1
    return count


def told(draft: ModelCallDraft, text: str) -> ModelCallDraft:
    """The draft with one more paragraph of system text; the same where the text is empty."""
    return replace(draft, system=f"{draft.system}\n\n{text}".strip()) if text else draft


def chose(
    policy: str,
    subject: str,
    chosen: str,
    *,
    candidates: tuple[tuple[str, float | None], ...] = (),
    constraint: str | None = None,
) -> Decision:
    """A planner's choice, for the record."""
    return Decision(
        layer="agent",
        policy=policy,
        subject=subject,
        chosen=chosen,
        candidates=candidates,
        constraint=constraint,
    )
