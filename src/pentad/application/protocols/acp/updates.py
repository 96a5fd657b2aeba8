"""A run's events as an editor shows them."""

from __future__ import annotations

import json
from typing import Any

from acp import (
    plan_entry,
    start_tool_call,
    text_block,
    tool_content,
    update_agent_message_text,
    update_plan,
    update_tool_call,
)
from acp.schema import PermissionOption, ToolCallUpdate

from pentad.agent.events import Planned
from pentad.agent.state import RunState
from pentad.agent.tool_events import ApprovalAsked, ToolIntended, ToolReturned

_ENDS = {
    "answered": "end_turn",
    "refused": "refusal",
    "cancelled": "cancelled",
    "out_of_steps": "max_turn_requests",
    "budget_exceeded": "max_tokens",
}
_KINDS = {"editor_read_file": "read", "editor_write_file": "edit"}


def update_of(event: object) -> Any:
    """What the editor is told of an event; None for those that it is not."""
    match event:
        case Planned():
            entries = [
                plan_entry(task, priority="medium", status="pending") for _, task in event.goals if task
            ]
            return update_plan(entries) if entries else None
        case ToolIntended():
            return start_tool_call(
                call_id(event),
                event.tool,
                kind=kind_of(event.tool),
                status="in_progress",
                raw_input=_object(event.arguments),
            )
        case ToolReturned():
            return update_tool_call(
                call_id(event),
                status="completed" if event.status == "ok" else "failed",
                content=[tool_content(text_block(event.content))],
            )
        case _:
            return None


def options(asked: ApprovalAsked) -> list[PermissionOption]:
    """What a person may say to it."""
    what = "these tools" if asked.kind == "tools" else "this call"
    return [
        PermissionOption(option_id="allow", name=f"Allow {what}", kind="allow_once"),
        PermissionOption(option_id="deny", name=f"Deny {what}", kind="reject_once"),
    ]


def permission(asked: ApprovalAsked) -> ToolCallUpdate:
    """The call that a person is asked about."""
    return ToolCallUpdate(
        tool_call_id=call_id(asked),
        title=asked.message if asked.kind == "tools" else asked.tool,
        kind=kind_of(asked.tool),
        status="pending",
        raw_input=_object(asked.arguments),
    )


def ending(state: RunState) -> Any:
    """The answer, or why there is none."""
    text = state.answer if state.status == "answered" else state.error or state.answer
    return update_agent_message_text(text) if text else None


def stop_reason(state: RunState) -> Any:
    """Why the turn is over, in the protocol's words; a run that failed has said why."""
    return _ENDS.get(state.status, "end_turn")


def call_id(event: ApprovalAsked | ToolIntended | ToolReturned) -> str:
    """A call's id within its session, before the model's own one is known."""
    return f"step-{event.step}-{event.index}"


def kind_of(tool: str) -> Any:
    """What kind of act a tool is."""
    return _KINDS.get(tool, "other")


def _object(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
