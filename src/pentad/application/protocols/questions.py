"""What a run asks a person, as a form that clients of other protocols show, and what they said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pentad.agent.tool_events import ApprovalAsked

ACCEPT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "approve": {"type": "boolean", "title": "Accept these tools", "default": False},
        "note": {"type": "string", "title": "Why", "description": "Kept in the run's record."},
    },
    "required": ["approve"],
}
"""The form that asks whether changed tools of a server may be used."""
MAY_CALL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "approve": {"type": "boolean", "title": "Allow this call", "default": False},
        "note": {"type": "string", "title": "Why", "description": "Told to the agent when denied."},
    },
    "required": ["approve"],
}
"""The form that asks whether a tool may be called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a person said, in the words of the runtime's `answer`."""

    approved: bool
    note: str = ""
    content: Mapping[str, Any] | None = None


def question(asked: ApprovalAsked) -> str:
    """What is asked, in one sentence for a person."""
    if asked.kind == "input":
        return asked.message or f"{asked.tool} asks for values"
    if asked.kind == "tools":
        return f"{asked.message}. Accept them? They say: {asked.arguments}"
    return f"May {asked.tool} be called with {asked.arguments}?"


def form(asked: ApprovalAsked) -> dict[str, Any]:
    """JSON Schema of the answer."""
    if asked.kind == "tool":
        return MAY_CALL
    if asked.kind == "tools":
        return ACCEPT
    return dict(asked.schema or {"type": "object", "properties": {}})


def reply(asked: ApprovalAsked, *, accepted: bool, content: Mapping[str, Any] | None) -> Reply:
    """What a filled form means; anything but an explicit yes denies.

    Args:
        accepted: whether it was sent at all. content: the values in it.
    """
    values = dict(content or {})
    if asked.kind == "input":
        return Reply(approved=accepted, content=values if accepted else None)
    note = str(values.get("note", ""))[:2000]
    return Reply(approved=accepted and values.get("approve") is True, note=note)
